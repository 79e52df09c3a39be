"""Plays transcripts over loopback, on any transport: a small ext_proc client, and protobuf ↔ the cases' records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format
from grpc import aio

from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Lost,
    Opening,
    Outgoing,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    Status,
    StreamedBody,
    TrailersAnswer,
)
from epp.seam import Metadata, Port, Reply, Request, RequestHandler, ResponseHead, Settings, Stream, Transport
from tests.extproc.transcripts import Case, Does, Late, Recorder, Wait

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
LIMIT_S = 10.0
"""No step takes this long unless something hangs."""

Call = Any


# ── protobuf ──


def to_wire(what: Any, opening: Opening | None) -> bytes:
    """The ``ProcessingRequest`` for a message; with ``opening`` as the first of its stream."""
    message = pb.ProcessingRequest()
    side = "request" if type(what).__name__.startswith("Request") else "response"
    if isinstance(what, RequestHeaders | ResponseHeaders):
        part = getattr(message, f"{side}_headers")
        part.end_of_stream = what.end
        part.SetInParent()
        for name, value in what.headers.items():
            part.headers.headers.add(key=name, raw_value=value.encode("utf-8", "surrogateescape"))
    elif isinstance(what, RequestBody | ResponseBody):
        part = getattr(message, f"{side}_body")
        part.body, part.end_of_stream = what.data, what.end and not what.without_message
        part.grpc_message_compressed, part.end_of_stream_without_message = what.compressed, what.without_message
    else:
        getattr(message, f"{side}_trailers").SetInParent()
    if isinstance(what, RequestHeaders | RequestBody | RequestTrailers):
        for namespace, values in (what.metadata or {}).items():
            message.metadata_context.filter_metadata[namespace].update(values)
    if opening is not None:
        message.observability_mode = opening.observed
        if opening.configured:
            message.protocol_config.SetInParent()
            message.protocol_config.request_body_mode = int(opening.request_mode)
            message.protocol_config.response_body_mode = int(opening.response_mode)
    data: bytes = message.SerializeToString()
    return data


def from_wire(data: bytes) -> Outgoing:
    """The answer in a ``ProcessingResponse``."""
    message = pb.ProcessingResponse.FromString(data)
    kind = message.WhichOneof("response")
    assert kind is not None
    part = getattr(message, kind)
    if kind == "immediate_response":
        headers = tuple((option.header.key, option.header.raw_value.decode()) for option in part.headers.set_headers)
        grpc_status = part.grpc_status.status if part.HasField("grpc_status") else None
        return Immediate(Reply(part.status.code, part.body, headers, grpc_status, part.details))
    response = kind.startswith("response")
    metadata = _metadata(message)
    if kind.endswith("trailers"):
        return TrailersAnswer(response, metadata)
    common = part.response
    if kind.endswith("body") and common.body_mutation.HasField("streamed_response"):
        piece = common.body_mutation.streamed_response
        flags = (piece.grpc_message_compressed, piece.end_of_stream_without_message)
        return StreamedBody(response, piece.body, piece.end_of_stream, metadata, *flags)
    mutation = common.header_mutation
    pairs = tuple((option.header.key, option.header.raw_value.decode()) for option in mutation.set_headers)
    edits = (response, pairs, tuple(mutation.remove_headers), common.clear_route_cache, metadata)
    if kind.endswith("headers"):
        return HeadersAnswer(*edits)
    body = common.body_mutation.body if common.body_mutation.WhichOneof("mutation") == "body" else None
    return BodyAnswer(*edits, body)


def _metadata(message: pb.ProcessingResponse) -> Metadata | None:
    return json_format.MessageToDict(message.dynamic_metadata) if message.HasField("dynamic_metadata") else None


# ── a client ──


class Client:
    """One ext_proc stream as the data plane opens it.

    Args:
        channel: to the transport.
        opening: sent with the first message.
    """

    def __init__(self, channel: aio.Channel, opening: Opening) -> None:
        self._opening: Opening | None = opening
        self.call: Call = channel.stream_stream(METHOD)()

    async def send(self, what: Any) -> None:
        """Send one message; nothing happens if the stream is closed already."""
        data = what if isinstance(what, bytes) else to_wire(what, self._opening)
        self._opening = None
        try:
            await self.call.write(data)
        except (asyncio.InvalidStateError, aio.AioRpcError):
            await self.call.code()

    async def receive(self) -> Outgoing | None:
        """The next answer; None when the stream was closed."""
        try:
            data = await self.call.read()
        except (aio.AioRpcError, asyncio.CancelledError):
            return None
        return from_wire(data) if isinstance(data, bytes) else None

    async def half_close(self) -> None:
        """Send nothing more."""
        try:
            await self.call.done_writing()
        except (asyncio.InvalidStateError, aio.AioRpcError):
            await self.call.code()

    async def status(self) -> Status:
        """How the stream was closed."""
        code = await self.call.code()
        assert isinstance(code, grpc.StatusCode)
        return Status[code.name]


class Dispatcher:
    """A handler that gives each stream its own recorder; the next stream takes ``script``."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None

    def request(self, stream: Stream, request: Request) -> None:
        assert self.recorder is not None
        stream.state = self.recorder
        self.recorder.request(stream, request)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Any:
        return _recorder(stream).response_headers(stream, head)

    def response_body(self, stream: Stream, chunks: Any) -> None:
        _recorder(stream).response_body(stream, chunks)

    def finished(self, stream: Stream, outcome: Any) -> Any:
        return _recorder(stream).finished(stream, outcome)


