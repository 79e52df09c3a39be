"""What the table of cases leaves out: responses before the decision, answers that come too late, equal endpoints under load."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from epp.framework.interfaces import Role
from epp.seam import Edits, Reply, Route
from epp.seam import Stream as SeamStream
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, Waits, double
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, C_ADDRESS, A, B, C, Picker
from tests.conformance.wire import (
    FULL_DUPLEX,
    NONE,
    Message,
    Modes,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    std_body,
)

STANDARD = (request_headers(), request_body(std_body("m", "p")))


@pytest.mark.parametrize("status", [408, 413])
async def test_data_plane_answers_while_the_decision_waits(
    start: StartPicker, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own 408 or 413 passes as if nobody had routed; the decision is withdrawn at once."""
    monkeypatch.setattr("epp.plugin_calls.step.HOOK_DEADLINE_S", 60.0)
    waits, recorder = Waits(), Recorder()
    picker = await start(A(), doubles=[double(waits, Role.DATA_PRODUCER), double(recorder, *Recorder.ROLES)])
    stream = picker.stream()
    await stream.send(*STANDARD)
    await waits.began.wait()
    [headers] = await respond(stream, response_headers(status=status))
    assert headers.headers == {"x-went-into-resp-headers": "true"}
    async with asyncio.timeout(2):
        await waits.cancelled.wait()
    [body] = await respond(stream, response_body("too late"))
    assert body.body == b"too late"
    await stream.closes()
    await picker.settle()
    assert (recorder.calls, recorder.completions) == ({}, [])


@pytest.mark.parametrize("status", [408, 413])
async def test_data_plane_answers_while_the_body_comes(start: StartPicker, status: int) -> None:
    picker = await start(A())
    stream = picker.stream()
    await stream.send(request_headers(), request_body(b'{"model":', end=False))
    await respond(stream, response_headers(status=status), response_body("too late"))
    await stream.closes()
    assert picker.total("request_total") == 0


EVICTED = Reply(429, b"request evicted by flow control", (("x-llm-d-request-dropped-reason", "evicted"),))


def only_stream(picker: Picker) -> SeamStream:
    """The stream that the director was asked about, so that a test can cut it as flow control will."""
    [stream] = picker.seam.calls
    return stream


CUTS = [
    pytest.param(Modes(FULL_DUPLEX, FULL_DUPLEX), [], id="before the response"),
    pytest.param(Modes(FULL_DUPLEX, FULL_DUPLEX), [response_headers(content_type="text/event-stream")], id="within events"),
    pytest.param(Modes(FULL_DUPLEX, NONE), [response_headers()], id="in bypass"),
]


@pytest.mark.parametrize(("modes", "messages"), CUTS)
async def test_reply_behind_the_route_cuts_the_response(start: StartPicker, modes: Modes, messages: list[Message]) -> None:
    """The wire's half of eviction; who evicts, and the cause, come with flow control (C94)."""
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    stream = picker.stream(modes)
    await stream.send(*STANDARD)
    await stream.routed()
    await respond(stream, *messages)
    only_stream(picker).answer(EVICTED)
    refusal = await stream.refused()
    assert (refusal.status, refusal.body, refusal.reason) == (429, EVICTED.body, "evicted")
    await recorder.completion()


async def test_reply_behind_the_response_is_dropped(start: StartPicker) -> None:
    """The wire's half of C95."""
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    await respond(stream, response_headers(), response_body(b"{}"))
    only_stream(picker).answer(EVICTED)
    await stream.closes()
    await picker.settle()
    assert len(recorder.completions) == 1


async def test_second_route_is_dropped(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    only_stream(picker).answer(Route(Edits(), {}))
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()


async def test_equal_endpoints_share_the_load(start: StartPicker) -> None:
    picker = await start(A(), B(), C())
    count, width = 150, 15
    targets: Counter[str] = Counter()

    async def client() -> None:
        for _ in range(count // width):
            targets[(await picker.route(*STANDARD)).target] += 1

    await asyncio.gather(*(client() for _ in range(width)))
    assert set(targets) == {A_ADDRESS, B_ADDRESS, C_ADDRESS}
    # Binomial with p = 1/3: five standard deviations are 29.
    assert all(abs(share - count / 3) < 29 for share in targets.values()), targets


async def test_in_flight_requests_are_levelled(start: StartPicker) -> None:
    """Without fresh metrics active-request-scorer still spreads what is under way."""
    picker = await start(A(), B(), C(), config={"scorers": ["active-request-scorer"]})
    streams = [picker.stream() for _ in range(30)]
    targets: Counter[str] = Counter()
    for stream in streams:
        await stream.send(*STANDARD)
        targets[(await stream.routed()).target] += 1
    assert targets == {A_ADDRESS: 10, B_ADDRESS: 10, C_ADDRESS: 10}
    for stream in streams:
        stream.cancel()


async def test_endpoint_leaves_while_requests_run(start: StartPicker) -> None:
    picker = await start(A(), B(9, 0.9), config={"scorers": ["active-request-scorer", "queue-scorer"]})
    stream = picker.stream()
    await stream.send(*STANDARD)
    assert (await stream.routed()).target == A_ADDRESS
    picker.serve([B(9, 0.9)])
    assert (await picker.route(*STANDARD)).target == B_ADDRESS
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()
