"""Errors in plugin parameters: place, code, and words that an operator understands."""

from __future__ import annotations

import pytest

from epp.config.loaded import LoadFlags
from epp.framework.registry import Registry
from tests.config.corpus import findings, lines
from tests.config.doubles import HEADER, registry

TYPES: Registry = registry()


def thing(parameters: str) -> str:
    """A document with one plugin with these parameters, which stand in line 5 from column 18."""
    return HEADER + f"plugins:\n  - type: thing\n    parameters: {{{parameters}}}\n"


FAILED = "failed to create plugin 'thing' (type: thing)"
DURATION = "use a string such as 30s, 200ms or 1m30s; days are 24h"
QUANTITY = "use a number, or one with a suffix such as 1G, 10Mi or 2k"
SEE = "see `epp plugins thing`"
WRONG = {
    "number-for-string": ("text: 5", "24: error CFG054: .text: expected a string, not the integer 5", 'quote it: "5"'),
    "boolean-for-string": (
        "text: true",
        "24: error CFG054: .text: expected a string, not the boolean true",
        'quote it: "true"',
    ),
    "list-for-string": ("text: [a]", "24: error CFG054: .text: expected a string, not a list", "write a string"),
    "empty-string": ('text: ""', f"24: error CFG056: .text: {FAILED}: text must not be empty", SEE),
    "string-for-integer": (
        'count: "2"',
        '25: error CFG054: .count: expected an integer, not the string "2"',
        "remove the quotes: 2",
    ),
    "boolean-for-integer": (
        "count: true",
        "25: error CFG054: .count: expected an integer, not the boolean true",
        "write an integer",
    ),
    "fraction-for-integer": (
        "count: 1.5",
        "25: error CFG054: .count: expected an integer, not the number 1.5",
        "write an integer",
    ),
    "string-for-number": (
        'ratio: "x"',
        '25: error CFG054: .ratio: expected a number, not the string "x"',
        "write a number",
    ),
    "not-a-number": ("ratio: .nan", "25: error CFG038: .ratio: expected a finite number", "use a number"),
    "infinity": ("ratio: -.inf", "25: error CFG038: .ratio: expected a finite number", "use a number"),
    "string-for-boolean": (
        'flag: "true"',
        '24: error CFG054: .flag: expected a boolean (true or false), not the string "true"',
        "remove the quotes: true",
    ),
    "integer-for-boolean": (
        "flag: 1",
        "24: error CFG054: .flag: expected a boolean (true or false), not the integer 1",
        "write a boolean (true or false)",
    ),
    "unknown-choice": (
        "mode: fasst",
        f'24: error CFG056: .mode: {FAILED}: mode cannot be "fasst": it is one of fast, slow',
        'did you mean "fast"?',
    ),
    "number-for-choice": (
        "mode: 1",
        "24: error CFG054: .mode: expected 'fast' or 'slow', not the integer 1",
        "write one of these",
    ),
    "number-for-duration": ("wait: 30", "24: error CFG034: .wait: 30 is not a duration", DURATION),
    "zero-for-duration": ("wait: 0", "24: error CFG034: .wait: 0 is not a duration", DURATION),
    "days": ("wait: 1d", '24: error CFG034: .wait: "1d" is not a duration', DURATION),
    "blank-in-duration": ("wait: 30 s", '24: error CFG034: .wait: "30 s" is not a duration', DURATION),
    "fraction-for-go-duration": ("goWait: 1.5", "26: error CFG034: .goWait: 1.5 is not a duration", DURATION),
    "quantity": ("size: 1GB", '24: error CFG034: .size: "1GB" is not a quantity', QUANTITY),
    "boolean-for-quantity": ("size: true", "24: error CFG034: .size: true is not a quantity", QUANTITY),
    "scalar-for-list": ("names: a", '25: error CFG054: .names: expected a list, not the string "a"', "write a list"),
    "entry-of-list": (
        "names: [a, 5]",
        "29: error CFG054: .names[1]: expected a string, not the integer 5",
        'quote it: "5"',
    ),
    "scalar-for-mapping": (
        "nested: 5",
        "26: error CFG054: .nested: expected a mapping, not the integer 5",
        "write a mapping",
    ),
    "below-range": (
        "nested: {depth: 0}",
        f"34: error CFG056: .nested.depth: {FAILED}: nested.depth must be at least 1, not 0",
        "use at least 1",
    ),
    "above-range": (
        "many: [{depth: 10}]",
        f"33: error CFG056: .many[0].depth: {FAILED}: many[0].depth must be at most 9, not 10",
        "use at most 9",
    ),
    "value-of-mapping": (
        "byName: {x: y}",
        '30: error CFG054: .byName.x: expected an integer, not the string "y"',
        "write an integer",
    ),
    "unknown": ("cuont: 5", '18: error CFG053: .cuont: unknown parameter "cuont" of thing', 'did you mean "count"?'),
    "other-case": ("GOWAIT: 1s", '18: error CFG053: .GOWAIT: unknown parameter "GOWAIT" of thing', 'did you mean "goWait"?'),
    "python-name": (
        "go_wait: 1s",
        '18: error CFG053: .go_wait: unknown parameter "go_wait" of thing',
        'did you mean "goWait"?',
    ),
    "unknown-below": (
        "nested: {deep: 1}",
        '27: error CFG053: .nested.deep: unknown parameter "deep" of thing',
        'did you mean "depth"?',
    ),
    "unknown-in-list": (
        "many: [{}, {deep: 1}]",
        '30: error CFG053: .many[1].deep: unknown parameter "deep" of thing',
        'did you mean "depth"?',
    ),
    "nothing-like-it": ("zzz: 1", '18: error CFG053: .zzz: unknown parameter "zzz" of thing', SEE),
    "odd-key": ('"a.b": 1', '18: error CFG053: ["a.b"]: unknown parameter "a.b" of thing', SEE),
}


