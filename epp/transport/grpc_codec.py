"""Protobuf ↔ the machine's messages, both ways; decides nothing.

Source: envoyproxy/envoy: api/envoy/service/ext_proc/v3/external_processor.proto
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Mapping
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.type.v3 import http_status_pb2
from google.protobuf.message import DecodeError

from epp.extproc.answers import (
    REQUEST_BODY_PASS,
    REQUEST_HEADERS_PASS,
    REQUEST_TRAILERS_PASS,
    RESPONSE_BODY_PASS,
    RESPONSE_TRAILERS_PASS,
    Rules,
)
from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Incoming,
    Invalid,
    Mode,
    Opening,
    Outgoing,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBody,
    TrailersAnswer,
)
from epp.seam import Metadata, Pairs, Reply

_MODES = frozenset(Mode)


class ProtoHeaders:
    """Headers of a message, indexed on first use and decoded on access; implements ``messages.WireHeaders``.

    Proxies differ: Envoy fills ``raw_value``, others ``value``; some keep the client's spelling of names.
    """

    __slots__ = ("_headers", "_index")

    def __init__(self, headers: Any) -> None:
        self._headers = headers
        self._index: dict[str, Any] | None = None

    def get(self, name: str) -> str | None:
        """The last value of ``name`` (lower case), or None."""
        header = self._indexed().get(name)
        return None if header is None else _value(header)

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs in wire order, names lower-cased, duplicates kept."""
        return ((header.key.lower(), _value(header)) for header in self._headers)

    def names(self) -> KeysView[str]:
        """All names, lower case."""
        return self._indexed().keys()

    def _indexed(self) -> dict[str, Any]:
        if self._index is None:
            self._index = {header.key.lower(): header for header in self._headers}
        return self._index


def _value(header: Any) -> str:
    raw: bytes = header.raw_value
    if raw:
        return raw.decode("utf-8", "surrogateescape")
    value: str = header.value
    return value


class ProtoMetadata(Mapping[str, Mapping[str, object]]):
    """Dynamic metadata, converted on access."""

    __slots__ = ("_structs",)

    def __init__(self, structs: Any) -> None:
        self._structs = structs

    def __getitem__(self, namespace: str) -> Mapping[str, object]:
        if namespace not in self._structs:
            raise KeyError(namespace)
        return _plain_struct(self._structs[namespace])

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: Any) -> dict[str, object]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Any) -> object:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    plain: object = getattr(value, kind)
    return plain


# ── received ──


def parse(data: bytes) -> Any | None:
    """The ``ProcessingRequest`` in ``data``, or None if there is none."""
    try:
        return pb.ProcessingRequest.FromString(data)
    except DecodeError:
        return None


def opening(message: Any | None) -> Opening:
    """What the first message of a stream says about it."""
    if message is None or not message.HasField("protocol_config"):
        return Opening(observed=message is not None and message.observability_mode)
    config = message.protocol_config
    return Opening(_mode(config.request_body_mode), _mode(config.response_body_mode), True, message.observability_mode)


def _mode(number: int) -> Mode:
    """Modes that do not exist yet are taken for the one that needs the most answers."""
    return Mode(number) if number in _MODES else Mode.FULL_DUPLEX


def incoming(message: Any | None) -> Incoming:
    """The machine's form of a ``ProcessingRequest``."""
    if message is None:
        return Invalid("the message is not a ProcessingRequest")
    kind: str | None = message.WhichOneof("request")
    if kind is None:
        return Invalid("the ProcessingRequest has no content of a known kind")
    return _INCOMING[kind](message)


def _metadata(message: Any) -> Metadata | None:
    if not message.HasField("metadata_context"):
        return None
    structs = message.metadata_context.filter_metadata
    return ProtoMetadata(structs) if structs else None


def _request_headers(message: Any) -> Incoming:
    part = message.request_headers
    return RequestHeaders(ProtoHeaders(part.headers.headers), part.end_of_stream, _metadata(message))


def _request_body(message: Any) -> Incoming:
    part = message.request_body
    end = part.end_of_stream or part.end_of_stream_without_message
    return RequestBody(part.body, end, _metadata(message), part.grpc_message_compressed, part.end_of_stream_without_message)


def _request_trailers(message: Any) -> Incoming:
    return RequestTrailers(_metadata(message))


def _response_headers(message: Any) -> Incoming:
    part = message.response_headers
    return ResponseHeaders(ProtoHeaders(part.headers.headers), part.end_of_stream, _metadata(message))


