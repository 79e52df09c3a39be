"""Prompts in JSON as clients write it, not as a library does: blanks, escapes, numbers of all kinds, names that come twice."""

from __future__ import annotations

import json
from collections.abc import Callable

import orjson
import pytest
from epp_native import LruIndex, chain, content_hashes, prompt_blocks
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.prompt_blocks import body_blocks

MAX_DEPTH = 250
"""Deeper documents are left to Python."""

_BLANKS = st.text(" \t\r\n", max_size=2)
_CHARACTERS = st.one_of(
    st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc"]),
    st.sampled_from(
        ["\\n", "\\t", "\\r", "\\b", "\\f", '\\"', "\\\\", "\\/", "\\u0000", "\\u001F", "\\u00e4", "\\uD83D\\uDe00"]
    ),
)
_STRINGS = st.lists(_CHARACTERS, max_size=40).map(lambda found: f'"{"".join(found)}"')
_INTEGERS = st.one_of(
    st.integers(0, 2**32 + 1), st.integers(-(2**65), 2**65), st.integers(2**63 - 2, 2**64 + 2), st.integers(0, 10**300)
).map(str)
_DECIMALS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?([0-9]{1,2}|28[0-9]))?", fullmatch=True)
_DOUBLES = st.floats(allow_nan=False, allow_infinity=False).map(repr)
_SCALARS = st.one_of(st.sampled_from(["null", "true", "false", "-0", "1"]), _STRINGS, _INTEGERS, _DECIMALS, _DOUBLES)
_NAMES = st.one_of(
    st.sampled_from(["role", "content", "c\\u006fntent", "type", "text", "name", "reasoning", "tool_calls", "image_url"]),
    st.sampled_from(["url", "data", "source", "file_id", "a", "b", "\\u0061"]),
).map(lambda name: f'"{name}"')
_TYPES = st.sampled_from(["text", "input_text", "image_url", "file", "document", "\\u0074ext"]).map(lambda name: f'"{name}"')


def _row(items: list[tuple[str, str]], blank: str, around: str) -> str:
    inside = f"{blank},{blank}".join([f"{name}{blank}:{value}" if name else value for name, value in items])
    return f"{around[0]}{blank}{inside}{blank}{around[1]}"


def _list(inner: st.SearchStrategy[str], size: int = 6) -> st.SearchStrategy[str]:
    return st.builds(_row, st.lists(st.tuples(st.just(""), inner), max_size=size), _BLANKS, st.just("[]"))


