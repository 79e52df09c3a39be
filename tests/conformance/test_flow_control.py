"""Flow control on the wire: cases C54, C94, C95, and what may happen to a stream whose request waits."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.types import Cause
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import CallsBack, Full, Recorder, double
from tests.conformance.exchanges import EVENTS, event
from tests.conformance.picker import A_ADDRESS, A, Picker, objective
from tests.conformance.wire import (
    BUFFERED,
    FULL_DUPLEX,
    NONE,
    Message,
    Modes,
    Stream,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    see_response,
    std_body,
)

OBJECTIVE = "x-llm-d-inference-objective"
OBJECTS = [objective("high", 10), objective("low", -1)]
MODES = [Modes(FULL_DUPLEX, FULL_DUPLEX), Modes(BUFFERED, BUFFERED), Modes(FULL_DUPLEX, NONE)]
each_mode = pytest.mark.parametrize("modes", MODES, ids=["full duplex", "buffered", "bypass"])


class Gate(Full):
    """A detector that the test opens, which tells of it as a scrape does."""

    def next_change_s(self) -> float:
        return float("inf")

    def open(self, picker: Picker) -> None:
        self.value = 0.0
        assert picker.flow_control is not None
        picker.flow_control.scraped()


def posted(name: str = "", *, priority: str = "", headers: dict[str, str] | None = None) -> tuple[Message, Message]:
    """A POST, perhaps with an objective."""
    extra = {**({OBJECTIVE: priority} if priority else {}), **(headers or {})}
    return request_headers(extra, request_id=name or None), request_body(std_body("m", "p"))


async def controlled(start: StartPicker, *servers: Any, level: float = 1.0, **section: Any) -> tuple[Picker, Gate, Recorder]:
    """A picker with flow control, whose pool is this full."""
    gate, recorder = Gate(level), Recorder()
    doubles = [double(gate, Role.SATURATION_DETECTOR), double(recorder, *Recorder.ROLES)]
    picker = await start(*servers, doubles=doubles, config={"flow_control": section}, objects=OBJECTS)
    return picker, gate, recorder


async def queued(picker: Picker, *messages: Message, modes: Modes = MODES[0]) -> Stream:
    """A stream whose request waits."""
    assert picker.flow_control is not None
    before = picker.flow_control.bands.count
    stream = picker.stream(modes)
    await stream.send(*(messages or posted()))
    await read_by(picker)
    assert picker.flow_control.bands.count == before + 1
    return stream


async def read_by(picker: Picker) -> None:
    """What was sent before has been dealt with; unlike ``Picker.round_trip`` also without endpoints."""
    assert (await picker.refuse(request_headers(), request_body("no JSON"))).status == 400


# ── what a client is told ──


async def test_c54_a_limit_is_reached(start: StartPicker) -> None:
    picker, gate, _ = await controlled(start, A(), defaultPriorityBand={"maxRequests": 1})
    waiting = await queued(picker)
    refusal = await picker.refuse(*posted())
    assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
    assert refusal.message.startswith("inference error: ResourceExhausted - request rejected before queueing: ")
    gate.open(picker)
    await waiting.routed()
    await see_response(waiting)


async def test_c54_a_limit_is_reached_in_an_empty_pool(start: StartPicker) -> None:
    picker, _, _ = await controlled(start, defaultPriorityBand={"maxRequests": 1})
    waiting = await queued(picker)
    refusal = await picker.refuse(*posted())
    assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")
    assert refusal.message.startswith("inference error: ServiceUnavailable - no endpoints available: ")
    waiting.cancel()


@pytest.mark.parametrize("servers", [[A()], []], ids=["a full pool", "an empty pool"])
async def test_c54_the_time_is_up(start: StartPicker, servers: list[Any]) -> None:
    picker, _, _ = await controlled(start, *servers, defaultRequestTTL="50ms")
    refusal = await picker.refuse(*posted())
    if servers:
        assert (refusal.status, refusal.reason) == (429, "rejected-ttl-expired")
        assert refusal.message.startswith("inference error: ResourceExhausted - request timed out in queue: ")
    else:
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")
        beginning = "request timed out in queue and no endpoints are available: "
        assert refusal.message.startswith(f"inference error: ServiceUnavailable - {beginning}")


async def test_c54_flow_control_stops(start: StartPicker) -> None:
    picker, _, _ = await controlled(start, A())
    waiting = await queued(picker)
    assert picker.flow_control is not None
    picker.flow_control.stop()
    for refusal in (await waiting.refused(), await picker.refuse(*posted())):
        assert (refusal.status, refusal.reason) == (503, "rejected-shutting-down")
        assert refusal.message.startswith("inference error: ServiceUnavailable - flow controller shutting down: ")
    outcomes = {labels[0]: count for labels, count in picker.series("flow_control_requests_total").items()}
    assert outcomes == {"EvictedOther": 1, "RejectedOther": 1}


async def test_c54_a_client_that_left_is_told_nothing(start: StartPicker) -> None:
    picker, gate, recorder = await controlled(start, A())
    stream = await queued(picker)
    stream.cancel()
    await picker.stop()
    assert picker.series("flow_control_requests_total") == {("EvictedContextCancelled", "0", "pool"): 1}
    gate.open(picker)
    await picker.settle()
    assert recorder.requests == []


async def test_c54_a_defect_is_an_internal_error(start: StartPicker, caplog: pytest.LogCaptureFixture) -> None:
    picker, _, _ = await controlled(start, A(), level=0.0)
    assert picker.flow_control is not None
    picker.flow_control.admit = CallsBack(lambda *_: 1 / 0).admit  # type: ignore[method-assign,assignment]  # a defect
    refusal = await picker.refuse(*posted())
    assert (refusal.status, refusal.reason) == (500, None)
    assert refusal.message == "inference error: Internal - internal error"
    assert [place for place, _ in picker.defects] == ["decision"]
    picker.defects.clear()


async def test_grpc_clients_get_a_status_of_their_own(start: StartPicker) -> None:
    picker, _, _ = await controlled(start, A(), defaultRequestTTL="20ms")
    headers = request_headers(path="/some.Service/Method", content_type="application/grpc+proto")
    refusal = await picker.refuse(headers, request_body(b"\0\0\0\0\0"))
    assert (refusal.status, refusal.grpc_status, refusal.reason) == (429, 8, "rejected-ttl-expired")


# ── waiting ──


@each_mode
async def test_a_request_waits_until_there_is_room(start: StartPicker, modes: Modes) -> None:
    picker, gate, _ = await controlled(start, A())
    stream = await queued(picker, modes=modes)
    gate.open(picker)
    answer = await stream.answer("request_headers")
    if modes.request == BUFFERED:  # headers go on at once, the decision comes with the body
        answer = await stream.answer("request_body")
    assert answer.headers["x-gateway-destination-endpoint"] == A_ADDRESS
    stream.cancel()


async def test_priorities_go_first_and_the_control_header_does_not_go_on(start: StartPicker) -> None:
    picker, gate, recorder = await controlled(start, A())
    low = await queued(picker, *posted("low", priority="low"))
    normal = await queued(picker, *posted("normal", headers={"x-llm-d-inference-ttl": "1m"}))
    high = await queued(picker, *posted("high", priority="high"))
    gate.open(picker)
    routes = [await stream.routed() for stream in (high, normal, low)]
    assert routes[1].headers.removed == {"x-llm-d-inference-ttl"}
    for stream in (high, normal, low):
        await see_response(stream)
    assert [request.request_id for request in recorder.requests] == ["high", "normal", "low"]


async def test_a_request_waits_for_the_first_endpoint(start: StartPicker) -> None:
    picker, gate, _ = await controlled(start, level=0.0)
    stream = await queued(picker)
    picker.serve([A()])
    assert (await stream.routed()).target == A_ADDRESS
    await see_response(stream)
    assert gate.value == 0.0


@each_mode
async def test_a_stream_that_is_half_closed_while_its_request_waits(start: StartPicker, modes: Modes) -> None:
    picker, gate, recorder = await controlled(start, A())
    stream = await queued(picker, modes=modes)
    if modes.request == BUFFERED:
        await stream.answer("request_headers")
    await stream.half_close()
    await stream.ends(grpc.StatusCode.CANCELLED)
    await read_by(picker)
    gate.open(picker)
    await picker.settle()
    assert recorder.requests == []
    assert picker.series("flow_control_requests_total") == {("EvictedContextCancelled", "0", "pool"): 1}


@pytest.mark.parametrize("status", [408, 413])
async def test_the_data_plane_answers_while_its_request_waits(start: StartPicker, status: int) -> None:
    """Its own 408 or 413 passes as if nobody had routed; the place in the queue is free at once."""
    picker, gate, recorder = await controlled(start, A())
    stream = await queued(picker)
    await respond(stream, response_headers(status=status), response_body("too late"))
    await stream.closes()
    assert picker.series("flow_control_requests_total") == {("EvictedContextCancelled", "0", "pool"): 1}
    gate.open(picker)
    await picker.settle()
    assert recorder.requests == []


async def test_the_end_of_a_response_lets_the_next_request_go(start: StartPicker) -> None:
    """Two requests fit; with the real counter of requests in flight, nothing but the end of a stream tells of room."""
    document = {
        "featureGates": ["flowControl"],
        "plugins": [
            {"type": "inflight-load-producer"},
            {"type": "concurrency-detector", "parameters": {"maxConcurrency": 2}},
            {"type": "max-score-picker"},
        ],
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "max-score-picker"}]}],
        "saturationDetector": {"pluginRef": "concurrency-detector"},
        "flowControl": {"defaultRequestTTL": "30s"},
    }
    picker = await start(A(), config={"document": document})
    running = [picker.stream() for _ in range(2)]
    for stream in running:
        await stream.send(*posted())
        await stream.routed()
    waiting = [await queued(picker) for _ in range(2)]
    for ends, goes_on in zip(running, waiting, strict=True):
        await see_response(ends)
        await goes_on.routed()
    for stream in waiting:
        await see_response(stream)


async def test_a_refused_request_gives_its_room_to_the_next(start: StartPicker) -> None:
    """A request that an admitter denies behind the queue holds nothing."""
    asked: list[str] = []

    def deny_first(request: Any, candidates: Candidates) -> str | None:
        asked.append(request.request_id)
        return "not you" if request.request_id == "first" else None

    gate = Gate(1.0)
    doubles = [double(gate, Role.SATURATION_DETECTOR), double(CallsBack(deny_first), Role.ADMITTER, name="denies")]
    picker = await start(A(), doubles=doubles, config={"flow_control": {}}, objects=OBJECTS)
    first, second = await queued(picker, *posted("first")), await queued(picker, *posted("second"))
    gate.open(picker)
    assert (await first.refused()).status == 429
    await second.routed()
    await see_response(second)
    assert asked == ["first", "second"]


# ── ending what runs ──

EVICTED = (429, "evicted", "request evicted by flow control")
BEHIND = [
    pytest.param(Modes(FULL_DUPLEX, FULL_DUPLEX), [], id="before the response"),
    pytest.param(
        Modes(FULL_DUPLEX, FULL_DUPLEX),
        [response_headers(content_type=EVENTS), response_body(event({"x": 1}), end=False)],
        id="within events",
    ),
    pytest.param(Modes(FULL_DUPLEX, NONE), [response_headers()], id="in bypass"),
]


async def evicting(start: StartPicker) -> tuple[Picker, Gate, Recorder]:
    return await controlled(start, A(), level=0.0, enableEviction=True)


def fill(picker: Picker, gate: Gate) -> None:
    gate.value = 1.0
    assert picker.flow_control is not None


@pytest.mark.parametrize(("modes", "messages"), BEHIND)
async def test_c94_a_running_request_is_ended_for_a_higher_one(
    start: StartPicker, modes: Modes, messages: list[Message]
) -> None:
    picker, gate, recorder = await evicting(start)
    victim = picker.stream(modes)
    await victim.send(*posted("victim", priority="low"))
    await victim.routed()
    await respond(victim, *messages)
    fill(picker, gate)
    waiting = await queued(picker, *posted("waits", priority="high"))
    refusal = await victim.refused()
    assert (refusal.status, refusal.reason, refusal.message) == EVICTED
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known) == (Cause.EVICTED, False)
    assert picker.series("flow_control_revocations_issued_total") == {("10", "pool"): 1}
    assert picker.series("flow_control_revocations_total") == {("confirmed", "pool"): 1}
    errors = picker.series("request_error_total")
    assert errors["m", "m", "default-flow", "-1", "ResourceExhausted"] == 1
    gate.open(picker)
    await waiting.routed()
    await see_response(waiting)
    await picker.settle()
    assert len(recorder.completions) == 2, "one end each"


async def test_c95_a_response_that_has_ended_is_not_cut(start: StartPicker) -> None:
    picker, gate, recorder = await evicting(start)
    stream = picker.stream()
    await stream.send(*posted(priority="low"))
    await stream.routed()
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()
    fill(picker, gate)
    waiting = await queued(picker, *posted(priority="high"))
    assert picker.series("flow_control_revocations_issued_total") == {}
    waiting.cancel()
    await picker.settle()
    assert [completion.cause for completion in recorder.completions] == [Cause.NATURAL]


async def test_nobody_is_ended_while_eviction_is_off(start: StartPicker) -> None:
    picker, gate, _ = await controlled(start, A(), level=0.0)
    victim = picker.stream()
    await victim.send(*posted(priority="low"))
    await victim.routed()
    fill(picker, gate)
    waiting = await queued(picker, *posted(priority="high"))
    await see_response(victim)
    waiting.cancel()
