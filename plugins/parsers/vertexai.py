"""vertexai-parser: Vertex AI's gRPC prediction service."""

from __future__ import annotations

from dataclasses import replace

from epp.errors import RequestError
from epp.framework.grpc_wire import WireError, fields
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

# Field numbers of google/cloud/aiplatform/v1beta1/prediction_service.proto and google/api/httpbody.proto.
_HTTP_BODY = 2
_DATA = 2


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
        self._openai = OpenAIParser()

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE.
        """
        method = path.rpartition("/")[2]
        try:
            document = _http_body(read_message(headers, body))
        except WireError as error:
            raise bad_request(f"{UNREADABLE}: {error}") from error
        if document is None:
            raise bad_request(f"{method}Request has no HttpBody")
        try:
            read = self._openai.parse(METHODS[method], headers, document)
        except RequestError as error:
            raise bad_request(f"parsing {method}Request: {error.message}") from error
        return replace(read, rewritable=False, usage_reader="vertexai-usage", document_reader="", error_shape=ErrorShape.PLAIN)


def _http_body(message: memoryview) -> memoryview | None:
    """The data of the HttpBody; None if there is none. The parts of a message that comes in parts are one."""
    parts = [value for number, value in fields(message) if number == _HTTP_BODY and isinstance(value, memoryview)]
    if not parts:
        return None
    wrapped = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    data = memoryview(b"")
    for number, value in fields(wrapped):
        if number == _DATA and isinstance(value, memoryview):
            data = value
    return data


def _create(context: PluginContext, params: NoParams) -> Parser:
    return VertexAIParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads ChatCompletions, RawPredict and StreamRawPredict calls of Vertex AI's prediction service.",
    factory=_create,
)