@pytest.mark.parametrize(("parameters", "message", "fix"), WRONG.values(), ids=WRONG)
def test_wrong_parameter(parameters: str, message: str, fix: str) -> None:
    column, _, rest = message.partition(": ")
    head, _, tail = rest.partition(": ")
    path, _, text = tail.partition(": ")
    expected = (
        f"epp.yaml:5:{int(column)}: {head}: plugins[0].parameters{path}: {text}; {fix if fix == SEE else f'{fix} ({SEE})'}"
    )
    assert lines(thing(parameters), types=TYPES) == [expected]


RIGHT = {
    "float-without-fraction": "count: 1e8",
    "integer-as-number": "ratio: 2",
    "zero-duration": 'wait: "0"',
    "go-duration-in-nanoseconds": "goWait: 60000000000",
    "quantity-with-suffix": "size: 10Mi",
    "quantity-as-number": "size: 5e3",
    "null-is-absent": "count: null, nested: {depth: ~}, names: ",
}


@pytest.mark.parametrize("parameters", RIGHT.values(), ids=RIGHT)
def test_right_parameter(parameters: str) -> None:
    assert lines(thing(parameters), types=TYPES) == []


def test_all_errors_of_one_plugin_at_once() -> None:
    found = findings(thing("cuont: 5, wait: 3, mode: x, nested: {depth: 0}"), types=TYPES)
    assert [(f.code, f.path) for f in found] == [
        ("CFG053", "plugins[0].parameters.cuont"),
        ("CFG034", "plugins[0].parameters.wait"),
        ("CFG056", "plugins[0].parameters.mode"),
        ("CFG056", "plugins[0].parameters.nested.depth"),
    ]


def test_a_missing_parameter_is_placed_at_the_mapping_or_the_type() -> None:
    text = HEADER + "plugins:\n  - type: needs\n  - {type: needs, name: n, parameters: {}}\n"
    assert lines(text, types=TYPES) == [
        (
            "epp.yaml:4:11: error CFG056: plugins[0].parameters.value: "
            "failed to create plugin 'needs' (type: needs): value is required; add it (see `epp plugins needs`)"
        ),
        (
            "epp.yaml:5:40: error CFG056: plugins[1].parameters.value: "
            "failed to create plugin 'n' (type: needs): value is required; add it (see `epp plugins needs`)"
        ),
    ]


def test_secrets_are_never_shown() -> None:
    text = thing("password: 12345, nested: {apiToken: [hunter2]}, text: 5")
    shown = lines(text, types=TYPES)
    assert [finding.value for finding in findings(text, types=TYPES)] == ["***", "***", 5]
    assert shown[0] == (
        "epp.yaml:5:28: error CFG054: plugins[0].parameters.password: expected a string, not ***; write a string "
        "(see `epp plugins thing`)"
    )
    assert "12345" not in "".join(shown)
    assert "hunter2" not in "".join(shown)


def test_parameters_without_effect_and_of_older_forms() -> None:
    assert lines(thing("old: x, older: y"), types=TYPES) == [
        "epp.yaml:5:18: warning WRN007: plugins[0].parameters.old: old has no effect: it is decided elsewhere; remove it",
        "epp.yaml:5:26: warning WRN007: plugins[0].parameters.older: older is an older form; write text",
    ]


FACTORIES = HEADER + "plugins: [{type: refusing, name: r}, {type: breaking}, {type: warning, parameters: {count: 0}}]\n"


def test_what_factories_refuse_and_warn_about() -> None:
    assert lines(FACTORIES, types=TYPES) == [
        (
            "epp.yaml:3:11: error CFG056: plugins[0].parameters: failed to create plugin 'r' (type: refusing): "
            "the moon is not full; see `epp plugins refusing`"
        ),
        (
            "epp.yaml:3:38: error CFG056: plugins[1].parameters: failed to create plugin 'breaking' (type: breaking): "
            "RuntimeError: boom; see `epp plugins breaking`"
        ),
        "epp.yaml:3:92: warning WRN012: plugins[2].parameters.count: count 0 is taken as 1",
    ]


def test_factories_are_asked_although_other_errors_exist() -> None:
    text = HEADER + "plugins: [{type: refusing}, {type: bare, parameters: {x: 1}}, {type: nothing-like-it}]\n"
    assert [finding.code for finding in findings(text, types=TYPES)] == ["CFG056", "CFG053", "CFG052"]


def test_warnings_of_factories_are_errors_when_strict() -> None:
    text = HEADER + "plugins: [{type: warning}]\n"
    assert [str(f.severity) for f in findings(text, LoadFlags(strict=True), TYPES)] == ["error"]
