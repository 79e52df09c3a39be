"""The response phase: cases C62 to C64 and C75 to C89."""

from __future__ import annotations

import json
from typing import Any

import pytest

from epp.framework.interfaces import Role
from epp.framework.types import Cause, Completion
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import CallsBack, Recorder, double, raises
from tests.conformance.exchanges import EVENTS, USAGE, event, pass_chunks, routed, start_watched
from tests.conformance.picker import A_ADDRESS, A, B, Picker, rewrite, server
from tests.conformance.wire import (
    Answer,
    Message,
    check_route,
    cut,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    response_trailers,
    std_body,
)

WENT_IN = ("x-went-into-resp-headers", "true")


async def response_only(picker: Picker, *messages: Message) -> tuple[Answer, bytes]:
    """A stream that begins with the response."""
    stream = picker.stream()
    await stream.send(*messages)
    headers = await stream.answer("response_headers")
    body, _ = await stream.response_body()
    await stream.closes()
    return headers, body


async def test_c62_response_alone(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    parts = [response_headers(), response_body('{"max_tokens":100,"model":"sql-lo', end=False), response_body('ra","n":1}')]
    headers, body = await response_only(picker, *parts)
    assert headers.set == (WENT_IN,)
    assert body == b'{"max_tokens":100,"model":"sql-lora","n":1}'
    assert recorder.calls == {}


async def test_c63_response_alone_not_json(start: StartPicker) -> None:
    picker = await start(A())
    _, body = await response_only(picker, response_headers(), response_body("no healthy upstream"))
    assert body == b"no healthy upstream"


async def test_c64_empty_end(start: StartPicker) -> None:
    picker = await start(A())
    whole = json.dumps({"model": "m", "usage": USAGE}).encode()
    _, body = await response_only(picker, response_headers(), response_body(whole, end=False), response_body(b""))
    assert body == whole


PROXIED = std_body("gpt-4-proxy", "p")
RULE = rewrite("proxy", "vllm-backend-01", "gpt-4-proxy")
RENAMES = [
    pytest.param("application/json", b'{"model":"vllm-backend-01","n":1.0}', b'{"model":"gpt-4-proxy","n":1.0}', id="JSON"),
    pytest.param("application/json", b'{"model": "vllm-backend-01"}', b'{"model": "gpt-4-proxy"}', id="JSON with blank"),
    pytest.param("application/json", b'{"model":"other","text":"vllm-backend-01"}', None, id="other name"),
    pytest.param(
        EVENTS,
        b'data: {"model":"vllm-backend-01"}\n\ndata: {"model": "vllm-backend-01"}\n\ndata: [DONE]\n\n',
        b'data: {"model":"gpt-4-proxy"}\n\ndata: {"model": "gpt-4-proxy"}\n\ndata: [DONE]\n\n',
        id="events",
    ),
    pytest.param("application/octet-stream", b'{"model":"vllm-backend-01"}', None, id="other type"),
]


@pytest.mark.parametrize(("content_type", "data", "expected"), RENAMES)
async def test_c75_client_reads_its_own_name(
    start: StartPicker, content_type: str, data: bytes, expected: bytes | None
) -> None:
    picker = await start(A(), objects=[RULE])
    stream = await routed(picker, PROXIED)
    await stream.send(response_headers(content_type=content_type), response_body(data))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == (data if expected is None else expected)
    await stream.closes()


@pytest.mark.parametrize("incoming", ["vllm-backend-01", ""], ids=["equal", "empty"])
async def test_c75_nothing_to_rename(start: StartPicker, incoming: str) -> None:
    picker = await start(A(), objects=[rewrite("generic", "vllm-backend-01")])
    stream = await routed(picker, std_body(incoming, "p"))
    data = b'{"model":"vllm-backend-01"}'
    await stream.send(response_headers(), response_body(data))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == data
    await stream.closes()


async def test_c76_name_is_cut(start: StartPicker) -> None:
    picker = await start(A(), objects=[RULE])
    text = b'data: {"model":"vllm-backend-01","n":1}\n\n'
    for position in range(1, len(text)):
        stream = await routed(picker, PROXIED)
        await respond(stream, response_headers(content_type=EVENTS))
        await stream.send(response_body(event({"n": 0}), end=False))
        assert (await stream.answer("response_body")).body == event({"n": 0}), "a complete event is not delayed"
        await stream.send(
            response_body(text[:position], end=False), response_body(text[position:], end=False), response_body(b"")
        )
        assert (await stream.response_body())[0] == text.replace(b"vllm-backend-01", b"gpt-4-proxy"), position
        await stream.closes()


@pytest.mark.parametrize("last", [response_body(b""), response_trailers()], ids=["end", "trailers"])
async def test_c76_what_is_held_back_is_not_lost(start: StartPicker, last: Message) -> None:
    """A response that ends where the name might have gone on."""
    picker = await start(A(), objects=[RULE])
    stream = await routed(picker, PROXIED)
    await respond(stream, response_headers(content_type=EVENTS))
    await stream.send(response_body(b'data: {"model":"vllm-back', end=False), last)
    trailers = last.HasField("response_trailers")
    assert (await stream.response_body(end=not trailers, trailers=trailers))[0] == b'data: {"model":"vllm-back'
    await stream.closes()


async def test_c77_headers_of_the_server_stay(start: StartPicker) -> None:
    picker = await start(A())
    stream = await routed(picker)
    headers = [
        ("content-length", "500"),
        ("x-backend", "v"),
        ("x-gateway-destination-endpoint", "z"),
        ("x-llm-d-request-dropped-reason", "evicted"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ]
    [answer] = await respond(stream, response_headers(headers))
    assert answer.set == (WENT_IN,)
    assert answer.removed == {"x-gateway-destination-endpoint", "x-llm-d-request-dropped-reason"}
    assert not answer.clear_route_cache
    await respond(stream, response_body(b"{}"))
    await stream.closes()


async def test_c78_server_fails(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = await routed(picker)
    error = b'{"error":{"message":"boom"}}'
    await stream.send(response_headers(status=500), response_body(error))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == error
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.status) == (Cause.NATURAL, 500)
    assert picker.series("request_error_total") == {("m", "m", "default-flow", "0", "ModelServerError"): 1}


@pytest.mark.parametrize("status", [200, 201, 204, 304])
async def test_c78_other_statuses_are_no_errors(start: StartPicker, status: int) -> None:
    picker = await start(A())
    stream = await routed(picker)
    await respond(stream, response_headers(status=status), response_body(b""))
    await stream.closes()
    assert picker.series("request_error_total") == {}


@pytest.mark.parametrize("status", [204, 200])
async def test_c79_headers_end_the_response(start: StartPicker, status: int) -> None:
    """An empty reply to a POST; the completion comes before its answer, whose metadata it may set."""
    mark = double(
        CallsBack(lambda _request, _result, completion: completion.metadata.update(done={"x": 1})), Role.RESPONSE_COMPLETE
    )
    picker, recorder = await start_watched(start, doubles=[mark])
    stream = await routed(picker)
    await stream.send(response_headers(status=status, end=True))
    answer = await stream.answer("response_headers")
    assert len(recorder.completions) == 1
    assert answer.metadata == {"done": {"x": 1}}
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known, completion.response_bytes) == (Cause.NATURAL, True, 0)


async def test_c83_grpc_error_without_body(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = picker.stream()
    frame = b"\0\0\0\0\x02hi"
    await stream.send(request_headers(path="/some.Service/Method", content_type="application/grpc"), request_body(frame))
    assert (await stream.routed()).body == frame
    await respond(stream, response_headers({"grpc-status": "8"}, content_type="application/grpc", end=True))
    await stream.closes()
    assert (await recorder.completion()).cause is Cause.NATURAL


async def test_c84_metadata_of_the_completion(start: StartPicker) -> None:
    def adds(_request: object, _result: object, completion: Completion) -> None:
        completion.metadata["envoy.lb"] = {"cost": completion.usage.completion_tokens}

    picker = await start(A(), doubles=[double(CallsBack(adds), Role.RESPONSE_COMPLETE)])
    stream = await routed(picker)
    data = json.dumps({"text": "x" * 130_000, "usage": USAGE}).encode()
    await stream.send(response_headers(), *(response_body(part, end=False) for part in cut(data, 16_384)), response_body(b""))
    await stream.answer("response_headers")
    body, metadata = await stream.response_body()  # fails if metadata comes earlier
    assert body == data
    assert metadata == {"envoy.lb": {"cost": 10}}
    await stream.closes()


SERVED = {"envoy.lb": {"x-gateway-destination-endpoint-served": "192.168.1.3:8000"}}
SERVED_BY = [
    pytest.param(SERVED, "c", id="known"),
    pytest.param({"envoy.lb": {"x-gateway-destination-endpoint-served": "9.9.9.9:1"}}, "a", id="unknown"),
    pytest.param({"envoy.lb": {"x-gateway-destination-endpoint-served": 5}}, "a", id="no text"),
    pytest.param(None, "a", id="nothing said"),
]


@pytest.mark.parametrize(("metadata", "name"), SERVED_BY)
async def test_served_endpoint(start: StartPicker, metadata: dict[str, dict[str, object]] | None, name: str) -> None:
    """The hooks' half of C87: they see the endpoint that answered, if the data plane reports one that we know."""
    recorder = Recorder()
    servers = [A(), server("c", "192.168.1.3", 9, 0.9)]
    picker = await start(*servers, doubles=[double(recorder, *Recorder.ROLES)])
    stream = await routed(picker)
    await respond(stream, response_headers(metadata=metadata), response_body(b"{}"))
    await stream.closes()
    assert [response.served.name for response in recorder.responses] == [name]
    assert (await recorder.completion()).served.name == name


async def test_c89_hook_raises(start: StartPicker) -> None:
    broken = double(CallsBack(raises(ValueError("boom"))), Role.RESPONSE_RECEIVED, Role.RESPONSE_COMPLETE, name="broken")
    recorder = Recorder()
    picker = await start(A(), doubles=[broken, double(recorder, *Recorder.ROLES)])
    stream = await routed(picker)
    [headers, _] = await respond(stream, response_headers(), response_body(b"{}"))
    assert headers.set == (WENT_IN,)
    await stream.closes()
    await recorder.completion()
    assert next(iter(recorder.calls.values())) == ["pre_request", "received", "complete"]
    assert picker.series("plugin_errors_total") == {
        ("ResponseReceived", "broken", "broken"): 1,
        ("ResponseComplete", "broken", "broken"): 1,
    }


async def test_hooks_edit_response_headers(start: StartPicker) -> None:
    def edit(_request: object, _result: object, _response: object, edits: Any) -> None:
        edits.set("x-decoder", "b")
        edits.set("content-length", "1")
        edits.remove("server")
        edits.remove("not-there")

    picker = await start(A(), doubles=[double(CallsBack(edit), Role.RESPONSE_RECEIVED)])
    stream = await routed(picker)
    [answer, _] = await respond(stream, response_headers({"server": "vllm"}), response_body(b"{}"))
    assert answer.set == (WENT_IN, ("x-decoder", "b"))
    assert answer.removed == {"server"}
    await stream.closes()


async def test_trailers_end_the_response(start: StartPicker) -> None:
    """As gRPC servers end theirs: pieces without end flag, then the trailers' answer."""
    picker, recorder = await start_watched(start)
    stream = await routed(picker)
    await stream.send(
        response_headers(), response_body(b'{"a":', end=False), response_body(b"1}", end=False), response_trailers()
    )
    await stream.answer("response_headers")
    assert (await stream.response_body(end=False, trailers=True))[0] == b'{"a":1}'
    await stream.closes()
    completion = await recorder.completion()
    assert (completion.cause, completion.length_known) == (Cause.NATURAL, True)


async def test_latencies_are_observed_once(start: StartPicker) -> None:
    picker = await start(A())
    stream = await routed(picker, b'{"model":"m","prompt":"x","stream":true}')
    await pass_chunks(stream, [event({"n": n}) for n in range(4)] + [event({"usage": USAGE})])
    await picker.settle()
    for name in ("request_duration_seconds", "request_ttft_seconds", "request_streaming_tpot_seconds", "request_ntpot_seconds"):
        assert picker.total(name, suffix="_count") == 1, name
    assert picker.total("request_streaming_itl_seconds", suffix="_count") == 4
    assert picker.total("response_processing_duration_seconds", suffix="_count") == 1


async def test_get_passes_the_response_unchanged(start: StartPicker) -> None:
    picker = await start(A(), B())
    stream = picker.stream()
    await stream.send(request_headers(end=True, method="GET", path="/v1/models"))
    assert check_route(await stream.answer("request_headers")) in {A_ADDRESS, "192.168.1.2:8000"}
    await stream.send(response_headers(), response_body(b'{"data":', end=False), response_body(b"[]}"))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == b'{"data":[]}'
    await stream.closes()
