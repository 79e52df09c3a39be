"""The text format, read back by the client library's parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.telemetry import exposition
from epp.telemetry.catalogue import Kind, Metric
from epp.telemetry.exposition import Points, number
from epp.telemetry.instruments import Counter, Gauge, Histogram
from tests.unit.telemetry.scrape import samples


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (0.005, "0.005"),
        (1.25, "1.25"),
        (0.0001, "0.0001"),
        (0.00005, "5e-05"),
        (131072, "131072"),
        (999999.5, "999999.5"),
        (1_000_000, "1e+06"),
        (-2_500_000.0, "-2.5e+06"),
        (1048576, "1.048576e+06"),
        (1073741824, "1.073741824e+09"),
        (1234567.25, "1.23456725e+06"),
        (1e16, "1e+16"),
        (1e100, "1e+100"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
    ids=str,
)
def test_numbers_are_written_as_go_writes_them(value: float, expected: str) -> None:
    assert number(value) == expected


@given(st.floats(allow_nan=False))
def test_a_number_reads_back_exactly(value: float) -> None:
    assert float(number(value)) == value


def page(*families: Points) -> bytes:
    return "".join(exposition.text(families, legacy=False)).encode()


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_label_value_reads_back(label: str) -> None:
    counter = Counter()
    counter.inc(3)
    metric = Metric("x_total", Kind.COUNTER, ("a", "b"), "Help.")
    # The parser splits at line ends of other kinds too, which the format does not.
    found = samples(page(Points(metric, {(label.replace("\r", ""), "z"): counter})))
    assert found == {("x_total", frozenset({("a", label.replace("\r", "")), ("b", "z")})): 3.0}


def test_a_histogram_is_written_line_by_line() -> None:
    histogram = Histogram((0.005, 1, 1_000_000))
    for value in (0.005, 0.5, 1.5, 2e6):
        histogram.observe(value)
    metric = Metric("x_seconds", Kind.HISTOGRAM, ("a",), "Help.", (0.005, 1, 1_000_000))
    assert page(Points(metric, {("v",): histogram})).decode().splitlines() == [
        "# HELP x_seconds Help.",
        "# TYPE x_seconds histogram",
        'x_seconds_bucket{a="v",le="0.005"} 1',
        'x_seconds_bucket{a="v",le="1"} 2',
        'x_seconds_bucket{a="v",le="1e+06"} 3',
        'x_seconds_bucket{a="v",le="+Inf"} 4',
        'x_seconds_sum{a="v"} 2.000002005e+06',
        'x_seconds_count{a="v"} 4',
    ]


def test_a_histogram_without_labels_has_no_braces_around_nothing() -> None:
    histogram = Histogram((1,))
    histogram.observe(1)
    metric = Metric("x_seconds", Kind.HISTOGRAM, (), "Help.", (1,))
    lines = page(Points(metric, {(): histogram})).decode().splitlines()[2:]
    assert lines == ['x_seconds_bucket{le="1"} 1', 'x_seconds_bucket{le="+Inf"} 1', "x_seconds_sum 1", "x_seconds_count 1"]


def test_what_was_never_observed_is_left_out() -> None:
    metric = Metric("x_seconds", Kind.HISTOGRAM, (), "Help.", (1,))
    empty = Metric("y", Kind.GAUGE, ("a",), "Help.")
    assert page(Points(metric, {(): Histogram((1,))}), Points(empty, {})) == b""


def test_observations_counted_by_finer_bounds_are_shown_by_coarser_ones() -> None:
    histogram = Histogram((1, 2, 3, 4))
    for value in (0.5, 1.5, 2.5, 3.5, 4.5):
        histogram.observe(value)
    metric = Metric("x_seconds", Kind.HISTOGRAM, (), "Help.", (2, 4))
    lines = page(Points(metric, {(): histogram})).decode().splitlines()[2:5]
    assert lines == ['x_seconds_bucket{le="2"} 2', 'x_seconds_bucket{le="4"} 4', 'x_seconds_bucket{le="+Inf"} 5']


def test_a_gauge_may_be_zero_and_is_still_written() -> None:
    assert page(Points(Metric("y", Kind.GAUGE, (), "Help."), {(): Gauge()})).decode().splitlines()[-1] == "y 0"
