"""Long bodies are cut so that parsers see the same of them as of the whole."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest
from epp_native import outline
from hypothesis import given
from hypothesis import strategies as st

from epp.errors import RequestError
from epp.framework.testing import FakeHeaders
from epp.framework.types import Json, ParsedBody
from plugins.parsers import json_body
from plugins.parsers.openai import OpenAIParser
from tests.native.test_prompt_blocks import DOCUMENTS

LONG = "x" * 513
"""One byte more than is kept."""
CUT = "…"
PROMPTS = {"prompt", "input", "text", "system", "instructions"}
_MANY_IDS = 64


def reference(document: Mapping[str, Json]) -> dict[str, Json]:
    """What a document is cut to, where no text has escapes."""
    return {name: value if isinstance(value, str) and name not in PROMPTS else _cut(value) for name, value in document.items()}


def _cut(value: Json) -> Json:
    if isinstance(value, str):
        return CUT if len(value.encode()) > len(LONG) - 1 else value
    if isinstance(value, dict):
        return {name: _cut(member) for name, member in value.items()}
    if isinstance(value, list):
        are_ids = len(value) > _MANY_IDS and all(type(item) is int and 0 <= item < 2**32 for item in value)
        return value[:1] if are_ids else [_cut(item) for item in value]
    return value


_TEXTS = st.sampled_from(["", "a", "ä" * 256, "ä" * 257, LONG, LONG[1:], "…"])
_IDS = st.sampled_from([[1] * 64, [2] * 65, [2**32 - 1] * 70, [2**32] * 70, [-1] * 70, [1.5] * 70, [0, "a"] * 50])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS | _IDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | _TEXTS, inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from([*PROMPTS, "messages", "model", "cache_salt", "user"])


@given(st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_documents_are_cut_as_the_reference_says(document: dict[str, Json]) -> None:
    cut = outline(memoryview(orjson.dumps(document)))
    assert cut is not None
    assert orjson.loads(cut) == reference(document)


@given(DOCUMENTS)
def test_what_is_short_stays_as_it_is(written: str) -> None:
    body = written.encode()
    cut = outline(memoryview(body))
    assert cut is not None
    assert orjson.loads(cut) == orjson.loads(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"[" * 3000])
def test_what_is_no_document_is_left_to_the_parser(body: bytes) -> None:
    assert outline(memoryview(body)) is None


def test_views_of_a_part_are_left_to_the_parser() -> None:
    body = b'{"a":1}'
    assert outline(memoryview(body)) == body
    assert outline(memoryview(body)[:-1]) is None
    assert outline(memoryview(bytearray(body))) is None


def parse(document: Mapping[str, Json]) -> ParsedBody:
    return OpenAIParser().parse("/v1/chat/completions", FakeHeaders({}), memoryview(orjson.dumps(document)))


def test_a_long_body_is_decoded_when_it_is_read() -> None:
    messages: list[Json] = [{"role": "user", "content": "y" * json_body.LONG_BODY_BYTES}]
    document: dict[str, Json] = {"model": "m", "stream": True, "max_tokens": 7, "cache_salt": LONG, "messages": messages}
    body = parse(document)
    assert (body.model, body.streams, body.output_cap, body.outline["cache_salt"]) == ("m", True, 7, LONG)
    assert body.outline["messages"] == [{"role": "user", "content": CUT}]
    assert body.document == document == body.outline
    short = parse({**document, "messages": [{"role": "user", "content": "y"}]})
    assert (short.decode, short.outline) == (None, short.document)


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [{"role": 1, "content": LONG * 20}]},
        {"messages": [], "model": LONG * 20},
        {"messages": [LONG * 20]},
        {"messages": [{"content": [LONG * 20, 7]}]},
        {"messages": [{"content": LONG * 20}], "continue_final_message": LONG},
        {"messages": [{"content": LONG * 20}], "chat_template": 1},
    ],
)
def test_refusals_are_the_same(wrong: dict[str, Json], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError) as cut:
        parse({"model": "m", **wrong})
    monkeypatch.setattr(json_body, "_OUTLINE", None)
    with pytest.raises(RequestError) as whole:
        parse({"model": "m", **wrong})
    assert str(cut.value) == str(whole.value)
