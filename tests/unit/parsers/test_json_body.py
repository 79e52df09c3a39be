"""What all JSON parsers have in common: which bytes are a document, and which values are usable."""

from __future__ import annotations

import math

import pytest

from epp.errors import RequestError
from plugins.parsers.json_body import MAX_TOKEN_ID, all_token_ids, decode_object, model_of, output_cap

DEEP = 100_000


def decoded(body: bytes) -> dict[str, object]:
    return decode_object(memoryview(body), "bad body")


@pytest.mark.parametrize(
    ("body", "document"),
    [
        pytest.param(b' \r\n\t{"a": 1} \n', {"a": 1}, id="blanks around"),
        pytest.param(b'{"a":1,"a":2}', {"a": 2}, id="of doubled members the last"),
        pytest.param(b'{"A":1,"a":2}', {"A": 1, "a": 2}, id="names are case-sensitive"),
        pytest.param('{"a":"日本\u2028🎉"}'.encode(), {"a": "日本\u2028🎉"}, id="any character"),
        pytest.param(rb'{"a":"\ud83c\udf89"}', {"a": "🎉"}, id="a pair of surrogates"),
        pytest.param(b'{"a":"\xff\xfex"}', {"a": "\ufffd\ufffdx"}, id="invalid UTF-8"),
        pytest.param(b'{"a":"\xe6\x97"}', {"a": "\ufffd"}, id="a character cut short"),
        pytest.param(rb'{"a":"\ud83c"}', {"a": "\ufffd"}, id="high surrogate alone"),
        pytest.param(rb'{"a":"\uDF89x"}', {"a": "\ufffdx"}, id="low surrogate alone"),
        pytest.param(rb'{"a":"\ud83c\ud83c\udf89"}', {"a": "\ufffd🎉"}, id="high surrogate before a pair"),
        pytest.param(rb'{"a":"\ud83c\n\u0041"}', {"a": "\ufffd\nA"}, id="high surrogate before other escapes"),
        pytest.param(rb'{"a":"\\ud83c\ud83c"}', {"a": "\\ud83c\ufffd"}, id="an escaped backslash is no escape"),
        pytest.param(rb'{"\ud83c":"\"\ud83c\\"}', {"\ufffd": '"\ufffd\\'}, id="in names, and beside quotes"),
        pytest.param(
            b'{"a":"\xff","b":"\\udf89","c":1.5}', {"a": "\ufffd", "b": "\ufffd", "c": 1.5}, id="both kinds of damage"
        ),
    ],
)
def test_documents(body: bytes, document: dict[str, object]) -> None:
    found = decoded(body)
    assert found == document
    assert all(text.encode() for text in found), "nothing is left that cannot be encoded"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b"", "bad body: the body is empty", id="empty"),
        pytest.param(b" \n", "bad body: the body is empty", id="blank"),
        pytest.param(b"null", "bad body: expected an object, got null", id="null"),
        pytest.param(b"true", "bad body: expected an object, got a boolean", id="boolean"),
        pytest.param(b"1", "bad body: expected an object, got a number", id="integer"),
        pytest.param(b"1.5", "bad body: expected an object, got a number", id="float"),
        pytest.param(b'"x"', "bad body: expected an object, got a string", id="string"),
        pytest.param(b"[{}]", "bad body: expected an object, got an array", id="array"),
        pytest.param(rb'"\ud83c"', "bad body: expected an object, got a string", id="damaged string"),
    ],
)
def test_what_is_no_object(body: bytes, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        decoded(body)
    assert caught.value.message == text


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no healthy upstream", id="text"),
        pytest.param(b'{"a":1', id="cut"),
        pytest.param(b'{"a":1}{"a":1}', id="two documents"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":-Infinity}', id="Infinity"),
        pytest.param(b'{"a":1e999}', id="a number too large for a float"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":"\n"}', id="control character"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a":"\xff","b":NaN}', id="NaN beside invalid UTF-8"),
        pytest.param(b'{"a":"\xff","b":}', id="broken beside invalid UTF-8"),
        pytest.param(b'{"\xff":\xff}', id="invalid UTF-8 outside strings"),
        pytest.param(rb'{"a":"\ud83c","b":}', id="broken beside a surrogate"),
        pytest.param(rb'{"a":"\ud8"}', id="escape cut short"),
        pytest.param(b'{"a":' * DEEP, id="deep objects, cut"),
        pytest.param(b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}", id="deep arrays"),
        pytest.param(b'{"b":"\\ud83c","a":' + b"[" * DEEP + b"]" * DEEP + b"}", id="deep arrays behind a surrogate"),
        pytest.param(b'{"b":"\xff","a":' + b"[" * DEEP + b"]" * DEEP + b"}", id="deep arrays behind invalid UTF-8"),
        pytest.param(b'{"a":' + b"1" * 10_000 + b"}", id="ten thousand digits"),
        pytest.param(b"\0", id="NUL"),
    ],
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decoded(body)
    assert caught.value.message.startswith("bad body: ")
    assert len(caught.value.message) < 200, "the body is not repeated to the client"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b'\xef\xbb\xbf{"a":1}', "the body begins with a byte order mark; send UTF-8 without one", id="UTF-8 mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "the body is UTF-16; send UTF-8", id="UTF-16"),
        pytest.param(b"\x1f\x8b\x08\0", "the body is compressed with gzip; say so in content-encoding", id="gzip"),
        pytest.param(b"\x28\xb5\x2f\xfd\0", "the body is compressed with zstd; say so in content-encoding", id="zstd"),
        pytest.param(b'{"a":NaN}', "NaN at character 5 is no JSON; leave the member out or send null", id="NaN"),
        pytest.param(
            b'{"a":[1,-Infinity]}', "-Infinity at character 9 is no JSON; leave the member out or send null", id="Infinity"
        ),
        pytest.param(
            b'{"a":"\xff","b":NaN}', "NaN at character 13 is no JSON; leave the member out or send null", id="NaN and no UTF-8"
        ),
    ],
)
def test_a_reason_that_can_be_named_is_named(body: bytes, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        decoded(body)
    assert caught.value.message == f"bad body: {text}"


@pytest.mark.parametrize(
    ("document", "model"),
    [({"model": "m"}, "m"), ({"model": ""}, ""), ({}, ""), ({"model": None}, ""), ({"model": 5}, ""), ({"Model": "m"}, "")],
)
def test_model(document: dict[str, object], model: str) -> None:
    assert model_of(document) == model


@pytest.mark.parametrize(
    ("document", "cap"),
    [
        ({}, None),
        ({"a": 7}, 7),
        ({"a": 0}, 0),
        ({"a": 16.0}, 16),
        ({"a": 0.0, "b": 8}, 0),
        ({"a": 7, "b": 8}, 7),
        ({"b": 8}, 8),
        ({"a": None, "b": 8}, 8),
        ({"a": -1, "b": 8}, 8),
        ({"a": -1.0, "b": 8}, 8),
        ({"a": 1.5, "b": 8}, 8),
        ({"a": "7", "b": 8}, 8),
        ({"a": True, "b": 8}, 8),
        ({"a": math.inf, "b": 8}, 8),
        ({"a": math.nan, "b": 8}, 8),
        ({"a": [7], "b": {}}, None),
        ({"a": 1e300}, int(1e300)),
    ],
)
def test_output_cap_is_the_first_usable(document: dict[str, object], cap: int | None) -> None:
    assert output_cap(document, ("a", "b")) == cap


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0], True),
        ([1, 2, MAX_TOKEN_ID], True),
        ([1.0, 2], True),
        ([], False),
        ([-1], False),
        ([MAX_TOKEN_ID + 1], False),
        ([1.5], False),
        ([1, 1.5], False),
        ([1.0, 10**400], False),
        ([math.inf], False),
        ([1.0, math.nan], False),
        ([True], False),
        ([1, True], False),
        ([1, "a"], False),
        ([None], False),
        ([[1]], False),
    ],
)
def test_token_ids(values: list[object], expected: bool) -> None:
    assert all_token_ids(values) is expected
