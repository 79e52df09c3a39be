"""How streams end, and that a request is completed exactly once: cases C90 to C100."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from epp.framework.interfaces import HasState, Role
from epp.framework.types import Cause
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, Waits, WaitsAsPreRequest, double
from tests.conformance.exchanges import start_watched
from tests.conformance.picker import A_ADDRESS, Picker
from tests.conformance.wire import (
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
    response_trailers,
    std_body,
)

STANDARD = (request_headers(), request_body(std_body("m", "p")))
LEAVES = pytest.mark.parametrize("leave", ["half-close", "cancel"])
ACTIVE = "active-request-scorer"


async def leave_stream(stream: Stream, how: str) -> None:
    """The data plane leaves."""
    if how == "cancel":
        stream.cancel()
    else:
        await stream.half_close()


async def leave_unanswered(stream: Stream, how: str) -> None:
    """The data plane leaves, and nothing was or will be written; who cancels cannot see that."""
    await leave_stream(stream, how)
    if how == "half-close":
        await stream.ends(grpc.StatusCode.CANCELLED)


async def start_counting(start: StartPicker, **options: Any) -> tuple[Picker, Recorder]:
    """A picker whose requests in flight are counted, and whose hooks are recorded."""
    return await start_watched(start, config={"scorers": [ACTIVE]}, **options)


def in_flight(picker: Picker) -> int:
    """Requests that active-request-scorer counts."""
    scorer = picker.instances.by_name[ACTIVE]
    assert isinstance(scorer, HasState)
    state: Any = scorer.debug_state()
    return int(state["requests"])


@LEAVES
async def test_c90_normal_end(start: StartPicker, leave: str) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    assert in_flight(picker) == 1
    assert picker.total("request_running") == 1
    await respond(stream, response_headers(), response_body(b"{}"))
    assert [completion.cause for completion in recorder.completions] == [Cause.NATURAL], "before the last answer"
    await leave_stream(stream, leave)
    await picker.settle()
    assert [completion.cause for completion in recorder.completions] == [Cause.NATURAL]


@LEAVES
async def test_c91_client_leaves_before_the_response(start: StartPicker, leave: str) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    await leave_stream(stream, leave)
    completion = await recorder.completion()
    assert (completion.cause, completion.status, completion.length_known) == (Cause.CLIENT_DISCONNECT, 0, False)
    await picker.settle()
    assert len(recorder.completions) == 1
    assert picker.total("request_duration_seconds", suffix="_count") == 0, "durations of aborted streams say nothing"
    assert picker.series("request_error_total") == {}, "a client that leaves is no error"


@LEAVES
async def test_c92_client_leaves_within_events(start: StartPicker, leave: str) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    first = response_body('data: {"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\ndata: {"cu', end=False)
    await respond(stream, response_headers(content_type="text/event-stream"), first)
    await leave_stream(stream, leave)
    completion = await recorder.completion()
    assert completion.cause is Cause.CLIENT_DISCONNECT
    assert not completion.length_known
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.events) == (7, 1, 2)
    await picker.settle()
    assert len(recorder.completions) == 1


@LEAVES
async def test_c93_client_leaves_while_the_decision_waits(
    start: StartPicker, leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epp.plugin_calls.step.HOOK_DEADLINE_S", 60.0)  # so that only the client's leaving can end the wait
    waits = Waits()
    picker, recorder = await start_counting(start, doubles=[double(waits, Role.DATA_PRODUCER)])
    stream = picker.stream()
    await stream.send(*STANDARD)
    await waits.began.wait()
    await leave_unanswered(stream, leave)
    async with asyncio.timeout(2):
        await waits.cancelled.wait()
    await picker.settle()
    assert (recorder.calls, recorder.completions) == ({}, [])
    assert picker.series("scheduler_attempts_total") == {}


@LEAVES
async def test_c93_client_leaves_within_the_body(start: StartPicker, leave: str) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(request_headers(), request_body(b'{"model":', end=False))
    await picker.round_trip()
    assert picker.stats.buffered_bytes == len(b'{"model":')
    await leave_unanswered(stream, leave)
    await picker.settle()
    assert (recorder.calls, recorder.completions) == ({}, [])


@LEAVES
async def test_client_leaves_behind_the_pick(start: StartPicker, leave: str) -> None:
    """PreRequest hooks have counted the request; it is completed although it was never answered."""
    waits = WaitsAsPreRequest()
    picker, recorder = await start_counting(start, doubles=[double(waits, Role.PRE_REQUEST)])
    stream = picker.stream()
    await stream.send(*STANDARD)
    await waits.began.wait()
    assert in_flight(picker) == 1
    await leave_unanswered(stream, leave)
    completion = await recorder.completion()
    assert completion.cause is Cause.CLIENT_DISCONNECT
    await picker.settle()
    assert in_flight(picker) == 0


def ngf_headers() -> Message:
    """As NGINX Gateway Fabric sends them: everything in ``value``, keys spelled as the client did, no path."""
    pairs = [("Content-Type", "application/json"), ("X-Request-Id", "ngf"), ("X-Llm-D-Inference-Objective", "prio4")]
    headers = base_pb2.HeaderMap(headers=[base_pb2.HeaderValue(key=key, value=value) for key, value in pairs])
    return Message(request_headers=pb.HttpHeaders(headers=headers))


async def test_c96_shim_that_half_closes(start: StartPicker) -> None:
    waits = Waits()
    picker, recorder = await start_counting(start, doubles=[double(waits, Role.DATA_PRODUCER)])
    stream = picker.stream(None)
    await stream.send(ngf_headers(), request_body(std_body("m", "p")))
    await stream.half_close()
    await waits.began.wait()
    await picker.round_trip()
    waits.go_on.set()
    routed = await stream.routed()
    assert (routed.target, routed.body) == (A_ADDRESS, std_body("m", "p"))
    assert routed.headers.removed == {"x-llm-d-inference-objective"}
    await stream.ends()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known) == (Cause.NATURAL, False)
    [request] = recorder.requests
    assert (request.request_id, request.priority, request.path) == ("ngf", 4, "/v1/completions")


async def test_c97_count_tokens(start: StartPicker) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream(Modes(FULL_DUPLEX, NONE))
    body = b'{"messages":[{"role":"user","content":"x"}], "max_tokens":1.0}'
    await stream.send(request_headers(path="/v1/messages/count_tokens"), request_body(body))
    routed = await stream.routed()
    assert (routed.target, routed.body) == (A_ADDRESS, body)
    await stream.ends()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known) == (Cause.NATURAL, False)


async def test_c97_count_tokens_in_full_duplex_loses_nothing_of_the_response(start: StartPicker) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(request_headers(path="/v1/messages/count_tokens"), request_body(b"{}"))
    await stream.routed()
    await stream.send(response_headers(), response_body(b'{"input_tokens":3}'))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == b'{"input_tokens":3}'
    assert (await recorder.completion()).cause is Cause.NATURAL


async def test_c98_body_behind_trailers(start: StartPicker) -> None:
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(*STANDARD)
    await stream.routed()
    await stream.send(response_headers(), response_body(b"{}", end=False), response_trailers())
    await stream.answer("response_headers")
    assert (await stream.response_body(end=False, trailers=True))[0] == b"{}"
    await stream.closes()
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await stream.send(response_body(b"late"), response_body(b""))
    await picker.settle()
    assert len(recorder.completions) == 1
    assert recorder.completions[0].response_bytes == 2


async def test_c99_equal_request_ids(start: StartPicker) -> None:
    picker, recorder = await start_counting(start)
    streams = [picker.stream(), picker.stream()]
    models = ["one", "two"]
    for stream, model in zip(streams, models, strict=True):
        await stream.send(request_headers(), request_body(std_body(model, "p"), end=False))
    for stream, model in zip(streams, models, strict=True):
        await stream.send(request_body(b""))
        assert (await stream.routed()).json["model"] == model
    assert in_flight(picker) == 2
    for number, stream in enumerate(streams, 1):
        await respond(stream, response_headers(), response_body(b"{}"))
        await stream.closes()
        await recorder.completion()
        assert in_flight(picker) == 2 - number
    assert [request.model for request in recorder.requests] == models


async def test_c100_client_leaves_within_the_answer(start: StartPicker) -> None:
    """More is to be written than flow control lets through; nobody reads it."""
    picker, recorder = await start_counting(start)
    stream = picker.stream()
    await stream.send(request_headers())
    piece = b"x" * 1_000_000
    await stream.send(request_body(b'{"model":"m","prompt":"', end=False))
    for _ in range(16):
        await stream.send(request_body(piece, end=False))
    await stream.send(request_body(b'"}'))
    await stream.answer("request_headers")
    assert in_flight(picker) == 1
    stream.cancel()
    completion = await recorder.completion()
    assert completion.cause is Cause.CLIENT_DISCONNECT
    await picker.settle()
    assert len(recorder.completions) == 1
