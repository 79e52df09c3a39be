"""The reader of wanted series: pages that are refused, selectors."""

from __future__ import annotations

import pytest

from epp.framework.prometheus_text import FamilyReader, Sample, SeriesSpec, UnreadablePageError, check_page, parse_labels


@pytest.mark.parametrize(
    "page",
    [b"", b"\n", b"a 1\n", b"# HELP a b\n", b'_x{l="v"} 1\n', b":x 1\n", b"\n\na 1\n", b"a 1\n# EOF", b"# EOF"],
    ids=["empty", "blank", "sample", "comment", "underscore", "colon", "blank lines", "OpenMetrics", "OpenMetrics, empty"],
)
def test_whole_pages(page: bytes) -> None:
    check_page(page)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        pytest.param(b"a 1\nb 1", "cut off", id="M21 last line without an end"),
        pytest.param(b"a 1\nb{", "cut off", id="cut in a label set"),
        pytest.param(b"a 1 # EOF", "cut off", id="the end of OpenMetrics within a line"),
        pytest.param(b'{"iterations": []}\n', "no Prometheus text page", id="JSON"),
        pytest.param(b"[]\n", "no Prometheus text page", id="JSON list"),
        pytest.param(b"<html></html>\n", "no Prometheus text page", id="HTML"),
        pytest.param(b"\x1f\x8b\x08\n", "no Prometheus text page", id="binary"),
    ],
)
def test_what_is_no_whole_page(page: bytes, message: str) -> None:
    with pytest.raises(UnreadablePageError, match=message):
        check_page(page)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param(b"a 1\n", [Sample({}, 1.0)], id="bare"),
        pytest.param(b"a{} 1\n", [Sample({}, 1.0)], id="empty label set"),
        pytest.param(b"a\t1 \n", [Sample({}, 1.0)], id="tab"),
        pytest.param(b'a { l = "v" , } 1 5\n', [Sample({"l": "v"}, 1.0, 5)], id="blanks, last comma, timestamp"),
        pytest.param(b"ab 1\nabc 2\na 3\n", [Sample({}, 3.0)], id="longer names first"),
        pytest.param(b"b 1\n# a 5\na 3\n", [Sample({}, 3.0)], id="name in a comment"),
        pytest.param(b'b{x="\\na 5"} 1\na 3\n', [Sample({}, 3.0)], id="name in a label"),
        pytest.param(b"ab 1\n", [], id="only a longer name"),
        pytest.param(b"", [], id="empty page"),
        pytest.param(b"a -Inf\na 1e3\n", [Sample({}, float("-inf")), Sample({}, 1000.0)], id="values"),
        pytest.param(b"a 1E-3\n", [Sample({}, 0.001)], id="exponent"),
        pytest.param(b'a{l="}"} 1 # {trace_id="b}c"} 0.5 17.2\n', [Sample({"l": "}"}, 1.0)], id="exemplar"),
        pytest.param(b'a{l=" # {"} 1 5 # {} 1\n', [Sample({"l": " # {"}, 1.0, 5)], id="exemplar behind a timestamp"),
        pytest.param(b"a 1 1520879607.789\n", [Sample({}, 1.0, 1520879607.789)], id="timestamp of OpenMetrics"),
        pytest.param(b'a{"x.y\\"z"="v",l="w"} 1\n', [Sample({'x.y"z': "v", "l": "w"}, 1.0)], id="label in quotes"),
        pytest.param(b'{"a.b",l="v"} 1\na 2\n', [Sample({}, 2.0)], id="behind a name in quotes"),
        pytest.param(b"# TYPE a counter\na_total 1\na_created 5\na 2\n# EOF\n", [Sample({}, 2.0)], id="behind its suffixes"),
        pytest.param(b'a{l="\\\\ \\" \\n \xc3\xa9 }"} 1\n', [Sample({"l": '\\ " \n \xe9 }'}, 1.0)], id="escapes and UTF-8"),
    ],
)
def test_samples_of_a_name(page: bytes, expected: list[Sample]) -> None:
    assert FamilyReader("a").read(page) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a 1 2 3",
        b"a 1_0",
        b"a 1\r",
        b"a 1 x",
        b"a 1 NaN",
        b"a 1 # x",
        b"a 0x1",
        b"a{",
        b'a{l="v} 1',
        b"a{l=v} 1",
        b'a{l="v" m="w"} 1',
        b"a  ",
    ],
)
def test_malformed_lines(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a: "):
        FamilyReader("a").read(line + b"\n")


def test_a_page_whose_last_line_has_no_end_is_never_half_read() -> None:
    with pytest.raises(ValueError, match="the last line has no end"):
        FamilyReader("a").read(b"a 1")


def test_label_sets_are_shared() -> None:
    assert parse_labels(b'l="v"') is parse_labels(b'l="v"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b_1", SeriesSpec("a:b_1")),
        (" a ", SeriesSpec("a")),
        ("a{}", SeriesSpec("a")),
        ("a{l=v}", SeriesSpec("a", (("l", "v"),))),
        (' a { l = v , m = "w x" } ', SeriesSpec("a", (("l", "v"), ("m", "w x")))),
        ('a{l="}"}', SeriesSpec("a", (("l", "}"),))),
    ],
)
def test_selectors(text: str, expected: SeriesSpec) -> None:
    assert SeriesSpec.parse(text) == expected
    assert SeriesSpec.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "1a", "a{", "a}", "a{l}", "a{=v}", "a{l=}", 'a{l=""}', "a{l=v}x", "{l=v}", "a{l=v,,m=w}", "a b", "a{l!=v}"]
)
def test_wrong_selectors(text: str) -> None:
    with pytest.raises(ValueError, match=r"metric selector|label"):
        SeriesSpec.parse(text)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({"l": "v"}, True), ({"l": "v", "m": "w"}, True), ({"l": "w"}, False), ({"m": "v"}, False), ({}, False)],
)
def test_a_series_matches_with_more_labels(labels: dict[str, str], expected: bool) -> None:
    assert SeriesSpec.parse("a{l=v}").matches(labels) is expected