def _recorder(stream: Stream) -> Recorder:
    assert isinstance(stream.state, Recorder)
    return stream.state


# ── a transport on loopback ──


class Loopback:
    """A running transport and a channel to it."""

    def __init__(self, transport: Transport, channel: aio.Channel, ports: Sequence[int]) -> None:
        self.transport = transport
        self.channel = channel
        self.ports = ports

    async def until_ended(self, count: int) -> None:
        """Wait until the transport has counted so many ended streams; it learns of a cancel when it likes."""
        async with asyncio.timeout(LIMIT_S):
            while sum(self.transport.stats().ended.values()) < count:  # noqa: ASYNC110 — counts are read, not told
                await asyncio.sleep(0.001)


@asynccontextmanager
async def loopback(make: Callable[[], Transport], handler: RequestHandler, settings: Settings) -> AsyncIterator[Loopback]:
    """Start a transport, give a channel to it, stop it."""
    transport = make()
    ports = await transport.start(handler, settings, [Port("127.0.0.1", 0, secure=False)])
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    try:
        async with aio.insecure_channel(f"127.0.0.1:{ports[0]}", options=options) as channel:
            yield Loopback(transport, channel, ports)
    finally:
        await transport.stop(0)


# ── playing ──


async def play_on(make: Callable[[], Transport], case: Case) -> None:
    """Play a case on a transport over loopback and compare every step."""
    called = asyncio.Event()
    dispatcher = Dispatcher()
    recorder = dispatcher.recorder = Recorder(case.script, called.set)
    async with loopback(make, dispatcher, case.settings) as running, asyncio.timeout(LIMIT_S):
        client = Client(running.channel, case.opening)
        expected = 0
        for number, step in enumerate(case.steps):
            await _does(client, recorder, step.does)
            for answer in step.sent:
                assert await client.receive() == answer, f"step {number}: {step.does}"
            expected += len(step.calls)
            await _until(called, lambda: len(recorder.calls) >= expected)  # noqa: B023 — awaited at once
        if case.status is None:
            client.call.cancel()
        elif not client.call.cancelled():
            assert await client.receive() is None
            status = await client.status()
            assert status is case.status, client.call
        await running.until_ended(1)
    calls = [call for step in case.steps for call in step.calls]
    assert recorder.calls[: len(calls)] == calls
    ends = [call for call in recorder.calls if call[0] == "finished"]
    assert len(ends) == len(recorder.requests)
    assert running.transport.stats().buffered_bytes == 0
    assert running.transport.stats().open_streams == 0


async def _does(client: Client, recorder: Recorder, what: Does) -> None:
    if isinstance(what, Late):
        assert recorder.stream is not None
        recorder.stream.answer(what.answer)
    elif what is Lost.HALF_CLOSED:
        await client.half_close()
    elif what is Lost.CANCELLED:
        client.call.cancel()
    else:
        assert not isinstance(what, Wait | Lost)
        await client.send(b"\xff\xff" if type(what).__name__ == "Invalid" else what)


async def _until(called: asyncio.Event, true: Callable[[], bool]) -> None:
    while not true():
        called.clear()
        await called.wait()
