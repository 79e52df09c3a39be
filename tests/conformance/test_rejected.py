"""Requests that are refused: cases C45 to C61."""

from __future__ import annotations

import asyncio
import json

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.interfaces import Role
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import CallsBack, Full, Recorder, Waits, WaitsAsPreRequest, double, drops_all, raises
from tests.conformance.exchanges import start_watched
from tests.conformance.picker import A_ADDRESS, A, B, objective
from tests.conformance.wire import Message, request_body, request_headers, std_body

BAD = "inference error: BadRequest - "
OBJECTIVE = "x-llm-d-inference-objective"


def posted(body: bytes | str, path: str = "/v1/completions") -> tuple[Message, Message]:
    """A POST."""
    return request_headers(path=path), request_body(body)


STANDARD = posted(std_body("m", "p"))


async def test_c45_not_json(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted("no healthy upstream"))
    assert refusal.status == 400
    assert refusal.message.startswith(f"{BAD}error unmarshaling request bodyMap:")
    assert refusal.headers["content-type"] == "application/json"
    assert set(json.loads(refusal.body)["error"]) == {"message", "type", "param", "code"}
    assert picker.series("request_error_total") == {("", "", "default-flow", "0", "BadRequest"): 1}


async def test_c46_no_model(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted('{"prompt":"hello world"}'))
    assert (refusal.status, refusal.message) == (400, f"{BAD}model not found in request body")


async def test_c47_empty_body(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted(b""))
    assert refusal.status == 400
    assert refusal.message.startswith(f"{BAD}error unmarshaling request bodyMap:")


HELLO = [{"role": "user", "content": "x"}]
CHATS = [
    pytest.param({"messages": []}, "messages is missing or empty", id="messages empty"),
    pytest.param({"messages": "x"}, "messages must be a list of messages, not a string", id="messages text"),
    pytest.param(
        {"messages": [{"role": "user", "content": 5}]},
        "messages[0].content must be a string or a list of content parts, not a number",
        id="content number",
    ),
    pytest.param({"messages": HELLO, "tools": {}}, "tools must be a list, not an object", id="tools object"),
    pytest.param({"messages": HELLO, "chat_template": 1}, "chat_template must be a string, not a number", id="template number"),
]


@pytest.mark.parametrize(("fields", "wrong"), CHATS)
async def test_c48_chat_without_valid_messages(start: StartPicker, fields: dict[str, object], wrong: str) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted(json.dumps({"model": "m", **fields}), "/v1/chat/completions"))
    expected = f"{BAD}invalid chat completions request: must have valid messages field: {wrong}"
    assert (refusal.status, refusal.message) == (400, expected)


NO_ID = "must be a token id, a whole number from 0 to 4294967295"
PROMPTS = [
    ('""', "prompt or prompt_embeds is missing or empty"),
    ("[]", "prompt or prompt_embeds is missing or empty"),
    ('[1,"a"]', f"prompt[1] {NO_ID}"),
    ("[1.5]", f"prompt[0] {NO_ID}"),
    ("[-1]", f"prompt[0] {NO_ID}"),
    ("[[]]", "prompt[0] must not be empty"),
    ("{}", "prompt must be a string, a list of strings, a list of token ids or a list of such lists, not an object"),
]


@pytest.mark.parametrize(("prompt", "wrong"), PROMPTS)
async def test_c49_completion_without_valid_prompt(start: StartPicker, prompt: str, wrong: str) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted(f'{{"model":"m","prompt":{prompt}}}'))
    expected = f"{BAD}invalid completions request: must have prompt field: {wrong}"
    assert (refusal.status, refusal.message) == (400, expected)


@pytest.mark.parametrize("prompt", ["[[1]]", "[[1,2],[3]]"])
async def test_c49_several_lists_of_token_ids_are_routed(start: StartPicker, prompt: str) -> None:
    """As OpenAI's API and all engines have it; the other way round in the peer."""
    picker = await start(A())
    body = f'{{"model":"m","prompt":{prompt}}}'.encode()
    assert (await picker.route(*posted(body))).body == body


async def test_c50_no_parser(start: StartPicker) -> None:
    picker = await start(A(), config={"parsers": ["openai-parser"]})
    refusal = await picker.refuse(*posted(std_body("m", "p"), "/foo"))
    expected = f"{BAD}no parser registered matching path suffix for: /foo"
    assert (refusal.status, refusal.body) == (400, expected.encode())
    assert refusal.headers["content-type"] == "text/plain; charset=utf-8"


