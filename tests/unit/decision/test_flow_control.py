"""Flow control as a stage of the decision: what it is told, in which order, and what is written down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.tickets import State, Ticket
from epp.framework.types import Cause, Completion
from epp.seam import End
from epp.telemetry.decision_record import Why
from tests.unit.decision.rig import AsyncPlugin, FakeStream, Plugin, Rig, hooks, outcome, request
from tests.unit.decision.waiting import Direct, for_ever
from tests.unit.flowcontrol.rig import EVICTION, Engine, Foreseen


class Controlled:
    """A director behind the engine."""

    def __init__(self, level: float = 0.0, *, endpoints: str = "abc", eviction: bool = False, **rig: Any) -> None:
        self.engine = Engine(Foreseen(level), eviction=EVICTION if eviction else None)
        self.rig = Rig(admission=self.engine.control, endpoints=endpoints, **rig)
        self.control: FlowController = self.engine.control
        self.control.endpoints = self.rig.store.candidates
        self.rig.store.subscribe(self.control)

    def send(self, **more: Any) -> FakeStream:
        return self.rig.send(request(**more))

    def open(self) -> None:
        self.engine.level(0.0)
        self.engine.timers.settle()

    @staticmethod
    def state(stream: FakeStream) -> State:
        hold = stream.flight.hold
        assert isinstance(hold, Ticket)
        return hold.state


def test_with_room_a_request_is_routed_within_the_call() -> None:
    controlled = Controlled()
    stream = controlled.send()
    assert stream.route
    assert controlled.state(stream) is State.RUNNING
    assert stream.flight.progress.task is None
    controlled.rig.director.finished(stream, outcome())
    assert controlled.state(stream) is State.OVER


def test_a_request_that_waits_has_no_task_and_goes_on_where_it_was() -> None:
    controlled = Controlled(1.0)
    stream = controlled.send()
    assert (stream.answers, stream.flight.progress.task, controlled.rig.runtime._tasks) == ([], None, set())
    controlled.open()
    assert stream.route


def test_candidates_are_looked_for_behind_the_queue() -> None:
    controlled = Controlled(0.0, endpoints="")
    stream = controlled.send()
    assert controlled.state(stream) is State.WAITING
    other = Rig(endpoints="a")
    controlled.rig.store.replace_all(list(other.store))
    controlled.engine.timers.settle()
    assert dict(stream.route.headers.set)["x-gateway-destination-endpoint"] == "192.168.1.1:8000"


def test_a_credit_is_held_while_a_plugin_waits_behind_the_queue() -> None:
    async def scenario() -> None:
        controlled = Controlled(0.0, hooks=hooks(AsyncPlugin("p", [], produce=for_ever), slots=["producers"]))
        stream = controlled.send()
        await asyncio.sleep(0)
        assert controlled.control.saturation.credits.requests == 1
        controlled.rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
        await controlled.rig.settle()
        assert controlled.control.saturation.credits.requests == 0
        assert controlled.engine.outcomes() == {"Dispatched": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("slot", ["admitters", "pre_request"])
def test_a_refusal_behind_the_queue_gives_the_credit_back(slot: str) -> None:
    plugin = Plugin("p", [], admit="no", pre_request=ZeroDivisionError())
    controlled = Controlled(0.0, hooks=hooks(plugin, slots=[slot]))
    stream = controlled.send()
    assert stream.reply.status in (429, 500)
    assert controlled.control.saturation.credits.requests == 0
    assert controlled.state(stream) is State.OVER


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    controlled = Controlled(1.0)
    stream = controlled.send()
    controlled.rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    assert controlled.control.bands.count == 0
    controlled.open()
    assert stream.answers == []
    assert controlled.engine.outcomes() == {"EvictedContextCancelled": 1}


def test_wait_and_position_are_in_the_record() -> None:
    controlled = Controlled(1.0, why=Why.SHARE)
    clock = controlled.rig.director._clock
    for _ in range(2):
        controlled.send()
    third = controlled.send()
    clock.advance(0.75)  # type: ignore[attr-defined]  # the rig's own clock
    third.flight.progress._clock = clock
    controlled.open()
    controlled.engine.timers.advance(1.0)
    records = [record.admission for record in controlled.rig.decisions.records]
    assert [(found.outcome, found.ahead) for found in records if found] == [("admitted", 0), ("admitted", 1), ("admitted", 2)]
    assert records[-1] is not None
    assert records[-1].held_s == 0.75


def test_a_refusal_in_the_queue_is_in_the_record() -> None:
    controlled = Controlled(1.0, why=Why.SHARE)
    controlled.send()
    controlled.control.stop()
    (record,) = controlled.rig.decisions.records
    assert record.admission is not None
    assert (record.admission.outcome, record.status) == ("refused", 503)
    assert record.admission.error.startswith("flow controller shutting down: ")


@pytest.mark.parametrize("in_task", [False, True])
async def test_a_client_that_leaves_the_queue_is_in_the_record_with_its_wait(in_task: bool) -> None:
    waits = {"hooks": hooks(Direct(lambda _: asyncio.sleep(0)), slots=["responders"])} if in_task else {}
    controlled = Controlled(1.0, why=Why.SHARE, **waits)
    clock: Any = controlled.rig.director._clock
    controlled.send()
    stream = controlled.send()
    for _ in range(10):
        await asyncio.sleep(0)
    assert controlled.control.bands.count == 2
    assert (stream.flight.progress.task is not None) == in_task
    clock.advance(2.5)
    controlled.rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    controlled.control.stop()
    await controlled.rig.settle()
    (record,) = [each for each in controlled.rig.decisions.records if not each.status]
    assert record.admission is not None
    assert (record.admission.outcome, record.admission.held_s, record.admission.ahead) == ("withdrawn", 2.5, 1)


def evicted_causes(ends: list[End]) -> tuple[list[FakeStream], list[Cause]]:
    """Requests of a low priority are told to end; their streams end so."""
    completions: list[Completion] = []
    plugin = Plugin("p", [], response_complete=lambda _request, _result, completion: completions.append(completion))
    controlled = Controlled(0.0, eviction=True, hooks=hooks(plugin, slots=["complete"]))
    streams = [controlled.send() for _ in ends]
    for stream, end in zip(streams, ends, strict=True):
        controlled.rig.director._evict(stream, stream.flight)
        controlled.rig.director.finished(stream, outcome(end))
    return streams, [completion.cause for completion in completions]


def test_an_eviction_ends_the_stream_with_its_own_cause() -> None:
    (stream,), causes = evicted_causes([End.REPLIED])
    reply = stream.answers[-1]
    assert (reply.status, causes) == (429, [Cause.EVICTED])  # type: ignore[union-attr]  # a Reply
    assert ("x-llm-d-request-dropped-reason", "evicted") in reply.headers


def test_flow_89_an_eviction_that_comes_behind_the_response_changes_nothing() -> None:
    _, causes = evicted_causes([End.NATURAL, End.DISCONNECTED])
    assert causes == [Cause.NATURAL, Cause.CLIENT_DISCONNECT]
