"""Pooling, tokenizing, audio and edits of images: model and text are read, and nothing is refused."""

from __future__ import annotations

import json

import pytest

from epp.framework.prompt import token_estimate
from epp.framework.testing import FakeHeaders, make_plugin
from epp.framework.types import Api, ErrorShape, ParsedBody
from plugins.parsers import openai
from tests.unit.parsers.reading import Body, parse

parser = make_plugin(openai.PLUGIN)
TEXT = "x" * 40
PART = {"type": "text", "text": TEXT}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x"}}


@pytest.mark.parametrize(
    ("path", "body", "api", "tokens"),
    [
        ("/v1/rerank", {"query": TEXT, "documents": [TEXT, TEXT]}, Api.POOLING, 30),
        ("/rerank", {"query": TEXT, "documents": [{"text": TEXT}]}, Api.POOLING, 20),
        ("/v2/rerank", {"query": {"content": [PART]}, "documents": {"content": [PART, IMAGE]}}, Api.POOLING, 20),
        ("/v1/rerank", {"query": TEXT, "documents": [[PART], TEXT]}, Api.POOLING, 30),
        ("/score", {"text_1": TEXT, "text_2": [TEXT, TEXT]}, Api.POOLING, 30),
        ("/v1/score", {"queries": [TEXT], "documents": [TEXT]}, Api.POOLING, 20),
        ("/v1/score", {"data_1": TEXT, "data_2": TEXT}, Api.POOLING, 20),
        ("/v1/score", {"query": [1, 2], "items": [[3], [4, 5]], "label_token_ids": [6]}, Api.POOLING, 5),
        ("/pooling", {"input": [[1, 2], [3]]}, Api.POOLING, 3),
        ("/pooling", {"messages": [{"role": "user", "content": TEXT}]}, Api.POOLING, 10),
        ("/pooling", {"data": {"any": "thing"}}, Api.POOLING, 0),
        ("/classify", {"input": [TEXT, TEXT]}, Api.POOLING, 20),
        ("/tokenize", {"prompt": TEXT}, Api.TOKENIZE, 10),
        ("/tokenize", {"messages": [{"role": "user", "content": [PART]}]}, Api.TOKENIZE, 10),
        ("/detokenize", {"tokens": [1, 2, 3]}, Api.TOKENIZE, 3),
        ("/v1/audio/speech", {"input": TEXT, "voice": "alloy"}, Api.AUDIO, 10),
    ],
)
def test_json(path: str, body: dict[str, object], api: Api, tokens: int) -> None:
    body = {"model": "m", **body}
    read = parse(parser, path, body)
    assert (read.api, read.model, read.document) == (api, "m", body)
    assert (read.rewritable, read.model_span, read.error_shape) == (True, None, ErrorShape.OPENAI)
    assert token_estimate(read) == pytest.approx(tokens, abs=1), "texts may have a blank behind them"


@pytest.mark.parametrize("path", ["/rerank", "/tokenize", "/v1/audio/speech"])
def test_no_model_is_nothing_to_replace(path: str) -> None:
    read = parse(parser, path, {"query": "x"})
    assert (read.model, read.rewritable) == ("", False)


@pytest.mark.parametrize("path", ["/score", "/v1/classify", "/v1/audio/transcriptions", "/v1/images/edits"])
@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[1]", b"\xff", b'{"model":'], ids=["empty", "text", "list", "bytes", "cut"]
)
def test_what_is_no_json_is_forwarded_unread(path: str, body: Body) -> None:
    assert parse(parser, path, body) == ParsedBody(Api.RAW, error_shape=ErrorShape.OPENAI)


@pytest.mark.parametrize(
    ("document", "tokens"),
    [({"query": 5, "documents": {"a": [1]}}, 0), ({"input": [None, True, {"text": 7}]}, 0), ({"prompt": [[], ["x"]]}, 0)],
    ids=repr,
)
def test_odd_values_are_no_text(document: dict[str, object], tokens: int) -> None:
    assert token_estimate(parse(parser, "/pooling", {"model": "m", **document})) == tokens


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('[{"content":', "}]")], ids=["lists", "objects"])
def test_values_nested_as_deep_as_json_may_be_are_no_text(opening: str, closing: str) -> None:
    levels = 1000 // len(closing)
    body = '{"model":"m","documents":' + opening * levels + "1" + closing * levels + "}"
    assert token_estimate(parse(parser, "/v1/rerank", body)) == 0


def form(**fields: str) -> bytes:
    parts = [f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    sound = '--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
    return "".join([*parts[:1], sound, *parts[1:], "--XX--\r\n"]).encode()


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/audio/transcriptions", Api.AUDIO),
        ("/v1/audio/translations", Api.AUDIO),
        ("/v1/images/edits", Api.IMAGES),
        ("/v1/images/variations", Api.IMAGES),
    ],
)
def test_forms(path: str, api: Api) -> None:
    body = form(language="de", model="whisper", prompt=TEXT, stream="true")
    headers = FakeHeaders({"content-type": "multipart/form-data; boundary=XX"})
    read = parser.parse(path, headers, memoryview(body))
    assert (read.api, read.model, read.streams, read.rewritable) == (api, "whisper", True, True)
    assert read.model_span is not None
    assert body[slice(*read.model_span)] == b"whisper"
    assert token_estimate(read) == 10


def test_a_form_without_model_is_nothing_to_replace() -> None:
    headers = FakeHeaders({"content-type": "multipart/form-data; boundary=XX"})
    read = parser.parse("/v1/audio/transcriptions", headers, memoryview(form(language="de")))
    assert (read.api, read.model, read.rewritable) == (Api.AUDIO, "", False)


def test_a_body_as_json_says_so_itself() -> None:
    body = json.dumps({"model": "m", "input": "x"}).encode()
    read = parser.parse("/v1/audio/speech", FakeHeaders(), memoryview(body))
    assert read.model == "m"