async def test_c51_query_and_slash_are_cut(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(*posted(std_body("m", "p"), "/v1/chat/completions/?x=1"))
    assert "invalid chat completions request" in refusal.message


async def test_c52_filters_leave_nothing(start: StartPicker) -> None:
    picker = await start(A(), B(), doubles=[double(CallsBack(drops_all), Role.FILTER, name="drops-all")])
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
    assert refusal.message.startswith("inference error: ResourceExhausted - failed to find target endpoint: ")
    assert "drops-all" in refusal.message
    assert picker.series("request_total") == {}


async def test_c53_sheddable_requests_when_full(start: StartPicker) -> None:
    full = Full(1.0)
    objects = [objective("sheddable", -1), objective("standard", 0)]
    picker = await start(A(), objects=objects, doubles=[double(full, Role.SATURATION_DETECTOR)])
    sheddable = request_headers({OBJECTIVE: "sheddable"}), request_body(std_body("m", "p"))
    refusal = await picker.refuse(*sheddable)
    assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
    assert refusal.message == "inference error: ResourceExhausted - system saturated, sheddable request dropped"
    await picker.route(request_headers({OBJECTIVE: "standard"}), request_body(std_body("m", "p")))
    full.value = 0.99
    await picker.route(*sheddable)


PRECONDITION = RequestError(ErrorCode.PRECONDITION_FAILED, "not now", headers=(("x-why", "test"),))
PREREQUEST = "inference error: Internal - PreRequest"
FAILURES = [
    pytest.param([PRECONDITION], 412, "inference error: PreconditionFailed - not now", id="one refuses"),
    pytest.param(
        [PRECONDITION, PRECONDITION],
        500,
        f'{PREREQUEST} "p0/p0" failed: not now\nPreRequest "p1/p1" failed: not now',
        id="two refuse",
    ),
    pytest.param([ValueError("secret")], 500, f'{PREREQUEST} "p0/p0" failed: internal error', id="raises"),
]


@pytest.mark.parametrize(("errors", "status", "message"), FAILURES)
async def test_c55_prerequest_fails(start: StartPicker, errors: list[Exception], status: int, message: str) -> None:
    recorder = Recorder()
    failing = [double(CallsBack(raises(error)), Role.PRE_REQUEST, name=f"p{i}") for i, error in enumerate(errors)]
    picker = await start(A(), doubles=[*failing, double(recorder, *Recorder.ROLES)])
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.message) == (status, message)
    assert ("x-why" in refusal.headers) == (status == 412)
    assert len(recorder.requests) == 1, "the plugin behind them runs in any case"
    assert (await recorder.completion()).cause == "error"


async def test_c57_admission_denied(start: StartPicker) -> None:
    picker = await start(A(), doubles=[double(CallsBack(lambda *_: "no"), Role.ADMITTER)])
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.message) == (429, "inference error: ResourceExhausted - request cannot be admitted: no")


async def test_c58_producer_raises(start: StartPicker) -> None:
    picker = await start(A(), doubles=[double(CallsBack(raises(ValueError("boom"))), Role.DATA_PRODUCER, name="producer")])
    assert (await picker.route(*STANDARD)).target == A_ADDRESS
    assert picker.series("plugin_errors_total") == {("DataProducer", "producer", "producer"): 1}


async def test_c58_producer_takes_too_long(start: StartPicker) -> None:
    waits = Waits()
    picker = await start(A(), doubles=[double(waits, Role.DATA_PRODUCER)])
    begun = asyncio.get_running_loop().time()
    await picker.route(*STANDARD)
    assert asyncio.get_running_loop().time() - begun < 0.9, "a producer that takes 1 s is not waited for"
    assert waits.cancelled.is_set()


async def test_c59_model_is_checked_first(start: StartPicker) -> None:
    picker = await start()
    assert (await picker.refuse(*posted('{"prompt":"x"}'))).status == 400
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")


