"""Changes that plugins ask for: what is taken, what wins, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from epp.extproc.body import splice
from epp.request.edits import BodyEditList, EditList
from epp.request.headers import SYSTEM_OWNED


def test_nothing_was_asked() -> None:
    edits = EditList()
    assert edits.freeze() == ((), frozenset())
    assert edits.freeze((("x", "1"),)) == ((("x", "1"),), frozenset())
    assert edits.metadata is None


def test_changes_follow_the_pickers_own() -> None:
    edits = EditList()
    edits.set("X-B", "1")
    edits.set("x-a", "2")
    edits.set("x-b", "3")
    edits.remove("X-Gone")
    assert edits.freeze((("first", "0"),)) == ((("first", "0"), ("x-b", "3"), ("x-a", "2")), frozenset({"x-gone"}))


def test_the_last_word_counts() -> None:
    edits = EditList()
    edits.set("x-a", "1")
    edits.remove("x-a")
    assert edits.freeze() == ((), frozenset({"x-a"}))
    edits.set("x-a", "2")
    assert edits.freeze().set == (("x-a", "2"),), "a set name wins over removal"


@pytest.mark.parametrize(
    "name", [*sorted(SYSTEM_OWNED), "Content-Length", "X-Gateway-Destination-Endpoint", ":path", ":Status"]
)
def test_names_that_the_picker_owns(name: str) -> None:
    edits = EditList()
    edits.set(name, "6.6.6.6:1")
    edits.remove(name)
    assert edits.freeze() == ((), frozenset())


@pytest.mark.parametrize(
    "value",
    ["a\r", "a\nx-evil: 1", "\0", "\ud800", "ok \udc7f"],
    ids=["CR", "LF", "NUL", "a surrogate that is no byte", "another one"],
)
def test_values_that_cannot_be_sent(value: str, caplog: pytest.LogCaptureFixture) -> None:
    edits = EditList()
    edits.set("x-good", "1")
    edits.set("x-bad", value)
    assert edits.freeze().set == (("x-good", "1"),)
    assert [record.fields for record in caplog.records] == [{"header": "x-bad"}]  # type: ignore[attr-defined]  # our logger's


@pytest.mark.parametrize("value", ["", "a b;c=d", "日本", "\udcff", "\t"], ids=["empty", "ASCII", "UTF-8", "a byte", "tab"])
def test_values_that_can(value: str, caplog: pytest.LogCaptureFixture) -> None:
    edits = EditList()
    edits.set("x-a", value)
    assert edits.freeze().set == (("x-a", value),)
    assert not caplog.records


def test_metadata_is_gathered_by_namespace() -> None:
    edits = EditList()
    edits.annotate("envoy.lb", "x", 1)
    edits.annotate("other", "y", {"z": [2]})
    edits.annotate("envoy.lb", "w", None)
    assert edits.metadata == {"envoy.lb": {"x": 1, "w": None}, "other": {"y": {"z": [2]}}}


BODY = b'{"model":"m","input":[{"n":1e2}],"text":"t","gone":1}'


def body_edits() -> BodyEditList:
    return BodyEditList(memoryview(BODY), json.loads(BODY))


def applied(edits: BodyEditList, model: str | None = None) -> bytes:
    return bytes(splice(memoryview(BODY), edits.splices(model)))


def test_a_body_that_nobody_changes() -> None:
    edits = body_edits()
    edits.prepend("input", [])
    assert edits.splices(None) == ()
    assert edits.document == json.loads(BODY)


def test_changes_of_a_body_and_of_its_model() -> None:
    edits = body_edits()
    edits.prepend("input", [{"n": 2}, "x"])
    edits.prepend("input", [0])
    edits.set("text", [1])
    edits.set("more", None)
    edits.remove("gone")
    edits.remove("never")
    after = b'{"more":null,"model":"new","input":[0,{"n":2},"x",{"n":1e2}],"text":[1]}'
    assert applied(edits, "new") == after
    assert {**edits.document, "model": "new"} == json.loads(after), "what plugins see is what is forwarded"


def test_items_before_those_of_an_empty_or_a_set_list() -> None:
    edits = body_edits()
    edits.set("text", [])
    edits.prepend("text", [1, 2])
    assert json.loads(applied(edits))["text"] == [1, 2]


@pytest.mark.parametrize(
    "change", [lambda e: e.set("model", "x"), lambda e: e.remove("model"), lambda e: e.prepend("text", [1])]
)
def test_changes_that_are_refused(change: Callable[[BodyEditList], None]) -> None:
    edits = body_edits()
    with pytest.raises(ValueError, match=r"cannot change the model|is no list"):
        change(edits)
    assert edits.splices(None) == ()