def _response_body(message: Any) -> Incoming:
    part = message.response_body
    end = part.end_of_stream or part.end_of_stream_without_message
    return ResponseBody(part.body, end, part.grpc_message_compressed, part.end_of_stream_without_message)


def _response_trailers(_message: Any) -> Incoming:
    return ResponseTrailers()


_INCOMING: dict[str, Callable[[Any], Incoming]] = {
    "request_headers": _request_headers,
    "request_body": _request_body,
    "request_trailers": _request_trailers,
    "response_headers": _response_headers,
    "response_body": _response_body,
    "response_trailers": _response_trailers,
}


# ── sent ──


class Encoder:
    """Serializes answers; the ones that are always the same only once.

    Args:
        rules: the settings whose plain answer to response headers is one of these.
    """

    __slots__ = ("_constants", "_rules")

    def __init__(self, rules: Rules) -> None:
        constants = (
            REQUEST_HEADERS_PASS,
            REQUEST_BODY_PASS,
            REQUEST_TRAILERS_PASS,
            RESPONSE_BODY_PASS,
            RESPONSE_TRAILERS_PASS,
            rules.plain_response,
        )
        self._rules = rules  # keeps the objects, whose identity is the key
        self._constants = {id(answer): _serialized(_message(answer)) for answer in constants}

    def encode(self, answer: Outgoing) -> bytes:
        """The ``ProcessingResponse`` to send."""
        if isinstance(answer, StreamedBody):
            return _piece(answer)
        constant = self._constants.get(id(answer))
        if constant is not None:
            return constant
        if isinstance(answer, Immediate):
            return _serialized(pb.ProcessingResponse(immediate_response=_immediate(answer.reply)))
        return _serialized(_message(answer))


def _piece(answer: StreamedBody) -> bytes:
    """A piece of a body. The message is a new one each time: one that is filled again keeps all it ever held in its arena."""
    message = pb.ProcessingResponse()
    part = message.response_body if answer.response else message.request_body
    body, data = part.response.body_mutation.streamed_response, answer.data
    body.SetInParent()
    body.body = data if isinstance(data, bytes) else bytes(data)
    if answer.end:
        body.end_of_stream = True
    if answer.compressed:
        body.grpc_message_compressed = True
    if answer.without_message:
        body.end_of_stream_without_message = True
    if answer.metadata:
        _fill_metadata(message.dynamic_metadata, answer.metadata)
    return _serialized(message)


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _message(answer: HeadersAnswer | BodyAnswer | TrailersAnswer) -> Any:
    message = pb.ProcessingResponse()
    side = "response" if answer.response else "request"
    if isinstance(answer, TrailersAnswer):
        getattr(message, f"{side}_trailers").SetInParent()
    else:
        kind = "headers" if isinstance(answer, HeadersAnswer) else "body"
        part = getattr(message, f"{side}_{kind}")
        part.SetInParent()
        _fill_common(part, answer)
    if answer.metadata:
        _fill_metadata(message.dynamic_metadata, answer.metadata)
    return message


def _fill_common(part: Any, answer: HeadersAnswer | BodyAnswer) -> None:
    if answer.clear_route_cache:
        part.response.clear_route_cache = True
    if answer.set or answer.remove:
        _mutate(part.response.header_mutation, answer.set, answer.remove)
    if isinstance(answer, HeadersAnswer) or answer.body is None:
        return
    if len(answer.body):
        part.response.body_mutation.body = bytes(answer.body)
    else:
        part.response.body_mutation.clear_body = True


def _mutate(mutation: Any, pairs: Pairs, remove: tuple[str, ...] = ()) -> None:
    for name, value in pairs:
        option = mutation.set_headers.add()
        option.header.key = name
        option.header.raw_value = value.encode("utf-8", "surrogateescape")
    if remove:
        mutation.remove_headers.extend(remove)


def _fill_metadata(struct: Any, metadata: Metadata) -> None:
    for namespace, values in metadata.items():
        inner = struct.fields[namespace].struct_value
        inner.SetInParent()
        for key, value in values.items():
            if isinstance(value, str):
                inner.fields[key].string_value = value
            else:
                inner[key] = value


def _immediate(reply: Reply) -> Any:
    message = pb.ImmediateResponse(
        status=http_status_pb2.HttpStatus(code=reply.status),
        body=reply.body,
        details=reply.details,
    )
    _mutate(message.headers, reply.headers)
    if reply.grpc_status is not None:
        message.grpc_status.status = reply.grpc_status
    return message
