"""vertexai-parser: Vertex AI's gRPC prediction service."""

from __future__ import annotations

from dataclasses import replace

from epp.errors import RequestError
from epp.framework.grpc_frames import FrameError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import ErrorShape, HeaderView, ParsedBody
from plugins.parsers.grpc_message import UNREADABLE, read_message
from plugins.parsers.json_body import bad_request
from plugins.parsers.openai import OpenAIParser

TYPE = "vertexai-parser"
SERVICES = ("google.cloud.aiplatform.v1.PredictionService", "google.cloud.aiplatform.v1beta1.PredictionService")
METHODS = {
    "ChatCompletions": "/v1/chat/completions",
    "RawPredict": "/v1/responses",
    "StreamRawPredict": "/v1/responses",
}
"""Method → path of the OpenAI API whose JSON it carries."""


class VertexAIParser:
    """Read calls of the service ``PredictionService`` that carry OpenAI's JSON in an HttpBody.

    Parameters: none.
    Claims: ChatCompletions, RawPredict and StreamRawPredict of the versions v1 and v1beta1.
    Shows: ChatCompletions as chat completions, the others as responses, as ``openai-parser`` reads them. The body is forwarded
        as it came: a model name is read and never replaced.
    Errors: 400 where the body is not one message with an HttpBody, or its JSON is refused; 415 (UNIMPLEMENTED) where it is
        compressed.
    Source: googleapis: google/cloud/aiplatform/v1beta1/prediction_service.proto; llm-d-router:
        pkg/epp/framework/plugins/requesthandling/parsers/vertexai/vertexai.go
    """

    paths = tuple(f"{service}/{method}" for service in SERVICES for method in METHODS)
    app_protocols = ("kubernetes.io/h2c",)

    def __init__(self) -> None:
        from google.protobuf.message import DecodeError

        from epp.framework.protos.vertexai_pb2 import PredictRequest

        self._openai = OpenAIParser()
        self._request = PredictRequest
        self._malformed = DecodeError

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE.
        """
        method = path.rpartition("/")[2]
        try:
            message = self._request.FromString(bytes(read_message(headers, body)))
        except FrameError as error:
            raise bad_request(f"{UNREADABLE}: {error}") from error
        except self._malformed as error:
            raise bad_request(f"{UNREADABLE}: the message is no {method}Request") from error
        if not message.HasField("http_body"):
            raise bad_request(f"{method}Request has no HttpBody")
        document = memoryview(message.http_body.data)
        try:
            read = self._openai.parse(METHODS[method], headers, document)
        except RequestError as error:
            raise bad_request(f"parsing {method}Request: {error.message}") from error
        return replace(read, rewritable=False, usage_reader="vertexai-usage", document_reader="", error_shape=ErrorShape.PLAIN)


def _create(context: PluginContext, params: NoParams) -> Parser:
    return VertexAIParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads ChatCompletions, RawPredict and StreamRawPredict calls of Vertex AI's prediction service.",
    factory=_create,
)