async def test_c60_grpc_clients_get_a_status(start: StartPicker) -> None:
    picker = await start(A(), doubles=[double(CallsBack(drops_all), Role.FILTER)])
    headers = request_headers(path="/some.Service/Method", content_type="application/grpc+proto")
    refusal = await picker.refuse(headers, request_body(b"\0\0\0\0\0"))
    assert (refusal.status, refusal.grpc_status) == (429, 8)
    assert refusal.body.startswith(b"inference error: ResourceExhausted - ")
    assert (await picker.refuse(*STANDARD)).grpc_status is None


DEFECTS = [
    pytest.param(Role.FILTER, 429, "ResourceExhausted - failed to find target endpoint: ", id="filter"),
    pytest.param(Role.PICKER, 429, "ResourceExhausted - failed to find target endpoint: ", id="picker"),
    pytest.param(Role.REQUEST_HEADER, 500, "Internal - internal error", id="request header"),
    pytest.param(Role.ADMITTER, 500, "Internal - internal error", id="admitter"),
]


@pytest.mark.parametrize(("role", "status", "text"), DEFECTS)
async def test_c61_plugin_raises(start: StartPicker, role: Role, status: int, text: str) -> None:
    plugin = double(CallsBack(raises(ZeroDivisionError("secret"))), role, name="broken")
    picker = await start(A(), doubles=[plugin])
    refusal = await picker.refuse(*STANDARD)
    assert refusal.status == status
    assert refusal.message.startswith(f"inference error: {text}")
    assert "secret" not in refusal.message
    assert picker.total("plugin_errors_total") == 1


SCORES = [raises(ValueError()), lambda *_: [1.0], lambda *_: None]


@pytest.mark.parametrize("scores", SCORES, ids=["raises", "short", "nothing"])
async def test_c61_scorer_counts_as_zero(start: StartPicker, scores: object) -> None:
    picker = await start(A(9, 0.9), B(0, 0.1), doubles=[double(CallsBack(scores), Role.SCORER)])  # type: ignore[arg-type]
    assert (await picker.route(*STANDARD)).target == "192.168.1.2:8000"
    assert picker.total("plugin_errors_total") == 1


async def test_c61_parser_raises(start: StartPicker) -> None:
    class Broken:
        paths = ("completions",)
        app_protocols = ("http",)

        def parse(self, *_: object) -> object:
            raise ZeroDivisionError("secret")

    picker = await start(A(), doubles=[double(Broken(), Role.PARSER)], config={"parsers": ["broken"]})
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.message) == (500, "inference error: Internal - internal error")
    assert [place for place, _ in picker.defects] == ["decision"]
    picker.defects.clear()


@pytest.mark.parametrize("role", [Role.DATA_PRODUCER, Role.PRE_REQUEST])
async def test_decision_takes_too_long(start: StartPicker, role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages together have a deadline; what had been picked by then is completed."""
    monkeypatch.setattr("epp.plugin_calls.step.HOOK_DEADLINE_S", 60.0)
    monkeypatch.setattr("epp.decision.progress.DECISION_DEADLINE_S", 0.05)
    waits = Waits() if role is Role.DATA_PRODUCER else WaitsAsPreRequest()
    picker, recorder = await start_watched(start, doubles=[double(waits, role)])
    refusal = await picker.refuse(*STANDARD)
    assert (refusal.status, refusal.message) == (503, "inference error: ServiceUnavailable - no decision in time")
    await picker.settle()
    assert len(recorder.completions) == (role is Role.PRE_REQUEST)


ANTHROPIC = [
    pytest.param("/v1/messages", {}, id="path"),
    pytest.param("/v1/completions", {"anthropic-version": "2023-06-01"}, id="header"),
]


@pytest.mark.parametrize(("path", "headers"), ANTHROPIC)
async def test_errors_have_the_shape_of_the_api(start: StartPicker, path: str, headers: dict[str, str]) -> None:
    picker = await start(A())
    refusal = await picker.refuse(request_headers(headers, path=path), request_body("{}"))
    document = json.loads(refusal.body)
    assert (refusal.status, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")
    assert document["error"]["message"].startswith(BAD)


async def test_refused_requests_take_no_endpoint(start: StartPicker) -> None:
    """Nothing runs, nothing is completed."""
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    for body in ("", "{}", "[]"):
        await picker.refuse(*posted(body))
    assert (recorder.calls, recorder.completions) == ({}, [])
    assert picker.total("request_error_total") == 3
    assert picker.total("request_processing_duration_seconds", suffix="_count") == 3
