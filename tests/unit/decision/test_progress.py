"""A decision runs at once as far as nothing waits; what waits is given up when its stream or its time is over."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from epp.decision import progress
from epp.framework.direct import DirectRequest
from epp.framework.interfaces import Role
from epp.hooks.slots import Hooks
from epp.seam import End
from tests.unit.decision.rig import AsyncPlugin, Plugin, Rig, hook, hooks, outcome, request
from tests.unit.decision.waiting import Direct, Stubborn, for_ever, running

# ── a stream that ends while a plugin waits ──


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


async def test_a_decision_is_withdrawn_when_the_stream_ends() -> None:
    journal: list[str] = []
    rig = Rig(hooks(AsyncPlugin("p", journal, produce=for_ever)))
    stream = rig.send()
    await asyncio.sleep(0)
    assert rig.director.finished(stream, outcome(End.DISCONNECTED, head=None)) is None
    await rig.settle()
    assert stream.answers == []
    assert "p.response_complete" not in journal, "C93: nothing was scheduled"
    assert rig.count("request_running") is None


async def test_a_decision_is_withdrawn_before_it_began() -> None:
    rig = Rig(hooks(AsyncPlugin("p", []), slots=["producers"]))
    stream = rig.send()
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert stream.answers == []


async def test_a_plugin_that_ignores_its_cancellation_schedules_nothing() -> None:
    async def stubborn(*args: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    rig = Rig(hooks(AsyncPlugin("p", [], produce=stubborn), slots=["producers"]))
    stream = rig.send()
    await asyncio.sleep(0)
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert rig.count("request_running") is None


async def test_a_stream_that_ends_during_pre_request_is_completed_once() -> None:
    journal: list[str] = []
    begun = asyncio.Event()

    def pre_request(*args: object) -> Any:
        begun.set()
        return for_ever()

    rig = Rig(hooks(AsyncPlugin("p", journal, pre_request=pre_request), slots=["pre_request", "complete"]))
    stream = rig.send()
    await begun.wait()
    assert rig.count("request_running") == 1
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert journal == ["p.pre_request", "p.response_complete"]
    assert stream.answers == []
    assert rig.count("request_running") == 0


# ── one deadline ──


async def test_the_whole_decision_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.01)
    rig = Rig(hooks(AsyncPlugin("p", [], admit=for_ever), slots=["admitters"]))
    reply = (await rig.sent(request(path="/other"))).reply
    assert (reply.status, reply.body) == (503, b"inference error: ServiceUnavailable - no decision in time")


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
