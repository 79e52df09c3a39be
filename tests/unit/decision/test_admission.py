"""Admission: sheddable requests and a full pool, and requests that are held until they are released or refused."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey
from epp.decision import progress
from epp.decision.flight import Flight
from epp.decision.parked import Parked
from epp.errors import ErrorCode, RequestError
from epp.flowcontrol.admission import Hold
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectRequest
from epp.framework.interfaces import Role
from epp.hooks.slots import Hooks
from epp.seam import End
from tests.unit.decision.rig import AsyncPlugin, FakeStream, Plugin, Rig, hook, hooks, outcome, request
from tests.unit.decision.waiting import FULL, Direct, Gate, running

# ── the saturation of the pool ──


class Detector:
    """A pool that is this full; counts how often it is asked."""

    def __init__(self, level: float) -> None:
        self._level = level
        self.asked = 0

    def saturation(self, candidates: Candidates) -> float:
        self.asked += 1
        return self._level


def ask_a_pool(level: float, objective: str, **rig: Any) -> tuple[Detector, FakeStream]:
    """A request with this objective (``low`` has the priority -1, ``high`` 1) to a pool that is this full."""
    detector = Detector(level)
    made = Rig(detector=detector, **rig)
    for name, priority in (("low", -1), ("high", 1)):
        made.objects.put(InferenceObjective(ObjectKey(GROUP, "default", name), priority=priority))
    return detector, made.send(request(path="/other", headers={"x-llm-d-inference-objective": objective}))


def test_flow_28_a_sheddable_request_is_refused_by_a_full_pool() -> None:
    _, stream = ask_a_pool(1.0, "low")
    reply = stream.reply
    assert (reply.status, reply.body) == (
        429,
        b"inference error: ResourceExhausted - system saturated, sheddable request dropped",
    )
    assert dict(reply.headers)["x-llm-d-request-dropped-reason"] == "rejected-saturated"


@pytest.mark.parametrize(
    ("objective", "level", "asked"),
    [
        pytest.param("low", 0.99, 1, id="flow 29: sheddable, a pool that is almost full"),
        pytest.param("none", 7.0, 0, id="flow 30: the detector is not asked about priority 0"),
        pytest.param("high", 7.0, 0, id="nor about higher priorities"),
        pytest.param("unknown", 1.0, 0, id="flow 32: an unknown objective has priority 0"),
    ],
)
def test_who_passes_legacy_admission(objective: str, level: float, asked: int) -> None:
    detector, stream = ask_a_pool(level, objective)
    assert stream.route
    assert detector.asked == asked


def test_flow_31_without_endpoints_there_is_nothing_to_admit_to() -> None:
    detector, stream = ask_a_pool(1.0, "none", endpoints="")
    assert stream.reply.status == 503
    assert dict(stream.reply.headers)["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert detector.asked == 0


# ── requests that are held ──


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


def test_a_held_request_keeps_no_document_and_has_it_again() -> None:
    gate = Gate()
    outlines: list[object] = []
    watcher = Plugin("w", [], produce=lambda asked, _: outlines.append(dict(asked.body.outline)))
    rig = Rig(hooks(watcher, slots=["producers"]), admission=gate)
    body = b'{"model":"m","prompt":"hello","cache_salt":"s"}'
    stream, asked = rig.send(request(body)), rig.send(request(body))
    held, read = stream.flight.inference.body, asked.flight.inference.body
    document = {"model": "m", "prompt": "hello", "cache_salt": "s"}
    assert (held.outline, read.outline) == ({}, {})
    assert read.document == document, "a policy may look at the prompt of what waits"
    for hold in gate.held:
        hold.release()
    assert (outlines, held.decode) == ([document, document], None)
    assert stream.route
    assert asked.route


@pytest.mark.parametrize("end", [End.DISCONNECTED, End.REPLIED, End.NATURAL])
def test_nothing_is_left_of_a_held_request_that_is_over(end: End) -> None:
    """Its client left while it was held, it was refused, or it was served."""
    gate = Gate()
    rig = Rig(admission=gate)
    gc.collect()
    gc.disable()
    try:
        before = kept()
        stream = rig.send()
        assert kept() > before
        if end is End.REPLIED:
            gate.held[0].refuse(RequestError(ErrorCode.RESOURCE_EXHAUSTED, "full"))
        elif end is End.NATURAL:
            gate.held[0].release()
        rig.director.finished(stream, outcome(end))
        stream.state = None
        gate.held.clear()
        assert kept() == before, "the garbage collector had nothing to do"
    finally:
        gc.enable()


def kept() -> int:
    """What there is of requests that wait, anywhere in this process."""
    return sum(isinstance(found, (Parked, Flight, Hold)) for found in gc.get_objects())
