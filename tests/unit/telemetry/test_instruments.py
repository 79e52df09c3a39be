"""Counters, gauges and histograms against naive models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.telemetry.instruments import Counter, Family, Gauge, Histogram

BOUNDS = (0.5, 1, 2.5)
durations = st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 5)), max_size=50)


@given(durations)
def test_a_histogram_counts_like_prometheus_buckets_do(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    at_most = [sum(histogram.counts[: index + 1]) for index in range(len(BOUNDS))]
    assert at_most == [sum(value <= bound for value in values) for bound in BOUNDS]
    assert sum(histogram.counts) == len(values)
    assert histogram.sum == pytest.approx(sum(values))


@given(durations, durations)
def test_added_counts_equal_observations(first: list[float], second: list[float]) -> None:
    added, source, observed = Histogram(BOUNDS), Histogram(BOUNDS), Histogram(BOUNDS)
    for value in first:
        added.observe(value)
    for value in second:
        source.observe(value)
    added.add_counts(tuple(source.counts), source.sum)
    for value in first + second:
        observed.observe(value)
    assert added.counts == observed.counts
    assert added.sum == pytest.approx(observed.sum)


def test_counts_of_other_bounds_are_refused() -> None:
    histogram = Histogram(BOUNDS)
    with pytest.raises(ValueError, match="counts of 3 buckets added to a histogram of 4"):
        histogram.add_counts((1, 1, 1), 3.0)
    assert histogram.counts == [0, 0, 0, 0]


def test_gauges_and_counters_move() -> None:
    gauge, counter = Gauge(), Counter()
    gauge.set(5)
    gauge.inc()
    gauge.dec(2)
    counter.inc()
    counter.inc(2.5)
    assert (gauge.value, counter.value) == (4, 3.5)


def test_a_family_has_one_child_per_label_values() -> None:
    family = Family(Counter)
    assert family.child(("a", "b")) is family.child(("a", "b"))
    assert family.child(("a", "b")) is not family.child(("a", "c"))


def test_label_values_that_clean_to_the_same_share_a_child() -> None:
    family = Family(Counter)
    assert family.child(("x" * 300,)) is family.child(("x" * 301,))
    assert list(family.children) == [("x" * 256,)]
