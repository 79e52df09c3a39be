"""APIs beside chat and completions: routed by the model that the body names, with their own way of naming another."""

from __future__ import annotations

import json

import pytest

from epp.framework.interfaces import Role
from epp.framework.rewriting import BodyEdits
from epp.framework.types import InferenceRequest
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import double
from tests.conformance.picker import B_ADDRESS, A, B
from tests.conformance.wire import request_body, request_headers

REWRITE = "x-llm-d-model-name-rewrite"
FORM = "multipart/form-data; boundary=XX"
POSTS = [
    pytest.param("/v1/rerank", {"query": "q", "documents": ["a", "b"]}, id="rerank"),
    pytest.param("/score", {"text_1": "a", "text_2": ["b"]}, id="score"),
    pytest.param("/pooling", {"input": [[1, 2], [3]]}, id="pooling"),
    pytest.param("/classify", {"input": "a"}, id="classify"),
    pytest.param("/tokenize", {"prompt": "a"}, id="tokenize"),
    pytest.param("/v1/audio/speech", {"input": "a", "voice": "alloy"}, id="speech"),
    pytest.param("/v1/embeddings", {"messages": [{"role": "user", "content": "a"}]}, id="embeddings of a chat"),
    pytest.param("/v1/completions", {"prompt_embeds": "UEs="}, id="prompt embeddings"),
]


def form(model: str) -> bytes:
    head = b'--XX\r\nContent-Disposition: form-data; name="'
    sound = head + b'file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + bytes(range(256)) * 400 + b"\r\n"
    return sound + head + b'model"\r\n\r\n' + model.encode() + b"\r\n--XX--\r\n"


@pytest.mark.parametrize(("path", "body"), POSTS)
async def test_the_endpoint_with_the_adapter(start: StartPicker, path: str, body: dict[str, object]) -> None:
    picker = await start(A(0, 0.2), B(0, 0.2, ["sql-lora"]))
    data = json.dumps({"model": "sql-lora", **body}).encode()
    routed = await picker.route(request_headers(path=path), request_body(data))
    assert (routed.target, routed.body) == (B_ADDRESS, data)
    assert picker.series("request_total") == {("sql-lora", "sql-lora", "default-flow", "0"): 1}


@pytest.mark.parametrize(("path", "body"), POSTS)
async def test_another_model(start: StartPicker, path: str, body: dict[str, object]) -> None:
    picker = await start(A())
    data = json.dumps({"model": "m", **body}).encode()
    routed = await picker.route(request_headers({REWRITE: "other"}, path=path), request_body(data))
    assert routed.json == {"model": "other", **body}


@pytest.mark.parametrize("path", ["/v1/rerank", "/tokenize", "/v1/audio/speech"])
async def test_no_model_is_needed(start: StartPicker, path: str) -> None:
    picker = await start(A())
    routed = await picker.route(request_headers(path=path), request_body(b'{"query":"x"}'))
    assert routed.body == b'{"query":"x"}'


@pytest.mark.parametrize("path", ["/v1/score", "/tokenize"])
async def test_what_is_no_json_is_the_model_servers_to_refuse(start: StartPicker, path: str) -> None:
    picker = await start(A())
    assert (await picker.route(request_headers(path=path), request_body(b"no JSON"))).body == b"no JSON"


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"])
async def test_forms(start: StartPicker, path: str) -> None:
    picker = await start(A(0, 0.2), B(0, 0.2, ["sql-lora"]))
    headers = request_headers(path=path, content_type=FORM)
    routed = await picker.route(headers, request_body(form("sql-lora")))
    assert (routed.target, routed.body) == (B_ADDRESS, form("sql-lora"))


@pytest.mark.parametrize("target", ["longer-than-before", "s", "größer"])
async def test_another_model_in_a_form(start: StartPicker, target: str) -> None:
    picker = await start(A())
    headers = request_headers({REWRITE: target}, path="/v1/audio/transcriptions", content_type=FORM)
    assert (await picker.route(headers, request_body(form("whisper")))).body == form(target)


class ChangesAll:
    """A rewriter of JSON bodies that wants every request."""

    def rewrites(self, request: InferenceRequest) -> bool:
        return True

    def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> None:
        edits.set("added", 1)


async def test_plugins_do_not_rewrite_forms(start: StartPicker) -> None:
    picker = await start(A(), doubles=[double(ChangesAll(), Role.BODY_REWRITER)])
    headers = request_headers({REWRITE: "other"}, path="/v1/audio/transcriptions", content_type=FORM)
    assert (await picker.route(headers, request_body(form("whisper")))).body == form("other")
