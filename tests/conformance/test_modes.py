"""Body modes other than full duplex, limits, deadlines and health: cases C101 to C112."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.framework.types import Cause
from epp.seam import HealthStatus
from tests.conformance.conftest import StartPicker
from tests.conformance.exchanges import start_watched
from tests.conformance.picker import A_ADDRESS, A, B, Picker, rewrite
from tests.conformance.wire import (
    BUFFERED,
    BUFFERED_PARTIAL,
    DESTINATION,
    FULL_DUPLEX,
    NONE,
    STREAMED,
    Answer,
    Modes,
    Stream,
    check_route,
    cut,
    request_body,
    request_headers,
    request_trailers,
    respond,
    response_body,
    response_headers,
    response_trailers,
    std_body,
)

REWRITE = "x-llm-d-model-name-rewrite"
ALL_BUFFERED = Modes(BUFFERED, BUFFERED)
EMPTY = Answer("request_headers")


async def buffered_route(stream: Stream, body: bytes, headers: dict[str, str] | None = None, *, end: bool = True) -> Answer:
    """Send a request as a buffering data plane does: the body only after the headers were answered."""
    await stream.send(request_headers(headers or {}))
    assert await stream.answer("request_headers") == EMPTY
    await stream.send(request_body(body, end=end))
    answer = await stream.answer("request_body")
    check_route(answer)
    assert answer.end is None, "a plain answer, not a streamed piece"
    return answer


async def test_c101_buffered(start: StartPicker) -> None:
    picker = await start(A(), B(9, 0.9))
    stream = picker.stream(ALL_BUFFERED)
    answer = await buffered_route(stream, std_body("m", "p"))
    assert answer.set == ((DESTINATION, A_ADDRESS),)
    assert answer.body is None
    [headers, body] = await respond(stream, response_headers(), response_body(b'{"usage":null}'))
    assert (body.body, body.end) == (None, None)
    assert headers.headers == {"x-went-into-resp-headers": "true"}
    await stream.closes()


async def test_c101_buffered_with_rewrite(start: StartPicker) -> None:
    picker = await start(A(), objects=[rewrite("r", "longer-name", "m")])
    stream = picker.stream(ALL_BUFFERED)
    answer = await buffered_route(stream, std_body("m", "p"), {"content-length": "58"})
    assert answer.body == std_body("longer-name", "p")
    assert answer.headers == {DESTINATION: A_ADDRESS, "content-length": str(len(std_body("longer-name", "p")))}
    [_, body] = await respond(stream, response_headers({"content-length": "23"}), response_body(b'{"model":"longer-name"}'))
    assert body.body == b'{"model":"m"}'
    assert body.headers == {"content-length": "13"}
    await stream.closes()


async def test_buffered_get(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream(ALL_BUFFERED)
    await stream.send(request_headers(end=True, method="GET", path="/v1/models"))
    assert check_route(await stream.answer("request_headers")) == A_ADDRESS
    await respond(stream, response_headers(status=204, end=True))
    await stream.closes()


async def test_buffered_refusal(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream(ALL_BUFFERED)
    await stream.send(request_headers())
    assert await stream.answer("request_headers") == EMPTY
    await stream.send(request_body("{}"))
    assert (await stream.refused()).status == 400


async def test_buffered_with_trailers(start: StartPicker) -> None:
    """The one body message is whole although its end flag is cleared: the trailers are held until it was answered."""
    picker, recorder = await start_watched(start)
    stream = picker.stream(ALL_BUFFERED)
    await buffered_route(stream, std_body("m", "p"), end=False)
    await stream.send(request_trailers())
    await stream.answer("request_trailers")
    await respond(stream, response_headers(), response_body(b"{}", end=False), response_trailers())
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known, completion.response_bytes) == (Cause.NATURAL, True, 2)


async def test_body_that_was_cut(start: StartPicker) -> None:
    """BUFFERED_PARTIAL beyond the buffer: routed by headers alone, the body stays as it is."""
    picker, recorder = await start_watched(start)
    stream = picker.stream(Modes(BUFFERED_PARTIAL, NONE))
    answer = await buffered_route(stream, std_body("m", "p")[:20], end=False)
    assert answer.body is None
    assert [request.model for request in recorder.requests] == [""]
    await stream.closes()


async def test_c102_streamed(start: StartPicker) -> None:
    picker = await start(A(), B(9, 0.9))
    stream = picker.stream(Modes(STREAMED, STREAMED))
    await stream.send(request_headers())
    assert check_route(await stream.answer("request_headers")) == A_ADDRESS
    parts = cut(std_body("m", "p"), 20)
    for part in parts:
        await stream.send(request_body(part, end=part is parts[-1]))
        assert await stream.answer("request_body") == Answer("request_body")
    answers = await respond(stream, response_headers(), response_body(b"{", end=False), response_body(b"}"))
    assert answers[1:] == [Answer("response_body")] * 2
    await stream.closes()


async def test_c103_none(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = picker.stream(Modes(NONE, NONE))
    await stream.send(request_headers())
    assert check_route(await stream.answer("request_headers")) == A_ADDRESS
    await respond(stream, response_headers())
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.status, completion.length_known) == (Cause.NATURAL, 200, False)


@pytest.mark.parametrize("mode", [NONE, STREAMED])
async def test_rewrite_needs_a_body(start: StartPicker, mode: int) -> None:
    picker = await start(A())
    refusal = await picker.refuse(request_headers({REWRITE: "other"}), modes=Modes(mode, NONE))
    expected = "inference error: BadRequest - request body not available for model rewrite"
    assert (refusal.status, refusal.message) == (400, expected)


async def test_c104_bypass(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = picker.stream(Modes(FULL_DUPLEX, NONE))
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await respond(stream, response_headers())
    await picker.round_trip()
    assert picker.total("request_running") == 1, "the stream stays open to the end of the response"
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known, completion.usage.found) == (Cause.NATURAL, False, False)
    assert picker.total("request_duration_seconds", suffix="_count") == 1
    assert picker.total("request_ttft_seconds", suffix="_count") == 0


async def test_bypass_with_response_headers_skipped(start: StartPicker) -> None:
    """The cheapest set-up: nothing of the response is seen; the stream ends with it."""
    picker, recorder = await start_watched(start)
    stream = picker.stream(Modes(FULL_DUPLEX, NONE))
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.status, completion.length_known) == (Cause.NATURAL, 0, False)
    assert recorder.responses == []


async def test_bypass_with_trailers(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = picker.stream(Modes(FULL_DUPLEX, NONE))
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await respond(stream, response_headers(), response_trailers())
    await stream.closes()
    assert (await recorder.completion()).cause is Cause.NATURAL


async def test_response_headers_skipped(start: StartPicker) -> None:
    """Response header mode SKIP with a full-duplex body: the response begins with its body."""
    picker, recorder = await start_watched(start)
    stream = picker.stream()
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    data = b'{"usage":{"prompt_tokens":7,"completion_tokens":10}}'
    await stream.send(response_body(data[:9], end=False), response_body(data[9:]))
    assert (await stream.response_body())[0] == data
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.status, completion.usage.total_tokens) == (Cause.NATURAL, 0, 17)


async def test_c105_observability(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = picker.stream(observed=True)
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.send(response_headers(), response_body(b"{}"))
    await stream.closes()
    assert recorder.calls == {}


SERVICES = ("", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")
SERVING, NOT_SERVING, UNKNOWN = HealthStatus.SERVING, HealthStatus.NOT_SERVING, HealthStatus.SERVICE_UNKNOWN


async def statuses(picker: Picker, *services: str) -> set[int]:
    """What Check answers for these names."""
    stub = HealthStub(picker.channel)
    return {(await stub.Check(health_pb2.HealthCheckRequest(service=service))).status for service in services}


CONDITIONS = ["pool not synced", "synced", "plugin not ready", "draining", "follower", "leader"]
UNREADY = {"pool not synced", "plugin not ready", "draining", "follower"}


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_c106_health(start: StartPicker, condition: str) -> None:
    """All rows but a wrong appProtocol, which needs an InferencePool (C107)."""
    elects = condition in ("follower", "leader")
    picker = await start(A(), leader_election=elects)
    picker.health.set_leading(condition == "leader")
    if condition == "pool not synced":
        picker.health.set_not_ready("pool", "not synced")
    elif condition == "plugin not ready":
        picker.health.set_not_ready("plugins", "index is empty")
    elif condition == "draining":
        picker.health.drain()
    readiness = NOT_SERVING if condition in UNREADY else SERVING
    assert await statuses(picker, *SERVICES) == {readiness}
    assert await statuses(picker, "liveness") == {SERVING}
    assert await statuses(picker, "inference-extension", "any") == {UNKNOWN if elects else readiness}
    await picker.route(request_headers(), request_body(std_body("m", "p")))


async def test_health_is_watched(start: StartPicker) -> None:
    picker = await start(A())
    watch = HealthStub(picker.channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await watch.read()).status == SERVING
    picker.health.drain()
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_c110_five_megabytes_in_one_message(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream(ALL_BUFFERED)
    await buffered_route(stream, std_body("m", "x" * 5_000_000))
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()


@pytest.mark.parametrize("first", [0, 1000], ids=["in one message", "piece by piece"])
async def test_c111_body_over_the_limit(start: StartPicker, first: int) -> None:
    picker = await start(A(), settings={"max_body_bytes": 1000})
    pieces = [request_body(b"x" * first, end=False), request_body(b"x" * (1001 - first))]
    refusal = await picker.refuse(request_headers(), *pieces)
    assert refusal.status == 413
    assert refusal.message.startswith("inference error: PayloadTooLarge - ")


async def test_c111_buffered_body_over_the_limit(start: StartPicker) -> None:
    picker = await start(A(), settings={"max_body_bytes": 1000})
    stream = picker.stream(ALL_BUFFERED)
    await stream.send(request_headers())
    assert await stream.answer("request_headers") == EMPTY
    await stream.send(request_body(b"x" * 1001))
    assert (await stream.refused()).status == 413


async def test_body_at_the_limit(start: StartPicker) -> None:
    body = std_body("m", "x" * 1000)
    picker = await start(A(), settings={"max_body_bytes": len(body)})
    await picker.route(request_headers(), request_body(body))


async def test_c112_body_falls_silent(start: StartPicker) -> None:
    picker = await start(A(), settings={"body_idle_s": 0.1})
    refusal = await picker.refuse(request_headers(), request_body(b'{"model":', end=False))
    assert (refusal.status, refusal.message) == (408, "inference error: RequestTimeout - request body incomplete")
    assert picker.stats.buffered_bytes == 0