def _object(names: st.SearchStrategy[str], inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(_row, st.lists(st.tuples(names, inner), max_size=6), _BLANKS, st.just("{}"))


_VALUES = st.recursive(_SCALARS | _TYPES, lambda inner: _list(inner) | _object(_NAMES, inner), max_leaves=15)
_IDS = _list(st.integers(0, 9).map(str), 20) | _list(st.integers(0, 2**32).map(str)) | _list(_list(st.integers(0, 99).map(str)))
_PROMPTS = ["messages", "mess\\u0061ges", "prompt", "input", "items", "text", "input_ids", "token_ids"]
_AROUND = ["tools", "functions", "system", "instructions", "model"]
_TEMPLATE = ["chat_template", "chat_template_kwargs", "documents", "add_generation_prompt"]
_MEMBERS = st.sampled_from([*_PROMPTS, *_AROUND, *_TEMPLATE]).map(lambda name: f'"{name}"')
DOCUMENTS = _object(_MEMBERS, _VALUES | _IDS | _list(_object(_NAMES, _VALUES)))


@given(DOCUMENTS, st.integers(1, 80), st.integers(0, 4))
def test_documents_are_read_as_python_reads_them(document: str, block: int, cap: int) -> None:
    body = document.encode()
    assert prompt_blocks(body, block, cap) == body_blocks(body, block, cap)


@given(DOCUMENTS, st.data())
def test_what_is_almost_a_document(document: str, data: st.DataObject) -> None:
    """Cut, overwritten or with something put in: both read it the same, or both do not."""
    body = document.encode()
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    put = data.draw(st.binary(max_size=3) | st.sampled_from([b"", b",", b'"', b"\\", b"0", b"-", b".", b"]", b"}", b"\\ud800"]))
    broken = body[:start] + put + body[min(stop, start + data.draw(st.integers(0, 3))) :]
    assert prompt_blocks(broken, 4, 0) == body_blocks(broken, 4, 0)


@given(st.lists(_CHARACTERS, min_size=20, max_size=300), st.integers(0, 70), st.sampled_from(["", "x" * 600, "x" * 5000]))
def test_long_texts(characters: list[str], shift: int, more: str) -> None:
    text = "y" * shift + "".join(characters) + more + "".join(characters[::-1])
    body = f'{{"tools":["{text}"],"messages":[{{"role":"user","content":"{text}"}},"{text}"]}}'.encode()
    for block in (1, 64, 700):
        assert prompt_blocks(body, block, 0) == body_blocks(body, block, 0)


def nested(depth: int) -> bytes:
    """A document with so many levels, itself one."""
    return b'{"prompt":"x","other":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_deep_documents_are_left_to_python() -> None:
    assert prompt_blocks(nested(MAX_DEPTH), 1, 0) == body_blocks(nested(MAX_DEPTH), 1, 0) != b""
    assert prompt_blocks(nested(MAX_DEPTH + 1), 1, 0) == b""
    assert prompt_blocks(nested(2_000_000), 1, 0) == b""


@pytest.mark.parametrize("member", ["tools", "documents"])
def test_what_is_deepest_can_be_written_too(member: str) -> None:
    body = b'{"messages":[],"%s":%s1%s}' % (member.encode(), b"[" * (MAX_DEPTH - 1), b"]" * (MAX_DEPTH - 1))
    assert prompt_blocks(body, 4, 0) == body_blocks(body, 4, 0) != b""


def test_documents_of_very_many_values_are_left_to_python() -> None:
    some, many = (b'{"prompt":"x","other":[' + b"null," * count + b"1]}" for count in (500_000, 1_100_000))
    assert prompt_blocks(some, 1, 0) == body_blocks(some, 1, 0)
    assert prompt_blocks(many, 1, 0) == b""
    ids = json.dumps({"prompt": list(range(1_100_000))}).encode()
    assert prompt_blocks(ids, 64, 0) == body_blocks(ids, 64, 0), "token ids are one value"


def test_objects_of_many_members_of_the_same_names() -> None:
    names = [f"k{number % 1000}" for number in range(3000)]
    members = ",".join(f'"{name}":{place}' for place, name in enumerate(names))
    body = f'{{"tools":[{{{members}}}],"messages":[]}}'.encode()
    assert prompt_blocks(body, 64, 0) == body_blocks(body, 64, 0)


KINDS: list[Callable[[bytes], bytes | bytearray | memoryview]] = [bytes, bytearray, memoryview]


@pytest.mark.parametrize("kind", KINDS)
def test_every_buffer_will_do(kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    body = orjson.dumps({"prompt": "abcdefgh"})
    hashes = content_hashes(kind(b"abcdefgh"), 4, 0)
    assert prompt_blocks(kind(body), 4, 0)[-16:] == hashes
    assert chain(7, kind(hashes)) == chain(7, hashes)
    index = LruIndex()
    index.add(3, kind(hashes), 5)
    assert index.match(kind(hashes)) == [(3, 2)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: content_hashes(b"", 0, 0),
        lambda: prompt_blocks(b"{}", 0, 0),
        lambda: chain(0, b"1234567"),
        lambda: LruIndex().add(2**20, b"", 1),
    ],
    ids=["blocks of nothing", "blocks of nothing in a body", "half a hash", "a slot that is no place"],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"zero|multiple of 8|not below"):
        call()
