"""What a client is told when its request is refused: status, body in the shape of its API, headers.

Source: protocol decisions D2 and D14; error shapes of the OpenAI and Anthropic APIs.
"""

from __future__ import annotations

import re

import orjson

from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.types import ErrorShape
from epp.request.headers import CONTENT_TYPE, DROPPED_REASON, clean_value
from epp.seam import Headers, Reply

_OPENAI_TYPE = {
    ErrorCode.BAD_REQUEST: "invalid_request_error",
    ErrorCode.UNAUTHORIZED: "authentication_error",
    ErrorCode.FORBIDDEN: "permission_error",
    ErrorCode.NOT_FOUND: "not_found_error",
    ErrorCode.REQUEST_TIMEOUT: "timeout_error",
    ErrorCode.PRECONDITION_FAILED: "invalid_request_error",
    ErrorCode.PAYLOAD_TOO_LARGE: "invalid_request_error",
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: "invalid_request_error",
    ErrorCode.RESOURCE_EXHAUSTED: "rate_limit_error",
    ErrorCode.SERVICE_UNAVAILABLE: "service_unavailable_error",
}
_ANTHROPIC_TYPE = {
    ErrorCode.BAD_REQUEST: "invalid_request_error",
    ErrorCode.UNAUTHORIZED: "authentication_error",
    ErrorCode.FORBIDDEN: "permission_error",
    ErrorCode.NOT_FOUND: "not_found_error",
    ErrorCode.REQUEST_TIMEOUT: "timeout_error",
    ErrorCode.PRECONDITION_FAILED: "invalid_request_error",
    ErrorCode.PAYLOAD_TOO_LARGE: "request_too_large",
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: "invalid_request_error",
    ErrorCode.RESOURCE_EXHAUSTED: "rate_limit_error",
    ErrorCode.SERVICE_UNAVAILABLE: "overloaded_error",
}
_OPENAI_PATH = re.compile(
    r"/v1/|(?:^|/)(?:completions(?:/render)?|embeddings|responses|conversations|images/(?:generations|edits|variations)"
    r"|rerank|score|pooling|classify|tokenize|detokenize|audio/(?:speech|transcriptions|translations))$"
)
_ANTHROPIC_PATH = re.compile(r"(?:^|/)messages(?:/count_tokens)?$")
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON = (CONTENT_TYPE, "application/json")
_TEXT = (CONTENT_TYPE, "text/plain; charset=utf-8")


def is_grpc(headers: Headers) -> bool:
    """The client speaks gRPC."""
    return (headers.get(CONTENT_TYPE) or "").lower().startswith("application/grpc")


def error_shape(path: str, headers: Headers) -> ErrorShape:
    """The shape that a client of ``path`` (without query) can read."""
    if is_grpc(headers):
        return ErrorShape.PLAIN
    path = path.strip("/ ")
    if _ANTHROPIC_PATH.search(path) or headers.get("anthropic-version") is not None:
        return ErrorShape.ANTHROPIC
    return ErrorShape.OPENAI if _OPENAI_PATH.search(f"/{path}") else ErrorShape.PLAIN


EVICTED = RequestError(ErrorCode.RESOURCE_EXHAUSTED, "request evicted by flow control", DropReason.EVICTED)


def evicted(shape: ErrorShape, *, grpc: bool = False) -> Reply:
    """What ends a running request; as upstream, without the usual beginning of the text (C94)."""
    return refusal(EVICTED, shape, grpc=grpc, text=EVICTED.message)


def refusal(error: RequestError, shape: ErrorShape, *, grpc: bool = False, text: str = "") -> Reply:
    """The answer to a request that is refused.

    Args:
        text: in place of what the error says.
    """
    message = _SURROGATE.sub("\ufffd", text or str(error))  # it may repeat a path or a header with bytes that are not UTF-8
    if shape is ErrorShape.OPENAI:
        kind = _OPENAI_TYPE.get(error.code, "server_error")
        body = orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": error.code.value}})
    elif shape is ErrorShape.ANTHROPIC:
        kind = _ANTHROPIC_TYPE.get(error.code, "api_error")
        body = orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
    else:
        body = message.encode()
    headers = [_TEXT if shape is ErrorShape.PLAIN else _JSON]
    if error.reason is not None:
        headers.append((DROPPED_REASON, error.reason.value))
    headers.extend((name.lower(), value) for name, value in error.headers if clean_value(value))
    return Reply(
        status=error.code.http_status,
        body=body,
        headers=tuple(headers),
        grpc_status=error.code.grpc_status if grpc else None,
        details=f"epp_{_WORD_START.sub('_', error.code.value).lower()}" if error.reason is None else error.reason.value,
    )
