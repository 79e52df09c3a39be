"""Calls of Vertex AI's prediction service."""

from __future__ import annotations

import json

import pytest

from epp.errors import RequestError
from epp.framework.testing import FakeHeaders, make_plugin
from epp.framework.types import Api, ErrorShape, ParsedBody
from plugins.parsers import vertexai
from tests.unit.parsers.reading import parse, refused
from tests.unit.protobuf import field, frame, http_body

V1, BETA = (f"/google.cloud.aiplatform.{version}.PredictionService" for version in ("v1", "v1beta1"))
CHAT: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "stream": True}
parser = make_plugin(vertexai.PLUGIN)


def call(document: object, *, endpoint: bytes = field(1, "projects/p/endpoints/e")) -> bytes:
    return frame(endpoint + field(2, http_body(json.dumps(document).encode())))


def check(read: ParsedBody) -> None:
    assert (read.rewritable, read.usage_reader, read.error_shape) == (False, "vertexai-usage", ErrorShape.PLAIN)


@pytest.mark.parametrize("service", [V1, BETA])
def test_chat_completions(service: str) -> None:
    read = parse(parser, f"{service}/ChatCompletions", call(CHAT))
    assert (read.api, read.model, read.streams, read.output_cap, read.document) == (Api.CHAT, "m", True, 5, CHAT)
    check(read)


@pytest.mark.parametrize("method", ["RawPredict", "StreamRawPredict"])
def test_raw_predictions_are_responses(method: str) -> None:
    document = {"model": "m", "input": "x"}
    read = parse(parser, f"{BETA}/{method}", call(document))
    assert (read.api, read.document, read.streams) == (Api.RESPONSES, document, False)
    check(read)


def test_a_message_in_two_parts() -> None:
    data = json.dumps(CHAT).encode()
    body = frame(field(2, field(1, "application/json")) + field(2, field(2, data)))
    assert parse(parser, f"{BETA}/ChatCompletions", body).document == CHAT


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        pytest.param("ChatCompletions", b"", "invalid or unsupported gRPC payload: the frame is cut off", id="empty"),
        pytest.param(
            "RawPredict",
            frame(b"\x12\x05"),
            "invalid or unsupported gRPC payload: the message is no RawPredictRequest",
            id="no message",
        ),
        pytest.param("ChatCompletions", frame(field(1, "e")), "ChatCompletionsRequest has no HttpBody", id="no HttpBody"),
        pytest.param(
            "ChatCompletions",
            call({"messages": []}),
            "parsing ChatCompletionsRequest: invalid chat completions request: must have valid messages field: "
            "messages is missing or empty",
            id="refused JSON",
        ),
        pytest.param(
            "StreamRawPredict",
            call({}),
            "parsing StreamRawPredictRequest: invalid responses request: must have input field: input is missing or empty",
            id="no input",
        ),
    ],
)
def test_refused(method: str, body: bytes, message: str) -> None:
    assert refused(parser, f"{BETA}/{method}", body) == message


def test_no_json() -> None:
    body = frame(field(2, field(1, "application/json")))
    assert refused(parser, f"{BETA}/ChatCompletions", body).startswith(
        "parsing ChatCompletionsRequest: error unmarshaling request bodyMap"
    )


def test_a_compressed_message_is_unimplemented() -> None:
    with pytest.raises(RequestError) as caught:
        parser.parse(f"{BETA}/RawPredict", FakeHeaders({"grpc-encoding": "gzip"}), memoryview(frame(b"", flag=1)))
    assert caught.value.code.grpc_status == 12
    assert "the message is compressed (grpc-encoding: gzip)" in caught.value.message
