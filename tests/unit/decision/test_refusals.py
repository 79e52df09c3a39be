"""Refusals: who is refused, with which status and text, and the shape of the reply."""

from __future__ import annotations

import pytest

from epp.errors import ErrorCode, RequestError
from tests.unit.decision.rig import COMPLETION, AsyncPlugin, Plugin, Rig, hooks, request
from tests.unit.decision.vocabulary import BUG, CHAT, DESTINATION, A, refusal
from tests.unit.scheduling.doubles import Does, Handler, keep, make_profile


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/completions", b"no healthy upstream", "error unmarshaling request bodyMap: "),
        (
            "/v1/chat/completions/?x=1",
            b'{"model":"m","messages":[]}',
            "invalid chat completions request: must have valid messages field",
        ),
        ("/v1/messages", b'{"messages":[]}', "invalid messages request: must have at least one message"),
    ],
)
def test_bodies_that_no_parser_takes(path: str, body: bytes, text: str) -> None:
    rig = Rig()
    reply = rig.send(request(body, path=path)).reply
    assert reply.status == 400
    assert f"inference error: BadRequest - {text}".encode() in reply.body, (
        "C45: no JSON; C48: no messages; C51: query and slash are cut"
    )
    assert rig.count("request_error_total", error_code="BadRequest", model_name="") == 1


def test_no_endpoints() -> None:
    rig = Rig(endpoints="")
    status, text, headers = refusal(rig)
    assert (status, text) == (
        503,
        "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
    ), "S15, C35: no candidates"
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert rig.count("scheduler_attempts_total") is None


@pytest.mark.parametrize(
    ("profile", "text", "reason"),
    [
        pytest.param(
            make_profile(filters=[keep()]),
            "failed to run scheduler profile 'default': no endpoints left after filter 'f1' in profile 'default'",
            "rejected-saturated",
            id="C52 filters leave nothing",
        ),
        pytest.param(
            make_profile(filters=[Does(BUG)]),
            "failed to run scheduler profile 'default': filter 'f1' failed in profile 'default'",
            None,
            id="C61 a filter fails",
        ),
        pytest.param(
            make_profile(picker=Does([-1])),
            "failed to run scheduler profile 'default': picker 'picker' failed in profile 'default'",
            None,
            id="the picker fails",
        ),
    ],
)
def test_nothing_is_found(profile: object, text: str, reason: str | None) -> None:
    rig = Rig(profile=profile)
    status, body, headers = refusal(rig, path="/other")
    assert (status, body) == (429, f"inference error: ResourceExhausted - failed to find target endpoint: {text}")
    assert headers.get("x-llm-d-request-dropped-reason") == reason
    assert rig.count("scheduler_attempts_total", status="failure") == 1
    assert rig.count("request_error_total", error_code="ResourceExhausted") == 1
    assert rig.count("request_total") is None


def test_a_profile_handler_may_refuse() -> None:
    rig = Rig(handler=Handler(RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")))
    assert refusal(rig)[:2] == (412, "inference error: PreconditionFailed - no cache")
    assert rig.count("scheduler_attempts_total", status="failure") == 1


def test_screeners_leave_nothing() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([])), slots=["screeners"]))
    status, text, headers = refusal(rig)
    assert (status, text) == (503, "inference error: ServiceUnavailable - screeners eliminated all endpoint candidates")
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


def test_screeners_restrict_scheduling() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([0])), slots=["screeners"]))
    assert rig.send().route.headers.set == ((DESTINATION, A),)


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
@pytest.mark.parametrize(
    ("does", "status", "text"),
    [
        pytest.param({"admit": "no"}, 429, "ResourceExhausted - request cannot be admitted: no", id="C57 denied"),
        pytest.param({"admit": BUG}, 500, "Internal - internal error", id="an admitter fails"),
        pytest.param(
            {"process_request": RequestError(ErrorCode.UNAUTHORIZED, "who?")}, 401, "Unauthorized - who?", id="not authorized"
        ),
        pytest.param({"process_request": BUG}, 500, "Internal - internal error", id="a header hook fails"),
        pytest.param(
            {"pre_request": RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")},
            412,
            "PreconditionFailed - no cache",
            id="C55 PreRequest refuses",
        ),
    ],
)
async def test_hooks_that_refuse(kind: type[Plugin], does: dict[str, object], status: int, text: str) -> None:
    rig = Rig(hooks(kind("p", [], **does), slots=["request_header", "producers", "admitters", "pre_request"]))
    reply = (await rig.sent(request(path="/other"))).reply
    assert (reply.status, reply.body.decode()) == (status, f"inference error: {text}")
    assert rig.count("request_error_total", error_code=text.partition(" ")[0]) == 1


@pytest.mark.parametrize(
    ("path", "headers", "content_type", "grpc_status"),
    [
        ("/v1/completions", {}, "application/json", None),
        ("/v1/messages", {}, "application/json", None),
        ("/other", {}, "text/plain; charset=utf-8", None),
        ("/v1/completions", {"content-type": "application/grpc"}, "text/plain; charset=utf-8", 14),
    ],
)
def test_the_shape_of_a_refusal(path: str, headers: dict[str, str], content_type: str, grpc_status: int | None) -> None:
    body = CHAT if path == "/v1/messages" else COMPLETION
    reply = Rig(endpoints="").send(request(body, path=path, headers=headers)).reply
    assert dict(reply.headers)["content-type"] == content_type
    assert (reply.grpc_status, reply.details) == (grpc_status, "rejected-no-endpoints"), (
        "C60, D14: a gRPC client gets a gRPC status"
    )


def test_a_path_that_is_no_text() -> None:
    rig = Rig()
    rig.director.pipeline.parsers._fallback = None
    reply = rig.send(request(path="/v1/\udcff/")).reply
    assert reply.status == 400
    assert "no parser registered matching path suffix for: /v1/\ufffd".encode() in reply.body


def test_the_root_path_is_named() -> None:
    rig = Rig()
    rig.director.pipeline.parsers._fallback = None
    assert rig.send(request(path="/")).reply.body.decode().endswith("matching path suffix for: /")
