"""Input that no well-behaved client or data plane sends: a clear error, or survival; nothing else is disturbed."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from epp.framework.types import Cause
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.picker import A_ADDRESS, A, B, Picker
from tests.conformance.wire import (
    DESTINATION,
    Message,
    Stream,
    request_body,
    request_headers,
    request_trailers,
    respond,
    response_body,
    response_headers,
    std_body,
    subset,
)

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024


@pytest_asyncio.fixture(loop_scope="package")
async def picker(start: StartPicker) -> AsyncIterator[Picker]:
    """A picker that still serves when the bad input is over."""
    picker = await start(A(), B(9, 0.9), config={"scorers": ["queue-scorer", "active-request-scorer"]})
    yield picker
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.target == A_ADDRESS


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """A body with a value this deep."""
    return f'{{"model":"m","prompt":"x","deep":{opening * depth}{closing * depth}}}'.encode()


BODIES = [
    pytest.param(b"", id="empty"),
    pytest.param(b"   \n", id="blank"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="list"),
    pytest.param(b'"model"', id="text"),
    pytest.param(b'{"model":"m","prompt":"x"', id="cut"),
    pytest.param(b'{"model":"m","prompt":"x"}}', id="brace too many"),
    pytest.param(b'{"model":"m","prompt":"x",}', id="trailing comma"),
    pytest.param(b"{'model':'m','prompt':'x'}", id="single quotes"),
    pytest.param(b'{"model":"m","prompt":"x","t":NaN}', id="NaN"),
    pytest.param(b'{"model":"m","prompt":"x","t":Infinity}', id="Infinity"),
    pytest.param(b'\xef\xbb\xbf{"model":"m","prompt":"x"}', id="byte order mark"),
    pytest.param('{"model":"m","prompt":"x"}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b"\x1f\x8b\x08\x00\x00", id="gzip"),
    pytest.param(b"\0" * 1000, id="zeros"),
    pytest.param(bytes(range(256)) * 10, id="all bytes"),
    pytest.param(nested(100_000), id="100,000 lists deep"),
    pytest.param(nested(100_000, '{"a":', "}"), id="unbalanced, 100,000 objects deep"),
    pytest.param(b'{"model":5,"prompt":"x"}', id="model is a number"),
    pytest.param(b'{"model":null,"prompt":"x"}', id="model is null"),
    pytest.param(b'{"model":"","prompt":"x"}', id="model is empty"),
    pytest.param(b'{"prompt":"x"}', id="model is missing"),
    pytest.param(b'{"Model":"m","prompt":"x"}', id="key in another case"),
]


@pytest.mark.parametrize("body", BODIES)
async def test_bodies_that_are_refused(picker: Picker, body: bytes) -> None:
    refusal = await picker.refuse(request_headers(), request_body(body))
    assert refusal.status == 400
    assert refusal.message.startswith("inference error: BadRequest - ")
    assert len(refusal.body) < 2000, "the body is not repeated to its sender"


async def test_deep_body_with_rewrite(picker: Picker) -> None:
    """Rewriting counts brackets; it does not recurse. Either way the picker answers."""
    body = nested(900)
    routed = await picker.route(request_headers({"x-llm-d-model-name-rewrite": "other"}), request_body(body))
    assert routed.body == body.replace(b'"m"', b'"other"')


DOUBLED = b'{"model":"first","prompt":"a","model":"second","prompt":"b"}'


async def test_doubled_keys(picker: Picker) -> None:
    """The last one counts, as for the model server; the bytes stay."""
    assert (await picker.route(request_headers(), request_body(DOUBLED))).body == DOUBLED
    assert ("second", "second", "default-flow", "0") in picker.series("request_total")


async def test_doubled_keys_with_rewrite(picker: Picker) -> None:
    routed = await picker.route(request_headers({"x-llm-d-model-name-rewrite": "new"}), request_body(DOUBLED))
    assert routed.body == b'{"model":"new","prompt":"a","model":"new","prompt":"b"}'


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\\ud800", b"\xc3"], ids=["bytes", "lone surrogate", "cut character"])
async def test_invalid_unicode_is_forwarded(picker: Picker, text: bytes) -> None:
    body = b'{"model":"m","prompt":"' + text + b'"}'
    assert (await picker.route(request_headers(), request_body(body))).body == body


async def test_wrong_content_type(picker: Picker) -> None:
    """The path decides; clients forget the header."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "\xff"):
        body = std_body("m", "p")
        assert (await picker.route(request_headers(content_type=content_type), request_body(body))).body == body


