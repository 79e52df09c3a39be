"""How findings are shown, and how the nearest name is found."""

from __future__ import annotations

import json

import pytest

from epp.config.findings import json_report, text_line, text_report
from epp.config.report import Report
from epp.config.wording import describe, join, nearest, show, step, suggest
from epp.config.yaml_nodes import Place
from epp.errors import ConfigError, Finding, Severity

FINDING = Finding(
    code="CFG061",
    path="schedulingProfiles[0].plugins[2].pluginRef",
    message='no plugin is named "queue-scorr"',
    fix='did you mean "queue-scorer"?',
    value="queue-scorr",
    line=14,
    column=20,
    file="epp.yaml",
)


def test_one_line_says_where_what_and_what_to_do() -> None:
    assert text_line(FINDING) == (
        "epp.yaml:14:20: error CFG061: schedulingProfiles[0].plugins[2].pluginRef: "
        'no plugin is named "queue-scorr"; did you mean "queue-scorer"?'
    )


def test_what_is_unknown_is_left_out() -> None:
    assert text_line(Finding("CFG010", "", "the document is empty")) == "error CFG010: the document is empty"


def test_json_has_every_part() -> None:
    assert json.loads(json_report([FINDING])) == [
        {
            "file": "epp.yaml",
            "line": 14,
            "column": 20,
            "path": "schedulingProfiles[0].plugins[2].pluginRef",
            "value": "queue-scorr",
            "message": 'no plugin is named "queue-scorr"',
            "fix": 'did you mean "queue-scorer"?',
            "severity": "error",
            "code": "CFG061",
        }
    ]


def test_json_is_json_also_for_numbers_that_json_cannot_hold() -> None:
    report = json_report([Finding("CFG038", "a", "m", value=float("nan"))])
    assert json.loads(report, parse_constant=pytest.fail)[0]["value"] == "nan"


def test_text_shows_the_first_twenty_errors_and_json_all() -> None:
    findings = [Finding(f"CFG{n:03}", "", "m") for n in range(25)] + [Finding("WRN001", "", "m", severity=Severity.WARNING)]
    lines = text_report(findings).splitlines()
    assert lines[19] == "error CFG019: m"
    assert lines[20:] == ["warning WRN001: m", "and 5 more errors"]
    assert len(json.loads(json_report(findings))) == 26


def test_findings_come_in_document_order_and_once_for_a_path() -> None:
    report = Report("f")
    report.warn("WRN001", "c", "third")
    report.error("CFG002", "b", "second", at=Place(3, 1))
    report.error("CFG056", "b", "a consequence", at=Place(3, 1))
    report.error("CFG059", "d", "fourth", at=Place(4, 1))
    report.error("CFG065", "d", "fifth", at=Place(4, 1))
    report.error("CFG065", "d", "said before", at=Place(4, 1))
    report.inform("INF001", "a", "first", at=Place(2, 9))
    assert [finding.message for finding in report.findings] == ["first", "second", "fourth", "fifth", "third"]
    with pytest.raises(ConfigError) as caught:
        report.raise_if_wrong()
    assert caught.value.findings == report.findings


NEAREST = [
    ("QueueScorer", "queue-scorer"),
    ("queue_scorer", "queue-scorer"),
    ("queue-scorr", "queue-scorer"),
    ("que-scorer", "queue-scorer"),
    ("kv-cache-scorer", "kv-cache-utilization-scorer"),
    ("zzz", ""),
    ("", ""),
]


@pytest.mark.parametrize(("name", "expected"), NEAREST)
def test_nearest(name: str, expected: str) -> None:
    assert nearest(name, ["queue-scorer", "kv-cache-utilization-scorer", "max-score-picker"]) == expected


def test_suggest_lists_few_names_and_no_crowd() -> None:
    assert suggest("zzz", ["b", "a"]) == "use one of a, b"
    assert suggest("zzz", ["a"]) == "use a"
    assert suggest("zzz", [f"name{n}" for n in range(13)], "see the list") == "see the list"
    assert suggest("zzz", [], "declare one") == "declare one"


VALUES: list[tuple[object, str]] = [
    ("two", 'the string "two"'),
    (5, "the integer 5"),
    (True, "the boolean true"),
    (1.5, "the number 1.5"),
    (None, "null"),
    ([1], "a list"),
    ({"a": 1}, "a mapping"),
]


@pytest.mark.parametrize(("value", "words"), VALUES, ids=[words for _, words in VALUES])
def test_describe(value: object, words: str) -> None:
    assert describe(value) == words


def test_long_values_are_cut() -> None:
    assert len(show("x" * 500)) == 80


def test_join_and_step() -> None:
    assert (join([]), join(["a"]), join(["a", "b", "c"])) == ("", '"a"', '"a", "b" and "c"')
    assert (step("", "a"), step("a", "b"), step("a", 0), step("a", "b.c")) == ("a", "a.b", "a[0]", 'a["b.c"]')
