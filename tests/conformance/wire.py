"""A data plane in small: real ext_proc streams, messages in the words of the protocol, answers as plain records."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format, struct_pb2
from grpc import aio

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
DESTINATION = "x-gateway-destination-endpoint"
DROPPED_REASON = "x-llm-d-request-dropped-reason"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
MAX_PIECE_BYTES = 62_000
ANSWER_TIMEOUT_S = 20.0
"""Only a broken picker keeps silent that long; healthy ones answer within milliseconds."""

Message: TypeAlias = pb.ProcessingRequest
HeaderPairs = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


class Modes(NamedTuple):
    """Body modes of a stream, numbers of ``BodySendMode``."""

    request: int
    response: int


NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX, GRPC = range(6)
DUPLEX = Modes(FULL_DUPLEX, FULL_DUPLEX)


# ── messages ──


def request_headers(
    extra: HeaderPairs = (),
    *,
    end: bool = False,
    path: str = "/v1/completions",
    method: str = "POST",
    content_type: str = "application/json",
    request_id: str | None = "test-request-id",
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> Message:
    """``reqH`` with the headers of the fixture; what is in ``extra`` comes behind them."""
    pairs: list[tuple[str, str | bytes]] = [(":method", method), (":path", path), ("content-type", content_type), ("hi", "mom")]
    if request_id is not None:
        pairs.append(("x-request-id", request_id))
    pairs += extra.items() if isinstance(extra, Mapping) else extra
    message = Message(request_headers=pb.HttpHeaders(headers=_header_map(pairs), end_of_stream=end))
    return with_metadata(message, metadata) if metadata is not None else message


def request_body(data: bytes | str, *, end: bool = True) -> Message:
    """``reqB``, by default with the end flag."""
    return Message(request_body=pb.HttpBody(body=_bytes(data), end_of_stream=end))


def request_trailers() -> Message:
    """``reqT``."""
    return Message(request_trailers=pb.HttpTrailers())


def response_headers(
    extra: HeaderPairs = (),
    *,
    status: int = 200,
    content_type: str = "application/json",
    end: bool = False,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> Message:
    """``rspH``."""
    pairs: list[tuple[str, str | bytes]] = [(":status", str(status)), ("content-type", content_type)]
    pairs += extra.items() if isinstance(extra, Mapping) else extra
    message = Message(response_headers=pb.HttpHeaders(headers=_header_map(pairs), end_of_stream=end))
    return with_metadata(message, metadata) if metadata is not None else message


def response_body(data: bytes | str, *, end: bool = True) -> Message:
    """``rspB``, by default with the end flag."""
    return Message(response_body=pb.HttpBody(body=_bytes(data), end_of_stream=end))


def response_trailers() -> Message:
    """``rspT``."""
    return Message(response_trailers=pb.HttpTrailers())


def with_metadata(message: Message, metadata: Mapping[str, Mapping[str, Any]]) -> Message:
    """The message with this dynamic metadata."""
    for namespace, values in metadata.items():
        message.metadata_context.filter_metadata[namespace].CopyFrom(json_format.ParseDict(dict(values), struct_pb2.Struct()))
    return message


def subset(hint: object) -> dict[str, dict[str, object]]:
    """The metadata by which a data plane restricts the choice."""
    return {SUBSET_NAMESPACE: {"x-gateway-destination-endpoint-subset": hint}}


def std_body(model: str, prompt: str) -> bytes:
    """The request body of the fixture."""
    document = {"max_tokens": 100, "model": model, "prompt": prompt, "temperature": 0}
    return json.dumps(document, separators=(",", ":")).encode()


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in chunks of ``size`` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _header_map(pairs: Iterable[tuple[str, str | bytes]]) -> base_pb2.HeaderMap:
    """Headers as Envoy sends them: in ``raw_value``."""
    return base_pb2.HeaderMap(headers=[base_pb2.HeaderValue(key=name, raw_value=_bytes(value)) for name, value in pairs])


# ── answers ──


@dataclass(frozen=True, slots=True)
class Answer:
    """One ``ProcessingResponse``."""

    kind: str
    """Name of the field: ``request_headers`` and so on."""
    set: tuple[tuple[str, str], ...] = ()
    removed: frozenset[str] = frozenset()
    clear_route_cache: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    """A streamed piece, or what replaces a body; None = the body stays as it is."""
    end: bool | None = None
    """End flag of a streamed piece; None if this is none."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that are set, none of them twice."""
        headers = dict(self.set)
        assert len(headers) == len(self.set), f"a header is set twice: {self.set}"
        return headers


