"""Change members of a JSON body: only the named ones change, and the result is JSON again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.body import splice
from epp.request.rewrite import growth, member_splices, member_value


def changed(body: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    splices = member_splices(body, changes)
    after = bytes(splice(memoryview(body), splices))
    assert len(after) - len(body) == growth(splices)
    return after


@pytest.mark.parametrize(
    ("body", "changes", "after"),
    [
        pytest.param(b'{"a":1,"b":2}', {"a": b"[3]"}, b'{"a":[3],"b":2}', id="replace"),
        pytest.param(b'{"a":1,"b":2}', {"c": b'"x"'}, b'{"c":"x","a":1,"b":2}', id="add"),
        pytest.param(b"{ }", {"c": b"1", "d": b"2"}, b'{"c":1,"d":2 }', id="add to an empty object"),
        pytest.param(b'{"a":1, "b":2}', {"a": None}, b'{"b":2}', id="remove the first"),
        pytest.param(b'{"a":1, "b":2 }', {"b": None}, b'{"a":1 }', id="remove the last"),
        pytest.param(b'{"a":1,"b":2,"c":3,"d":4}', {"b": None, "c": None}, b'{"a":1,"d":4}', id="remove neighbours"),
        pytest.param(b'{"a":1,"b":2,"c":3}', {"a": None, "c": None}, b'{"b":2}', id="remove around one"),
        pytest.param(b'{ "a":1,"b":2 }', {"a": None, "b": None}, b"{  }", id="remove all"),
        pytest.param(b'{"a":1}', {"a": None, "b": b"2"}, b'{"b":2}', id="remove all and add"),
        pytest.param(b'{"a":1,"a":2,"b":3}', {"a": b"0"}, b'{"a":0,"a":0,"b":3}', id="replace both"),
        pytest.param(b'{"a":1,"b":3,"a":2}', {"a": None}, b'{"b":3}', id="remove both"),
        pytest.param(b'{"x":{"a":1},"\\u0061":[{"a":"}"}]}', {"a": b"0"}, b'{"x":{"a":1},"\\u0061":0}', id="escaped, nested"),
        pytest.param(b'{"t":"\xff","a":1}', {"a": b"2"}, b'{"t":"\xff","a":2}', id="bytes that are no text"),
        pytest.param(b'{"n":1e400,"m":12.50,"a":1}', {"a": None}, b'{"n":1e400,"m":12.50}', id="numbers stay"),
        pytest.param(b'{"a":1}', {"z": None}, b'{"a":1}', id="remove what is not there"),
    ],
)  # fmt: skip
def test_changes(body: bytes, changes: Mapping[str, bytes | None], after: bytes) -> None:
    assert changed(body, changes) == after


names = st.sampled_from(["a", "b", "c", "model", 'q"', "é"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    document=st.dictionaries(names, values, max_size=5),
    changes=st.dictionaries(names, st.none() | values.map(lambda value: [value]), max_size=4),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_the_result_is_what_a_dictionary_would_become(
    document: dict[str, object], changes: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    texts = {key: None if value is None else json.dumps(value).encode() for key, value in changes.items()}
    expected = {k: v for k, v in {**document, **changes}.items() if k not in changes or changes[k] is not None}
    assert json.loads(changed(body, texts)) == expected


def test_the_value_of_a_member() -> None:
    body = b'{"a": [1, 2] ,"b":{"a":3},"a":"4"}'
    assert member_value(body, "a") == b'"4"', "the last one counts"
    assert member_value(body, "b") == b'{"a":3}'
    assert member_value(body, "c") is None


@pytest.mark.parametrize("body", [b"[]", b"", b'{"a":['])
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        member_splices(body, {"a": b"1"})
