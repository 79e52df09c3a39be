"""YAML: scalars, places, limits, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.findings import text_line
from epp.config.report import Report, UnreadableError
from epp.config.yaml_nodes import MapNode, Place, plain
from epp.config.yaml_read import MAX_DEPTH, read_nodes
from epp.config.yaml_scalars import resolve

SCALARS = [
    ("1e8", 1e8),
    ("1.0e8", 1e8),
    ("1e+8", 1e8),
    ("1E+3", 1000.0),
    ("12:30", "12:30"),
    ("1:30:00", "1:30:00"),
    ("2026-01-01", "2026-01-01"),
    ("y", "y"),
    ("n", "n"),
    ("N", "N"),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("0o17", 15),
    ("0x1F", 31),
    ("0b11", 3),
    ("-7", -7),
    ("+7", 7),
    ("0", 0),
    ("08", "08"),
    ("0.5", 0.5),
    (".5", 0.5),
    ("5.", 5.0),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("+.INF", math.inf),
    ("~", None),
    ("", None),
    ("Null", None),
    ("NULL", None),
    ("1.2.3", "1.2.3"),
    ("1_", "1_"),
    ("_1", "_1"),
    ("-", "-"),
    (".", "."),
    ("0x", "0x"),
    ("0b2", "0b2"),
    ("nan", "nan"),
    ("1d", "1d"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text or "nothing" for text, _ in SCALARS])
def test_plain_scalar(text: str, value: object) -> None:
    found, advice = resolve(text)
    assert (found, type(found), advice) == (value, type(value), "")


def test_not_a_number() -> None:
    assert math.isnan(resolve(".nan")[0])  # type: ignore[arg-type]


ADVISED = [
    ("yes", True, "yes is read as true; write true or false, or quote it"),
    ("No", False, "No is read as false; write true or false, or quote it"),
    ("ON", True, "ON is read as true; write true or false, or quote it"),
    ("off", False, "off is read as false; write true or false, or quote it"),
    ("017", 15, "017 is read as an octal number, 15; write 17 or 0o17"),
    ("1_000", 1000, "1_000 is read as 1000; write the number without underscores"),
    ("1_000.5", 1000.5, "1_000.5 is read as 1000.5; write the number without underscores"),
]


@pytest.mark.parametrize(("text", "value", "advice"), ADVISED, ids=[text for text, _, _ in ADVISED])
def test_scalar_that_is_better_written_otherwise(text: str, value: object, advice: str) -> None:
    assert resolve(text) == (value, advice)


def test_thousands_of_digits_are_only_out_of_range() -> None:
    node, found = read("a: " + "9" * 5000)
    assert isinstance(node, MapNode)
    assert len(found) == 1
    assert found[0].startswith("f:1:4: error CFG035: a: 9999")


def read(text: str | bytes) -> tuple[MapNode | None, list[str]]:
    """The tree, or None, and the findings."""
    report = Report("f")
    try:
        node = read_nodes(text.encode() if isinstance(text, str) else text, report)
    except UnreadableError:
        return None, [text_line(finding) for finding in report.findings]
    return node, [text_line(finding) for finding in report.findings]


def values(text: str | bytes) -> object:
    """The values of a document without findings."""
    node, found = read(text)
    assert found == []
    assert node is not None
    return plain(node)


ACCEPTED = {
    "json": ('{"a": [1, "x", null, true], "b": {"c": 1.5}}', {"a": [1, "x", None, True], "b": {"c": 1.5}}),
    "byte-order-mark": (b"\xef\xbb\xbfa: 1", {"a": 1}),
    "crlf": ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    "leading-and-trailing-marks": ("---\na: 1\n...\n---\n", {"a": 1}),
    "null-is-absent": ("a:\nb: ~\nc: null\nd: 1", {"d": 1}),
    "quoted-is-text": ("a: '1'\nb: \"true\"\nc: 'null'", {"a": "1", "b": "true", "c": "null"}),
    "quoted-keys": ('"1": a\n"true": b', {"1": "a", "true": "b"}),
    "block-text": ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    "standard-tags": (
        '{a: !!str 1, b: !!int "3", c: !!float 2, d: !!map {}, e: !!seq [], f: !!bool "true", g: ! 5}',
        {"a": "1", "b": 3, "c": 2.0, "d": {}, "e": [], "f": True, "g": "5"},
    ),
    "merge": ("a: &p {x: 1, z: 3}\nb: {<<: *p, x: 2}", {"a": {"x": 1, "z": 3}, "b": {"x": 2, "z": 3}}),
    "merge-of-several": (
        "a: &p {x: 1}\nb: &q {x: 2, y: 2}\nc: {<<: [*p, *q]}",
        {"a": {"x": 1}, "b": {"x": 2, "y": 2}, "c": {"x": 1, "y": 2}},
    ),
    "quoted-merge-key-is-a-key": ("'<<': {a: 1}", {"<<": {"a": 1}}),
    "anchor-used-twice": ("a: &l [1]\nb: *l\nc: *l", {"a": [1], "b": [1], "c": [1]}),
    "anchor-of-a-key": ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(text: str | bytes, expected: object) -> None:
    assert values(text) == expected


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcd", "bcde", strict=True)
)
EMPTY = "f: error CFG010: the document is empty; give a configuration, or a file of zero bytes for the built-in default"

REFUSED = {
    "template": (
        "a: {{ .Values.x }}",
        ("f:1:5: error CFG012: a: a key must be a string, not a mapping; this is an unrendered template; "
         "render it (`helm template`) or quote it"),
    ),
    "null-key": ("~: x", 'f:1:1: error CFG012: ["~"]: a key must be a string, not null; quote it: "~"'),
    "boolean-key": ("true: x", 'f:1:1: error CFG012: true: a key must be a string, not the boolean true; quote it: "true"'),
    "control-character": (
        b"a: 1\nb: \x07",
        "f:2:4: error CFG005: not valid YAML: control characters are not allowed: character 7 at offset 8; remove it",
    ),
    "open-quote": (
        "a: 'x",
        ("f:1:6: error CFG005: not valid YAML: found unexpected end of stream while scanning a quoted scalar, "
         "in the line `a: 'x`; check the indentation, quotes and brackets here and in the lines above"),
    ),
    "too-deep": (
        "a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        f"f:1:67: error CFG007: a{'[0]' * 63}: nested deeper than 64 levels; flatten it",
    ),
    "deep-by-alias": (
        "a: &x " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*x" + "]" * 40,
        f"f:2:44: error CFG007: b{'[0]' * 40}: nested deeper than 64 levels; flatten it",
    ),
    "alias-bomb": (
        BOMB,
        "f:5:36: error CFG007: e[7]: the document has more than 100000 nodes with its aliases written out; use fewer aliases",
    ),
    "merge-of-a-scalar": (
        "a: {<<: 5}",
        'f:1:9: error CFG032: a["<<"]: the merge key << needs a mapping, not the integer 5; refer to a mapping: `<<: *anchor`',
    ),
    "tag-that-does-not-fit": ("a: !!int x", 'f:1:4: error CFG032: a: !!int does not fit the string "x"; remove the tag'),
    "binary": ("a: !!binary aGk=", "f:1:4: error CFG008: a: the tag !!binary is not allowed; remove it"),
    "set": ("a: !!set {x}", "f:1:4: error CFG008: a: the tag !!set is not allowed; remove it"),
    "own-tag": ("a: !foo [1]", "f:1:4: error CFG008: a: the tag !foo is not allowed; remove it"),
    "null": ("null", EMPTY),
    "blanks": (" \n# nothing\n", EMPTY),
    "scalar": (
        "5",
        "f:1:1: error CFG011: the document must be a mapping, not the integer 5; begin with `apiVersion:` and `kind:`",
    ),
    "three-documents": (
        "a: 1\n---\n---\nb: 1",
        "f:3:1: error CFG009: a second document begins in line 3; keep one document; remove the `---` and what follows",
    ),
    "integer": (
        "a: -9223372036854775809",
        "f:1:4: error CFG035: a: -9223372036854775809 does not fit into 64 bits; at most 9223372036854775807",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str | bytes, line: str) -> None:
    assert read(text)[1] == [line]


def test_places_count_from_one() -> None:
    node, _ = read("a: 1\nb:\n  ü: [x, y]\n")
    assert node is not None
    inner = node.entries["b"].node
    assert isinstance(inner, MapNode)
    assert inner.entries["ü"].key_place == Place(3, 3)
    assert inner.entries["ü"].node.place == Place(3, 6)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_one_named_error(data: bytes) -> None:
    node, found = read(data or b" ")
    assert node is not None or len(found) >= 1
