"""The model is set by splices: the document means what it should, and no other byte moves."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.request.rewrite import Splices, model_splices


def spliced(body: bytes, splices: Splices) -> bytes:
    """``body`` with the spans replaced, as the transport does it."""
    pieces, done = [], 0
    for start, end, replacement in splices:
        assert done <= start <= end <= len(body), "ascending, not overlapping"
        pieces += [body[done:start], replacement]
        done = end
    return b"".join([*pieces, body[done:]])


C12 = b'{"prompt":"x","model":"m","n":1,"big":12345678901234567890,"f":1.0}'

CASES = [
    pytest.param(C12, C12.replace(b'"m"', b'"NEW"'), id="C12 C13 numbers and order stay"),
    pytest.param(b'{"model":"m"}', b'{"model":"NEW"}', id="alone"),
    pytest.param(b' \r\n{ "model"\t:\n "m" } ', b' \r\n{ "model"\t:\n "NEW" } ', id="white space"),
    pytest.param(b'{"model":"a","x":1,"model":"b"}', b'{"model":"NEW","x":1,"model":"NEW"}', id="duplicates"),
    pytest.param(b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"NEW"}', id="escaped key"),
    pytest.param(
        b'{"\\u006D\\u006f\\u0064\\u0065\\u006c":"a","model":"b"}',
        b'{"\\u006D\\u006f\\u0064\\u0065\\u006c":"NEW","model":"NEW"}',
        id="escaped and plain key",
    ),
    pytest.param(b'{"x":{"model":"a"},"model":"b"}', b'{"x":{"model":"a"},"model":"NEW"}', id="nested before"),
    pytest.param(b'{"model":"b","x":[{"model":"a"}]}', b'{"model":"NEW","x":[{"model":"a"}]}', id="nested behind"),
    pytest.param(
        b'{"x":{"model":1},"model":"b","y":{"model":2}}', b'{"x":{"model":1},"model":"NEW","y":{"model":2}}', id="nested around"
    ),
    pytest.param(b'{"x":"{[\\"{","model":"b"}', b'{"x":"{[\\"{","model":"NEW"}', id="brackets in a string"),
    pytest.param(b'{"x":"\\\\","model":"b"}', b'{"x":"\\\\","model":"NEW"}', id="a string that ends with a backslash"),
    pytest.param(
        b'{"x":"\\\\\\"model\\":","model":"b"}', b'{"x":"\\\\\\"model\\":","model":"NEW"}', id="the key as text in a string"
    ),
    pytest.param(b'{"\\"model":1,"model":"b"}', b'{"\\"model":1,"model":"NEW"}', id="a key that ends like it"),
    pytest.param(b'{"model":"a\\"b}","x":1}', b'{"model":"NEW","x":1}', id="escaped quote in the value"),
    pytest.param(b'{"x":"\xff\xfe","model":"\xc3"}', b'{"x":"\xff\xfe","model":"NEW"}', id="not UTF-8"),
    pytest.param(b'{"model":null}', b'{"model":"NEW"}', id="null"),
    pytest.param(b'{"model":5 ,"x":1}', b'{"model":"NEW" ,"x":1}', id="a number"),
    pytest.param(b'{"model":{"a":["}",{}]},"x":1}', b'{"model":"NEW","x":1}', id="an object"),
    pytest.param(b'{"model":[{"model":"a"}],"x":1}', b'{"model":"NEW","x":1}', id="a list with the key in it"),
    pytest.param(b'{"x":"model"}', b'{"model":"NEW","x":"model"}', id="C17 only a value of that name"),
    pytest.param(b'{"prompt":"x"}', b'{"model":"NEW","prompt":"x"}', id="C17 missing"),
    pytest.param(b" { \n}", b' {"model":"NEW" \n}', id="empty object"),
    pytest.param(b'{"Model":"m"}', b'{"model":"NEW","Model":"m"}', id="case matters"),
]


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_only_the_value_changes(body: bytes, expected: bytes) -> None:
    assert spliced(body, model_splices(body, "NEW")) == expected
    assert model_splices(memoryview(body), "NEW") == model_splices(body, "NEW")


@pytest.mark.parametrize(
    ("name", "written"),
    [('a"b', b'"a\\"b"'), ("a\\b", b'"a\\\\b"'), ("a/b", b'"a/b"'), ("ü\n", b'"\\u00fc\\n"'), ("", b'""')],
)
def test_the_name_is_escaped(name: str, written: bytes) -> None:
    assert model_splices(b'{"model":"m"}', name) == ((9, 12, written),)


@pytest.mark.parametrize("body", [b"", b"null", b'["model"]', b'"model"', b"\xef\xbb\xbf{}", b"no healthy upstream"])
def test_not_an_object(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object: it does not begin"):
        model_splices(body, "m")


@pytest.mark.parametrize("body", [b'{"model":[', b'{"model":', b'{"model":["]'])
def test_a_value_without_end(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object: the value of 'model' does not end"):
        model_splices(body, "m")


def test_deep_nesting() -> None:
    deep = b'{"model":' * 100_000 + b"1" + b"}" * 100_000
    assert model_splices(b'{"x":' + deep + b',"model":"m"}', "n")[0][:2] == (len(deep) + 14, len(deep) + 17)
    assert model_splices(deep, "n") == ((9, len(deep) - 1, b'"n"'),)


def test_a_long_prompt() -> None:
    prompt = "lorem \n ipsum \"dolor\" {sit} \\ amet 'ü' " * 10_000
    for body in (json.dumps({"model": "m", "prompt": prompt}), json.dumps({"prompt": prompt, "model": "m"})):
        expected = body.replace('"model": "m"', '"model": "n"').encode()
        assert spliced(body.encode(), model_splices(body.encode(), "n")) == expected


keys = st.sampled_from(["model", "x", "\\", '"model', "model\\", '"model":"m"', "{", "m"])
texts = keys | st.text(max_size=3)
values = st.recursive(
    texts | st.sampled_from([None, 1, -2.5, True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=5,
)
documents = st.lists(st.tuples(keys, values), max_size=4)
styles = st.sampled_from([(",", ":", True), (", ", ": ", True), (" ,\n", "\t:\r ", False)])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON objects, also with duplicate and escaped keys and bytes that are not UTF-8."""
    comma, colon, ascii_only = draw(styles)
    members = []
    for key, value in draw(documents):
        name = json.dumps(key, ensure_ascii=ascii_only)
        if draw(st.booleans()):
            name = name.replace("e", "\\u0065")
        members.append(name + colon + json.dumps(value, separators=(comma, colon), ensure_ascii=ascii_only))
    body = ("{" + comma.join(members) + "}").encode()
    return body.replace(b'"x"', b'"\xff"') if draw(st.booleans()) else body


def members(body: bytes) -> list[tuple[str, object]]:
    """The members of the top level, in order, duplicates kept."""
    found: list[tuple[str, object]] = json.loads(body.decode("utf-8", "replace"), object_pairs_hook=list)
    return found


@given(bodies(), texts)
def test_the_document_equals_the_naive_rewrite(body: bytes, model: str) -> None:
    before = members(body)
    expected = [(key, model if key == "model" else value) for key, value in before]
    if all(key != "model" for key, _ in before):
        expected.insert(0, ("model", model))
    splices = model_splices(body, model)
    assert members(spliced(body, splices)) == expected
    assert len(splices) == max(1, sum(key == "model" for key, _ in before))


@given(bodies())
def test_all_other_bytes_stay(body: bytes) -> None:
    splices = model_splices(body, "NEW")
    replaced = [body[start:end] for start, end, _ in splices]
    if replaced == [b""]:
        assert re.sub(rb'"model":"NEW",?', b"", spliced(body, splices), count=1) == body
        return
    back = spliced(body, splices)
    for (start, _, new), old in zip(splices, replaced, strict=True):
        back = back[:start] + old + back[start + len(new) :]
    assert back == body
