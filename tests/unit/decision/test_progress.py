"""A decision runs at once as far as nothing waits; what waits is given up when its stream or its time is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from epp.decision import progress
from epp.decision.admission import Hold
from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectRequest
from epp.framework.interfaces import Role
from epp.framework.types import InferenceRequest
from epp.hooks.slots import Hooks
from epp.seam import End
from tests.unit.decision.rig import AsyncPlugin, Plugin, Rig, hook, hooks, outcome, request

FULL = RequestError(ErrorCode.RESOURCE_EXHAUSTED, "full", DropReason.SATURATED)


class Stubborn:
    """A coroutine function that swallows its cancellation and goes on."""

    def __init__(self, result: object = None) -> None:
        self.began = asyncio.Event()
        self._result = result

    async def __call__(self, *_: object) -> Any:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self._result


def running(rig: Rig) -> float:
    """Requests that are scheduled and not over."""
    return rig.count("request_running", model_name="m") or 0


# ── a stream that ends while a plugin waits ──


class Direct:
    """Claims everything."""

    name = "direct"

    def __init__(self, respond: Callable[[DirectRequest], Awaitable[Any]]) -> None:
        self._respond = respond

    def answers(self, method: str, path: str) -> bool:
        return True

    async def respond(self, request: DirectRequest) -> Any:
        return await self._respond(request)


async def test_a_responder_that_swallows_its_cancellation_schedules_nothing() -> None:
    stubborn = Stubborn()
    rig = Rig(Hooks(responders=[hook(Role.DIRECT_RESPONDER, Direct(stubborn))]))
    stream = rig.send()
    await stubborn.began.wait()
    rig.director.finished(stream, outcome(End.DISCONNECTED))
    await rig.settle()
    assert (stream.answers, running(rig)) == ([], 0)


@pytest.mark.parametrize("slot", ["producers", "admitters", "pre_request"])
async def test_no_hook_runs_after_one_that_swallows_its_cancellation(slot: str) -> None:
    journal: list[str] = []
    stubborn = Stubborn()
    first = AsyncPlugin("first", journal, **dict.fromkeys(("produce", "admit", "pre_request"), stubborn))
    rig = Rig(hooks(first, AsyncPlugin("second", journal), slots=[slot]))
    stream = rig.send()
    await stubborn.began.wait()
    rig.director.finished(stream, outcome(End.DISCONNECTED))
    await rig.settle()
    assert [call.partition(".")[0] for call in journal] == ["first"]
    assert (stream.answers, running(rig)) == ([], 0)


# ── no path ends without an answer ──


@pytest.mark.parametrize("reply", [5, "text", {"status": 200}], ids=str)
async def test_a_responder_that_answers_with_a_wrong_type_is_a_defect(reply: object) -> None:
    async def wrong(_: DirectRequest) -> object:
        return reply

    rig = Rig(Hooks(responders=[hook(Role.DIRECT_RESPONDER, Direct(wrong))]))
    stream = await rig.sent()
    assert stream.reply.status == 500
    assert [(role, name) for role, name, _ in rig.reports.seen] == [(Role.DIRECT_RESPONDER, "direct")]


async def test_a_rewriter_that_cannot_say_whether_it_rewrites_is_a_defect() -> None:
    class Broken:
        name = "broken"

        def rewrites(self, request: object) -> bool:
            raise ZeroDivisionError

        def rewrite(self, request: object, edits: object) -> None:
            raise AssertionError

    rig = Rig(Hooks(rewriters=[hook(Role.BODY_REWRITER, Broken())]))
    assert (await rig.sent()).reply.status == 500
    assert [(role, name) for role, name, _ in rig.reports.seen] == [(Role.BODY_REWRITER, "broken")]


# ── one deadline ──


async def test_a_responder_that_declines_leaves_the_decision_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.1)
    began: list[float] = []

    async def declines(_: DirectRequest) -> None:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.07)

    class Slow:
        name = "slow"

        def rewrites(self, request: object) -> bool:
            return True

        async def rewrite(self, request: object, edits: object) -> None:
            await asyncio.Event().wait()

    slots = Hooks(responders=[hook(Role.DIRECT_RESPONDER, Direct(declines))], rewriters=[hook(Role.BODY_REWRITER, Slow())])
    stream = await Rig(slots).sent()
    took_s = asyncio.get_running_loop().time() - began[0]
    assert (stream.reply.status, stream.flight.progress.is_late) == (503, True)
    assert took_s < 0.17, "the time did not begin again"


async def test_a_plugin_that_swallows_the_end_of_its_time_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.02)

    class Rewriter:
        name = "stubborn"

        def __init__(self) -> None:
            self.rewrite = Stubborn().__call__

        def rewrites(self, request: object) -> bool:
            return True

    rig = Rig(Hooks(rewriters=[hook(Role.BODY_REWRITER, Rewriter())]))
    stream = await rig.sent()
    assert stream.reply.status == 503
    assert "no decision in time" in json.loads(stream.reply.body)["error"]["message"]
    assert running(rig) == 0


# ── what does not wait ──


def test_plain_hooks_decide_within_the_call() -> None:
    journal: list[str] = []
    stream = Rig(hooks(Plugin("p", journal))).send()
    assert stream.route
    assert stream.flight.progress.task is None


async def test_all_before_the_first_wait_runs_within_the_call() -> None:
    journal: list[str] = []
    rig = Rig(hooks(Plugin("plain", journal), AsyncPlugin("later", journal), slots=["producers"]))
    stream = rig.send()
    assert (journal, stream.answers) == (["plain.produce"], [])
    await stream.answered.wait()
    assert journal == ["plain.produce", "later.produce"]


async def test_a_plain_function_may_return_what_is_to_be_awaited() -> None:
    async def soon(*_: object) -> None:
        await asyncio.sleep(0)
        journal.append("done")

    journal: list[str] = []
    rig = Rig(hooks(Plugin("p", journal, produce=soon), slots=["producers"]))
    assert (await rig.sent()).route
    assert journal == ["p.produce", "done"]


async def test_what_a_decision_reserves_is_seen_by_the_next_though_a_later_hook_waits() -> None:
    journal: list[str] = []
    waits = AsyncPlugin("waits", journal, pre_request=lambda *_: asyncio.sleep(0.01))
    rig = Rig(Hooks(pre_request=[hook(Role.PRE_REQUEST, Plugin("reserves", journal)), hook(Role.PRE_REQUEST, waits)]))
    first, second = rig.send(), rig.send()
    assert journal == ["reserves.pre_request", "reserves.pre_request"]
    await first.answered.wait()
    await second.answered.wait()


# ── admission ──


class Gate:
    """An admission that holds every request until it is told otherwise."""

    def __init__(self) -> None:
        self.held: list[Hold] = []
        self.arrived = asyncio.Event()
        self.withdrawn = 0
        self.seen: list[int] = []

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold | None:
        self.seen.append(len(candidates))
        self.held.append(Hold(self._left))
        self.arrived.set()
        return self.held[-1]

    def _left(self) -> None:
        self.withdrawn += 1


def test_a_held_request_needs_no_task_and_goes_on_within_the_release() -> None:
    gate = Gate()
    rig = Rig(admission=gate)
    stream = rig.send()
    assert (stream.answers, stream.flight.progress.task, rig.runtime._tasks) == ([], None, set())
    gate.held[0].release()
    assert stream.route
    gate.held[0].release()
    gate.held[0].refuse(FULL)
    assert stream.route, "a hold ends once"


def test_a_held_request_is_scheduled_among_the_endpoints_of_its_release() -> None:
    gate = Gate()
    rig = Rig(admission=gate)
    stream = rig.send()
    rig.store.replace_all([endpoint for endpoint in rig.store if endpoint.name == "a"])
    gate.held[0].release()
    assert dict(stream.route.headers.set)["x-gateway-destination-endpoint"] == "192.168.1.1:8000"


def test_a_held_request_can_be_refused() -> None:
    gate = Gate()
    rig = Rig(admission=gate)
    stream = rig.send()
    gate.held[0].refuse(FULL)
    assert (stream.reply.status, running(rig)) == (429, 0)
    assert ("x-llm-d-request-dropped-reason", "rejected-saturated") in stream.reply.headers


def test_a_held_request_whose_client_leaves_frees_its_place() -> None:
    gate = Gate()
    rig = Rig(admission=gate)
    stream = rig.send()
    rig.director.finished(stream, outcome(End.DISCONNECTED))
    gate.held[0].release()
    assert (gate.withdrawn, stream.answers, running(rig)) == (1, [], 0)


async def test_a_release_may_let_a_plugin_wait() -> None:
    gate = Gate()
    journal: list[str] = []
    rig = Rig(hooks(AsyncPlugin("p", journal), slots=["producers"]), admission=gate)
    stream = rig.send()
    gate.held[0].release()
    await stream.answered.wait()
    assert stream.route


async def test_a_request_that_waited_before_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.02)
    gate = Gate()

    async def declines(_: DirectRequest) -> None:
        await asyncio.sleep(0)

    rig = Rig(Hooks(responders=[hook(Role.DIRECT_RESPONDER, Direct(declines))]), admission=gate)
    stream = rig.send()
    await gate.arrived.wait()
    await asyncio.sleep(0.04)
    assert not stream.answers, "the deadline stands still while it is held"
    gate.held[0].release()
    await stream.answered.wait()
    assert stream.route


def test_the_release_of_one_request_is_seen_by_the_next() -> None:
    """Two holds released one after the other: the first is scheduled and counted before the second."""
    gate = Gate()
    counts: list[float] = []
    rig: Rig
    watcher = Plugin("w", [], produce=lambda *_: counts.append(running(rig)))
    rig = Rig(hooks(watcher, slots=["producers"]), admission=gate)
    rig.send(), rig.send()
    for hold in gate.held:
        hold.release()
    assert counts == [0, 1]


# ── records ──


async def test_a_record_holds_every_stage() -> None:
    gate = Gate()
    plugin = Plugin("p", [], screen=lambda r, candidates: candidates.select([1, 2]))
    waits = AsyncPlugin("w", [], admit=None)
    both = hooks(plugin, waits, slots=["request_header", "producers", "admitters", "pre_request"])
    slots = Hooks(
        request_header=both.request_header[:1],
        screeners=hooks(plugin, slots=["screeners"]).screeners,
        producers=both.producers,
        admitters=both.admitters,
        pre_request=both.pre_request,
    )
    rig = Rig(slots, admission=gate, wanted=True)
    stream = rig.send(request(headers={"x-llm-d-inference-fairness-id": "t"}))
    gate.held[0].release()
    await stream.answered.wait()
    [record] = rig.decisions.records
    shown = record.as_json()
    assert json.loads(json.dumps(shown)) == shown
    assert (record.schema, record.path, record.fairness_id, record.status) == (1, "/v1/completions", "t", 0)
    assert [(s.plugin, s.dropped, s.kept) for s in record.screeners] == [("p", ["192.168.1.1:8000"], 2)]
    assert record.candidates == ["192.168.1.2:8000", "192.168.1.3:8000"]
    assert record.admission is not None
    assert record.admission.outcome == "admitted"
    points = [(call.extension_point, call.plugin) for call in record.calls]
    assert points == [
        ("RequestHeader", "p"),
        ("Screener", "p"),
        ("DataProducer", "p"),
        ("DataProducer", "w"),
        ("Admission", "p"),
        ("Admission", "w"),
        ("ProfilePicker", "handler"),
        ("Scorer", "s1"),
        ("Picker", "picker"),
        ("ProfilePicker", "handler"),
        ("ProfilePicker", "handler"),
        ("PreRequest", "p"),
        ("PreRequest", "w"),
    ]
    assert all(call.took_s >= 0 for call in record.calls)


@pytest.mark.parametrize(
    ("refusal", "status", "outcome_"),
    [pytest.param(FULL, 429, "refused", id="refused while held"), pytest.param(None, 0, "admitted", id="admitted")],
)
def test_a_record_tells_of_admission(refusal: RequestError | None, status: int, outcome_: str) -> None:
    gate = Gate()
    rig = Rig(admission=gate, wanted=True)
    rig.send()
    if refusal is None:
        gate.held[0].release()
    else:
        gate.held[0].refuse(refusal)
    [record] = rig.decisions.records
    assert record.admission is not None
    assert (record.admission.outcome, record.status) == (outcome_, status)


async def test_a_request_whose_client_leaves_is_recorded_too() -> None:
    held, waiting = Rig(admission=Gate(), wanted=True), Rig(hooks(AsyncPlugin("p", [], produce=Stubborn())), wanted=True)
    for rig in (held, waiting):
        stream = rig.send()
        await asyncio.sleep(0)
        rig.director.finished(stream, outcome(End.DISCONNECTED))
        await rig.settle()
        [record] = rig.decisions.records
        assert (record.error, record.picked) == ("the stream ended before the decision", [])


def test_a_request_that_cannot_be_read_is_recorded_too() -> None:
    rig = Rig(wanted=True)
    rig.send(request(b"{"))
    [record] = rig.decisions.records
    assert (record.status, record.request_id, record.picked) == (400, "", [])
    assert record.error