PATHS = ["/", "/unknown", "//", "/v1/\xff\xfe", "/v1/chat/completionsx", "*", "?", "/%00", "/" + "a" * 10_000]


@pytest.mark.parametrize("path", PATHS)
async def test_unknown_paths_pass(picker: Picker, path: str) -> None:
    body = b"anything at all"
    assert (await picker.route(request_headers(path=path), request_body(body))).body == body


VALUES = [b"\xff\xfe\x00", b"\r\nx-injected: 1", b"a" * 100_000, "žluťoučký".encode(), b"\x7f\x01"]


NAMES = [
    "x-request-id",
    "x-llm-d-inference-objective",
    "x-llm-d-inference-fairness-id",
    "x-llm-d-model-name-rewrite",
    "x-other",
    ":path",
]


@pytest.mark.parametrize("value", VALUES, ids=["no UTF-8", "line break", "long", "UTF-8", "control characters"])
@pytest.mark.parametrize("name", NAMES)
async def test_odd_header_values(picker: Picker, name: str, value: bytes) -> None:
    body = std_body("m", "p")
    routed = await picker.route(request_headers({name: value}, request_id=None), request_body(body))
    assert routed.target == A_ADDRESS
    assert isinstance(routed.json["model"], str)
    assert all("\n" not in value for _, value in routed.headers.set)
    picker.metrics.exposition()


ROUTING = {
    DESTINATION: "6.6.6.6:1",
    "x-gateway-destination-endpoint-subset": "6.6.6.6:1",
    "x-gateway-destination-endpoint-served": "6.6.6.6:1",
    "x-prefiller-host-port": "6.6.6.6:1",
    "x-encoder-hosts-ports": "6.6.6.6:1,6.6.6.7:1",
    "x-data-parallel-host-port": "6.6.6.6:1",
    "x-kv-cache-source-host-port": "6.6.6.6:1",
    "mif-prefill-endpoint": "6.6.6.6:1",
    "mif-encode-endpoints": "6.6.6.6:1",
}


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
async def test_client_sends_routing_headers(picker: Picker, spelling: object) -> None:
    headers = {spelling(name): value for name, value in ROUTING.items()}  # type: ignore[operator]
    doubled = [*headers.items(), *headers.items()]
    routed = await picker.route(request_headers(doubled), request_body(std_body("m", "p")))
    assert routed.headers.set == ((DESTINATION, A_ADDRESS),)
    assert routed.headers.removed == set(ROUTING) - {DESTINATION}


# ── size ──


async def send_large(stream: Stream, size: int) -> None:
    """A completion of ``size`` bytes in pieces of 1 MiB, as Envoy sends them, and its end."""
    frame = std_body("m", "")
    head, tail = frame[:-18], frame[-18:]
    assert tail.startswith(b'"')
    await stream.send(request_headers(), request_body(head, end=False))
    left = size - len(frame)
    while left > 0:
        await stream.send(request_body(b"x" * min(left, MIB), end=False))
        left -= MIB
    await stream.send(request_body(tail, end=False), request_body(b""))


async def test_64_megabytes(picker: Picker) -> None:
    stream = picker.stream()
    sending = asyncio.create_task(send_large(stream, 64 * MIB))
    routed = await stream.routed()
    await sending
    assert len(routed.body) == 64 * MIB
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()
    assert picker.stats.buffered_bytes == 0


async def test_one_byte_more_than_64_megabytes(picker: Picker) -> None:
    stream = picker.stream()
    await stream.send(request_headers())
    for _ in range(64):
        await stream.send(request_body(b"x" * MIB, end=False))
    await stream.send(request_body(b"x", end=False))
    assert (await stream.refused()).status == 413
    assert picker.stats.buffered_bytes == 0


async def test_message_longer_than_the_receive_limit(start: StartPicker) -> None:
    picker = await start(A(), settings={"max_body_bytes": MIB, "max_receive_bytes": 2 * MIB})
    stream = picker.stream()
    await stream.send(request_headers(), request_body(b"x" * 3 * MIB))
    await stream.ends(grpc.StatusCode.RESOURCE_EXHAUSTED)
    await picker.route(request_headers(), request_body(std_body("m", "p")))


