"""The codec where the transcripts cannot reach: odd headers, metadata values, equality with protobuf's own encoding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from epp.extproc.answers import Rules
from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Invalid,
    Mode,
    Opening,
    Outgoing,
    RequestBody,
    RequestHeaders,
    StreamedBody,
    TrailersAnswer,
    WireHeaders,
)
from epp.seam import Reply, Settings
from epp.transport import grpc_codec
from tests.extproc.wire import from_wire
from tests.transport.transports import HAS_NATIVE


def _python(data: bytes) -> WireHeaders:
    decoded = grpc_codec.incoming(grpc_codec.parse(data))
    assert isinstance(decoded, RequestHeaders)
    return decoded.headers


CODECS: dict[str, Callable[[bytes], WireHeaders]] = {"grpcio": _python}

if HAS_NATIVE:
    from epp_native import Machine

    def _native(data: bytes) -> WireHeaders:
        [(kind, request)] = Machine(Settings()).feed(data, 0.0)
        assert kind == "request"
        headers: WireHeaders = request.headers  # type: ignore[attr-defined]
        return headers

    CODECS["native"] = _native


@pytest.fixture(params=CODECS)
def decode(request: pytest.FixtureRequest) -> Callable[..., WireHeaders]:
    """Gives the request headers with these entries as a codec shows them."""

    def decoded(*entries: dict[str, object]) -> WireHeaders:
        message = pb.ProcessingRequest()
        message.request_headers.end_of_stream = True
        for entry in entries:
            message.request_headers.headers.headers.add(**entry)
        return CODECS[request.param](message.SerializeToString())

    return decoded


@pytest.mark.parametrize(
    ("entries", "value"),
    [
        pytest.param([{"key": "x", "raw_value": b"raw"}], "raw", id="raw"),
        pytest.param([{"key": "x", "value": "text"}], "text", id="text"),
        pytest.param([{"key": "x", "value": "wrong-id", "raw_value": b"binary-id"}], "binary-id", id="C22 raw wins"),
        pytest.param([{"key": "x"}], "", id="both empty"),
        pytest.param([{"key": "X", "value": "v"}], "v", id="C23 spelling of the client"),
        pytest.param([{"key": "x", "value": "a"}, {"key": "x", "value": "b"}], "b", id="the last counts"),
        pytest.param([{"key": "x", "raw_value": b"\xff\xe4"}], "\udcff\udce4", id="not UTF-8"),
        pytest.param([{"key": "x", "raw_value": "ä".encode()}], "ä", id="UTF-8"),
        pytest.param([], None, id="absent"),
    ],
)
def test_header_values(decode: Callable[..., WireHeaders], entries: list[dict[str, object]], value: str | None) -> None:
    assert decode(*entries).get("x") == value


def test_headers_keep_order_and_duplicates(decode: Callable[..., WireHeaders]) -> None:
    headers = decode({"key": "B", "value": "1"}, {"key": "a", "value": "2"}, {"key": "b", "value": "3"})
    assert list(headers.items()) == [("b", "1"), ("a", "2"), ("b", "3")]
    assert set(headers.names()) == {"a", "b"}


def test_odd_bytes_survive_the_way_back(decode: Callable[..., WireHeaders]) -> None:
    value = decode({"key": "x", "raw_value": b"\xff\xe4"}).get("x")
    assert value is not None
    data = grpc_codec.Encoder(Rules(Settings())).encode(HeadersAnswer(False, (("x", value),)))
    message = pb.ProcessingResponse.FromString(data)
    assert message.request_headers.response.header_mutation.set_headers[0].header.raw_value == b"\xff\xe4"


def test_metadata_is_plain_python() -> None:
    message = pb.ProcessingRequest()
    message.request_body.body = b"x"
    values = {"s": "t", "n": 1.5, "b": True, "z": None, "l": ["a", 1.0, {"d": []}], "o": {"k": {}}}
    message.metadata_context.filter_metadata["envoy.lb"].update(values)
    body = grpc_codec.incoming(message)
    assert isinstance(body, RequestBody)
    assert body.metadata is not None
    assert dict(body.metadata) == {"envoy.lb": values}
    assert body.metadata.get("other") is None
    assert len(body.metadata) == 1


def test_empty_metadata_is_none() -> None:
    message = pb.ProcessingRequest()
    message.request_body.body = b"x"
    message.metadata_context.SetInParent()
    body = grpc_codec.incoming(message)
    assert isinstance(body, RequestBody)
    assert body.metadata is None


@pytest.mark.parametrize(
    ("config", "opening"),
    [
        pytest.param(None, Opening(Mode.FULL_DUPLEX, Mode.FULL_DUPLEX, configured=False), id="absent: full duplex"),
        pytest.param((0, 0), Opening(Mode.NONE, Mode.NONE, configured=True), id="present but empty: none"),
        pytest.param((2, 4), Opening(Mode.BUFFERED, Mode.FULL_DUPLEX, configured=True), id="mixed"),
        pytest.param((99, 1), Opening(Mode.FULL_DUPLEX, Mode.STREAMED, configured=True), id="unknown mode"),
    ],
)
def test_opening(config: tuple[int, int] | None, opening: Opening) -> None:
    message = pb.ProcessingRequest()
    if config is not None:
        message.protocol_config.SetInParent()
        message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = config
    assert grpc_codec.opening(grpc_codec.parse(message.SerializeToString())) == opening


@pytest.mark.parametrize("data", [b"\xff", b""], ids=["garbage", "no content"])
def test_not_a_request(data: bytes) -> None:
    assert isinstance(grpc_codec.incoming(grpc_codec.parse(data)), Invalid)


ANSWERS: list[Outgoing] = [
    HeadersAnswer(False),
    HeadersAnswer(True, (("a", "b"),), ("c", "d"), metadata={"n": {"s": "t", "x": [1.0, {"y": None}], "f": 2.0, "e": {}}}),
    HeadersAnswer(False, clear_route_cache=True, metadata={"n": {}}),
    BodyAnswer(False),
    BodyAnswer(True, body=b"new"),
    BodyAnswer(False, (("content-length", "3"),), ("x",), True, {"n": {"k": "v"}}, memoryview(b"new")),
    StreamedBody(False, b""),
    StreamedBody(False, b"", True),
    StreamedBody(True, b"data", True, {"n": {"k": "v"}}),
    StreamedBody(True, memoryview(b"data")),
    StreamedBody(True, b"m", compressed=True),
    StreamedBody(False, b"", True, without_message=True),
    TrailersAnswer(False),
    TrailersAnswer(True, {"n": {"k": False}}),
    Immediate(Reply(429, b"no", (("a", "b"),), 8, "why")),
    Immediate(Reply(503, b"")),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answers_survive_protobuf(answer: Outgoing) -> None:
    encoder = grpc_codec.Encoder(Rules(Settings()))
    for other in ANSWERS:
        encoder.encode(other)
    assert from_wire(encoder.encode(answer)) == answer


def test_a_body_replaced_by_nothing_is_cleared() -> None:
    data = grpc_codec.Encoder(Rules(Settings())).encode(BodyAnswer(True, body=b""))
    assert pb.ProcessingResponse.FromString(data).response_body.response.body_mutation.clear_body


def test_constant_answers_are_serialized_once() -> None:
    rules = Rules(Settings(response_set=(("a", "b"),)))
    encoder = grpc_codec.Encoder(rules)
    assert encoder.encode(rules.plain_response) is encoder.encode(rules.plain_response)
    assert from_wire(encoder.encode(rules.plain_response)) == rules.plain_response