@dataclass(frozen=True, slots=True)
class Routed:
    """The answer to a whole request."""

    target: str
    """Value of the destination header and of the metadata."""
    body: bytes
    headers: Answer
    pieces: tuple[int, ...]
    """Sizes of the body answers."""

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ``ImmediateResponse``."""

    status: int
    body: bytes
    headers: dict[str, str]
    grpc_status: int | None
    details: str

    @property
    def message(self) -> str:
        """The text for the client, wherever the shape of the API puts it."""
        if self.headers.get("content-type") != "application/json":
            return self.body.decode()
        message: str = json.loads(self.body)["error"]["message"]
        return message

    @property
    def reason(self) -> str | None:
        """Why the request was dropped."""
        return self.headers.get(DROPPED_REASON)


def _answer(message: pb.ProcessingResponse) -> Answer:
    kind = message.WhichOneof("response")
    assert kind is not None, "an answer without content"
    assert not message.HasField("mode_override")
    assert not message.HasField("override_message_timeout")
    metadata = json_format.MessageToDict(message.dynamic_metadata) if message.HasField("dynamic_metadata") else {}
    if kind.endswith("trailers") or kind == "immediate_response":
        return Answer(kind, metadata=metadata)
    common = getattr(message, kind).response
    mutation = common.body_mutation
    which = mutation.WhichOneof("mutation")
    streamed = mutation.streamed_response if which == "streamed_response" else None
    bodies = {"streamed_response": streamed.body if streamed is not None else None, "body": mutation.body, "clear_body": b""}
    return Answer(
        kind,
        _set_headers(common.header_mutation),
        frozenset(common.header_mutation.remove_headers),
        common.clear_route_cache,
        metadata,
        bodies.get(which),
        streamed.end_of_stream if streamed is not None else None,
    )


def _set_headers(mutation: Any) -> tuple[tuple[str, str], ...]:
    for option in mutation.set_headers:
        assert not option.header.value, "both value and raw_value may not be set: we use raw_value"
    return tuple((o.header.key, o.header.raw_value.decode("utf-8", "surrogateescape")) for o in mutation.set_headers)


def _serialized(message: Message | bytes) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


class Stream:
    """One ext_proc stream, as a data plane sees it.

    Args:
        channel: to the picker.
        modes: sent as ``protocol_config`` with the first message; None sends none.
        observed: ``observability_mode``.
    """

    def __init__(self, channel: aio.Channel, modes: Modes | None = DUPLEX, *, observed: bool = False) -> None:
        method = channel.stream_stream(
            METHOD,
            request_serializer=_serialized,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        self.call = method()
        self._modes = modes
        self._observed = observed
        self._first = True

    async def send(self, *messages: Message | bytes) -> Self:
        """Write messages; bytes are sent as they are."""
        for message in messages:
            if self._first and not isinstance(message, bytes):
                message = self._opening(message)
            self._first = False
            await self.call.write(message)
        return self

    def _opening(self, message: Message) -> Message:
        """The message as the first of this stream; a copy, because tests share their messages."""
        first = Message(observability_mode=self._observed)
        first.MergeFrom(message)
        if self._modes is not None:
            first.protocol_config.request_body_mode, first.protocol_config.response_body_mode = self._modes
            first.protocol_config.SetInParent()
        return first

    async def raw(self) -> pb.ProcessingResponse | None:
        """The next message as it came; None if the stream is over."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            message = await self.call.read()
        return None if message is aio.EOF else message

    async def answer(self, kind: str) -> Answer:
        """The next answer, which must be of this kind."""
        message = await self.raw()
        assert message is not None, f"no {kind}, the stream ended with {await self.call.code()}: {await self.call.details()}"
        answer = _answer(message)
        assert answer.kind == kind, f"expected {kind}, got {answer}: {message.immediate_response.body!r}"
        return answer

    async def routed(self, *, trailers: bool = False) -> Routed:
        """The whole answer to a request in full duplex: headers, pieces of the body, trailers if the request had some.

        Checks what holds for every route: one destination, the same in header and metadata; legal pieces; one end.
        """
        headers = await self.answer("request_headers")
        target = check_route(headers)
        pieces, ended = [], False
        while not ended:
            message = await self.raw()
            assert message is not None, "the stream ended within the body"
            piece = _answer(message)
            if trailers and piece.kind == "request_trailers":
                break
            assert piece.kind == "request_body"
            assert piece.body is not None
            assert piece.end is not None
            assert len(piece.body) <= MAX_PIECE_BYTES
            assert not piece.set
            assert not piece.removed
            ended = piece.end
            pieces.append(piece.body)
        assert pieces, "no answer to the body"
        return Routed(target, b"".join(pieces), headers, tuple(map(len, pieces)))

    async def refused(self) -> Refusal:
        """An immediate response, and the end of the stream."""
        message = await self.raw()
        assert message is not None, f"no answer, the stream ended with {await self.call.code()}"
        assert message.WhichOneof("response") == "immediate_response", f"expected an immediate response, got {message}"
        await self.ends()
        reply = message.immediate_response
        grpc_status = reply.grpc_status.status if reply.HasField("grpc_status") else None
        return Refusal(reply.status.code, reply.body, dict(_set_headers(reply.headers)), grpc_status, reply.details)

    async def response_body(self, *, end: bool = True, trailers: bool = False) -> tuple[bytes, dict[str, Any]]:
        """All body answers up to the end, and the metadata of the last one."""
        pieces: list[bytes] = []
        metadata: dict[str, Any] = {}
        while True:
            message = await self.raw()
            assert message is not None, "the stream ended within the response body"
            answer = _answer(message)
            if trailers and answer.kind == "response_trailers":
                return b"".join(pieces), answer.metadata
            assert answer.kind == "response_body"
            assert answer.body is not None
            assert len(answer.body) <= MAX_PIECE_BYTES
            assert not metadata, "metadata is not on the last answer"
            pieces.append(answer.body)
            metadata = answer.metadata
            if answer.end:
                assert end, "an end flag although trailers follow"
                return b"".join(pieces), metadata

    async def half_close(self) -> None:
        """Say that nothing more will be sent."""
        await self.call.done_writing()

    def cancel(self) -> None:
        """Reset the stream."""
        self.call.cancel()

    async def ends(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """Nothing more comes, and the stream ends with this code."""
        with contextlib.suppress(aio.AioRpcError):  # says again how it ended
            message = await self.raw()
            assert message is None, f"unexpected: {message}"
        actual = await self.call.code()
        assert actual is code, f"{actual}: {await self.call.details()}"

    async def closes(self) -> None:
        """The data plane half-closes; nothing more comes and the stream ends well."""
        await self.half_close()
        await self.ends()


def check_route(answer: Answer) -> str:
    """What every routing answer must hold.

    Returns:
        The destination.
    """
    assert answer.clear_route_cache
    assert answer.set
    name, target = answer.set[0]
    assert name == DESTINATION
    assert DESTINATION not in answer.removed
    assert answer.metadata["envoy.lb"][DESTINATION] == target
    assert not set(answer.headers) & answer.removed
    return target


async def respond(stream: Stream, *messages: Message) -> list[Answer]:
    """Send messages of a response one by one, each answered before the next is sent."""
    answers = []
    for message in messages:
        await stream.send(message)
        answers.append(await stream.answer(str(message.WhichOneof("request"))))
    return answers


async def see_response(stream: Stream) -> None:
    """Send a whole response behind a routed request: its answer is what comes next, then the end. Nothing else was sent."""
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()


def json_response(document: Mapping[str, Any] | None = None, chunks: int = 1) -> Sequence[Message]:
    """A whole JSON response."""
    data = json.dumps(document if document is not None else {"id": "1", "object": "text_completion"}).encode()
    size = -(-len(data) // chunks)
    return [response_headers(), *[response_body(part, end=False) for part in cut(data, size)], response_body(b"")]