async def test_many_large_bodies_at_once(start: StartPicker) -> None:
    """All together over the limit: some are refused with 503, the others are served, and the memory is given back."""
    picker = await start(A(), settings={"max_buffered_bytes": 4 * MIB})
    streams = [picker.stream() for _ in range(8)]
    for stream in streams:
        await stream.send(request_headers(), request_body(b'{"model":"m","prompt":"' + b"x" * (MIB - 30), end=False))
    first = {asyncio.ensure_future(stream.raw()): stream for stream in streams}
    answered: set[asyncio.Task[Any]] = set()
    while len(answered) < 4:
        done, _ = await asyncio.wait(first.keys() - answered, return_when=asyncio.FIRST_COMPLETED)
        answered |= done
    for task in answered:
        reply = task.result().immediate_response
        assert reply.status.code == 503
        assert b"too many request bodies in memory" in reply.body
    assert 3 * MIB < picker.stats.buffered_bytes <= 4 * MIB
    for task in first.keys() - answered:
        await first[task].send(request_body(b'"}'))
        assert (await task).WhichOneof("response") == "request_headers"
    assert picker.stats.buffered_bytes == 0
    assert picker.total("request_error_total") == 4
    assert picker.total("request_total") == 4
    await picker.route(request_headers(), request_body(std_body("m", "p")))


# ── the data plane itself ──


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("at", ["first", "within the body", "within the response"])
async def test_bytes_that_are_no_message(start: StartPicker, data: bytes, at: str) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    stream = picker.stream()
    if at != "first":
        await stream.send(request_headers())
    if at == "within the response":
        await stream.send(request_body(std_body("m", "p")))
        await stream.routed()
        await respond(stream, response_headers())
    await stream.send(data)
    await stream.ends(grpc.StatusCode.INVALID_ARGUMENT)
    await picker.settle()
    assert [completion.cause for completion in recorder.completions] == [Cause.ERROR] * (at == "within the response")


WHOLE_BODY = request_body(std_body("m", "p"))
ILLEGAL = [
    pytest.param([request_body(b"{}")], id="body first"),
    pytest.param([request_trailers()], id="trailers first"),
    pytest.param([request_headers(), request_headers()], id="headers twice"),
    pytest.param([request_headers(end=True), request_headers()], id="headers behind the end"),
    pytest.param([response_headers(), response_headers()], id="response headers twice"),
    pytest.param([response_headers(), request_headers()], id="request behind the response"),
    pytest.param([request_headers(), WHOLE_BODY, request_trailers(), request_trailers()], id="trailers twice"),
]


@pytest.mark.parametrize("messages", ILLEGAL)
async def test_illegal_orders(picker: Picker, messages: list[Message]) -> None:
    stream = picker.stream()
    await stream.send(*messages)
    while await read_or_none(stream) is not None:
        pass
    assert await stream.call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def read_or_none(stream: Stream) -> object:
    """The next answer; None if the stream is over, however it ended."""
    try:
        return await stream.raw()
    except grpc.aio.AioRpcError:
        return None


TCP = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="HTTP/1.1"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500, id="HTTP/2 garbage"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300, id="TLS hello"),
    pytest.param(struct.pack(">Q", 2**63), id="binary"),
    pytest.param(b"", id="nothing"),
]


@pytest.mark.parametrize("data", TCP)
async def test_client_that_is_no_grpc(picker: Picker, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", picker.port)
    writer.write(data)
    await writer.drain()
    if data:
        async with asyncio.timeout(20):
            await reader.read()  # until the server closes
    writer.close()
    await writer.wait_closed()


async def test_other_methods(picker: Picker) -> None:
    for method in ("/envoy.service.ext_proc.v3.ExternalProcessor/Other", "/no.such.Service/Process"):
        multi: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = picker.channel.unary_unary(method)
        call = multi(b"")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_of_any_shape(picker: Picker) -> None:
    odd = {"envoy.lb": {"x": [{"y": None}]}, "other": {}}
    routed = await picker.route(request_headers(metadata=odd), request_body(std_body("m", "p")))
    assert routed.target == A_ADDRESS
    assert (await picker.refuse(request_headers(metadata=subset({"a": 1})), request_body(std_body("m", "p")))).status == 503
