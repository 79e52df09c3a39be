"""What a client is told: status, body in the shape of its API, headers, gRPC status."""

from __future__ import annotations

import orjson
import pytest

from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.testing import FakeHeaders
from epp.framework.types import ErrorShape
from epp.request.replies import error_shape, is_grpc, refusal
from epp.seam import Pairs

JSON = ("content-type", "application/json")
TEXT = ("content-type", "text/plain; charset=utf-8")
OPENAI, ANTHROPIC, PLAIN = ErrorShape.OPENAI, ErrorShape.ANTHROPIC, ErrorShape.PLAIN


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        ("/v1/chat/completions", {}, OPENAI),
        ("/v1/completions/", {}, OPENAI),
        ("/v1/models", {}, OPENAI),
        ("/prefix/v1/models", {}, OPENAI),
        ("/inference/v1/generate", {}, OPENAI),
        ("/chat/completions", {}, OPENAI),
        ("completions/render", {}, OPENAI),
        ("/openai/images/generations", {}, OPENAI),
        ("/embeddings", {}, OPENAI),
        ("/responses", {}, OPENAI),
        ("/conversations", {}, OPENAI),
        ("/rerank", {}, OPENAI),
        ("/tokenize", {}, OPENAI),
        ("/audio/transcriptions", {}, OPENAI),
        ("/v1/messages", {}, ANTHROPIC),
        ("/v1/messages/", {}, ANTHROPIC),
        ("/messages", {}, ANTHROPIC),
        ("/v1/messages/count_tokens", {}, ANTHROPIC),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, ANTHROPIC),
        ("/foomessages", {}, PLAIN),
        ("/mycompletions", {}, PLAIN),
        ("/foo", {}, PLAIN),
        ("/v1", {}, PLAIN),
        ("", {}, PLAIN),
        ("/v1/completions", {"content-type": "application/grpc"}, PLAIN),
    ],
)
def test_the_shape_that_a_client_can_read(path: str, headers: dict[str, str], shape: ErrorShape) -> None:
    assert error_shape(path, FakeHeaders(headers)) is shape


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/GRPC", True),
        ("application/json", False),
        (None, False),
    ],
)
def test_grpc_clients(content_type: str | None, expected: bool) -> None:
    assert is_grpc(FakeHeaders({} if content_type is None else {"content-type": content_type})) is expected


@pytest.mark.parametrize(
    ("code", "http", "grpc", "openai_type", "anthropic_type", "details"),
    [
        (ErrorCode.BAD_REQUEST, 400, 3, "invalid_request_error", "invalid_request_error", "epp_bad_request"),
        (ErrorCode.UNAUTHORIZED, 401, 16, "authentication_error", "authentication_error", "epp_unauthorized"),
        (ErrorCode.FORBIDDEN, 403, 7, "permission_error", "permission_error", "epp_forbidden"),
        (ErrorCode.NOT_FOUND, 404, 5, "not_found_error", "not_found_error", "epp_not_found"),
        (ErrorCode.REQUEST_TIMEOUT, 408, 4, "timeout_error", "timeout_error", "epp_request_timeout"),
        (ErrorCode.PRECONDITION_FAILED, 412, 9, "invalid_request_error", "invalid_request_error", "epp_precondition_failed"),
        (ErrorCode.PAYLOAD_TOO_LARGE, 413, 8, "invalid_request_error", "request_too_large", "epp_payload_too_large"),
        (
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            415,
            12,
            "invalid_request_error",
            "invalid_request_error",
            "epp_unsupported_media_type",
        ),
        (ErrorCode.RESOURCE_EXHAUSTED, 429, 8, "rate_limit_error", "rate_limit_error", "epp_resource_exhausted"),
        (ErrorCode.INTERNAL, 500, 13, "server_error", "api_error", "epp_internal"),
        (ErrorCode.SERVICE_UNAVAILABLE, 503, 14, "service_unavailable_error", "overloaded_error", "epp_service_unavailable"),
    ],
)
def test_every_code(code: ErrorCode, http: int, grpc: int, openai_type: str, anthropic_type: str, details: str) -> None:
    error = RequestError(code, "why")
    text = f"inference error: {code} - why"

    plain = refusal(error, PLAIN, grpc=True)
    assert plain == (http, text.encode(), (TEXT,), grpc, details)

    openai = refusal(error, OPENAI)
    assert (openai.status, openai.headers, openai.grpc_status, openai.details) == (http, (JSON,), None, details)
    assert orjson.loads(openai.body) == {"error": {"message": text, "type": openai_type, "param": None, "code": code.value}}

    anthropic = refusal(error, ANTHROPIC)
    assert (anthropic.status, anthropic.headers, anthropic.grpc_status) == (http, (JSON,), None)
    assert orjson.loads(anthropic.body) == {"type": "error", "error": {"type": anthropic_type, "message": text}}


@pytest.mark.parametrize("reason", list(DropReason))
def test_the_reason_is_a_header_and_the_details(reason: DropReason) -> None:
    reply = refusal(RequestError(ErrorCode.RESOURCE_EXHAUSTED, "full", reason), OPENAI)
    assert reply.headers == (JSON, ("x-llm-d-request-dropped-reason", reason.value))
    assert reply.details == reason.value


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((("retry-after", "5"), ("X-Why", "because")), (("retry-after", "5"), ("x-why", "because"))),
        ((("x-bad", "a\r\nx-evil: 1"), ("x-good", "1")), (("x-good", "1"),)),
    ],
    ids=["added in lower case", "without those that would split the answer"],
)
def test_headers_of_a_plugins_error(given: Pairs, sent: Pairs) -> None:
    assert refusal(RequestError(ErrorCode.RESOURCE_EXHAUSTED, "x", headers=given), PLAIN).headers == (TEXT, *sent)


@pytest.mark.parametrize("shape", list(ErrorShape))
@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('quotes " and \\', 'quotes " and \\'),
        ("line\nend\0", "line\nend\0"),
        ("日本 🎉 \u2028", "日本 🎉 \u2028"),
        ("path /\udcff\udc80", "path /\ufffd\ufffd"),
        ("\ud800 \udfff", "\ufffd \ufffd"),
        ("", ""),
    ],
    ids=["quotes", "control characters", "any character", "bytes that are not UTF-8", "lone surrogates", "empty"],
)
def test_odd_text(shape: ErrorShape, message: str, shown: str) -> None:
    body = refusal(RequestError(ErrorCode.BAD_REQUEST, message), shape).body
    expected = f"inference error: BadRequest - {shown}"
    assert (body.decode() if shape is PLAIN else orjson.loads(body)["error"]["message"]) == expected
