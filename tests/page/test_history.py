"""The ring of the last minutes: its numbers, its bounds, and what it does not do."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.testing import FakeClock
from epp.page.history import KEPT, History, quantile_of
from epp.telemetry.metrics import Metrics
from epp.telemetry.pool import EndpointSample, PoolSnapshot
from epp.telemetry.requests import RequestFacts, RequestLabels
from epp.telemetry.totals import Totals, totals_of

POOL = PoolSnapshot(
    "llama",
    [
        EndpointSample("a", is_fresh=True, waiting_queue=1, running_requests=4, kv_cache_usage=0.5),
        EndpointSample("b", is_fresh=True, waiting_queue=3, running_requests=2, kv_cache_usage=0.1),
        EndpointSample("stale", is_fresh=False, waiting_queue=99, running_requests=99, kv_cache_usage=1.0),
        EndpointSample("new", is_fresh=True),
    ],
)


def last(history: History) -> dict[str, object]:
    shown = history.as_json()["columns"]
    assert isinstance(shown, dict)
    return {name: column[-1] for name, column in shown.items()}


def test_a_sample_sums_the_fresh_endpoints() -> None:
    history = History(wall_clock=lambda: 1_000.0)
    history.add(POOL, 7, Totals())
    shown = last(history)
    assert shown["at_s"] == 1_000.0
    assert (shown["endpoints"], shown["ready"], shown["in_flight"]) == (4, 3, 7)
    assert (shown["waiting"], shown["waiting_most"], shown["running"]) == (4, 3, 6)
    assert (shown["kv_mean"], shown["kv_least"], shown["kv_most"]) == (0.3, 0.1, 0.5)


def test_what_nobody_knows_is_no_number() -> None:
    history = History()
    history.add(PoolSnapshot("empty"), 0, Totals())
    known = {name for name, value in last(history).items() if value is not None}
    assert known == {"at_s", "endpoints", "ready", "in_flight"}


def test_rates_are_of_the_time_since_the_last_sample() -> None:
    clock = FakeClock()
    history = History(clock)
    history.add(POOL, 0, Totals(scheduled=100, errors=5, input_tokens=1000, cached_tokens=900, output_tokens=50))
    clock.advance(4.0)
    history.add(POOL, 0, Totals(scheduled=110, errors=6, input_tokens=1200, cached_tokens=950, output_tokens=250))
    shown = last(history)
    rates = [shown[name] for name in ("requests_per_s", "errors_per_s", "output_tokens_per_s", "cached_share")]
    assert rates == [2.5, 0.25, 50.0, 0.25]


def test_the_time_to_the_first_byte_is_that_of_responses_since_the_last_sample() -> None:
    clock = FakeClock()
    history = History(clock)
    bounds = (0.1, 0.2, 0.4)
    history.add(POOL, 0, Totals(ttft_bounds=bounds, ttft_counts=(1000, 0, 0, 0)))
    clock.advance(5.0)
    history.add(POOL, 0, Totals(ttft_bounds=bounds, ttft_counts=(1000, 10, 10, 0)))
    shown = last(history)
    assert shown["ttft_p50_s"] == pytest.approx(0.2)
    assert shown["ttft_p95_s"] == pytest.approx(0.38)
    clock.advance(5.0)
    history.add(POOL, 0, Totals(ttft_bounds=bounds, ttft_counts=(1000, 10, 10, 0)))
    assert last(history)["ttft_p50_s"] is None


def test_only_the_newest_samples_are_kept() -> None:
    history = History(wall_clock=iter(range(10_000)).__next__)  # type: ignore[arg-type]  # whole seconds
    for _ in range(KEPT + 20):
        history.add(POOL, 0, Totals())
    columns = history.as_json()["columns"]
    assert isinstance(columns, dict)
    assert {len(column) for column in columns.values()} == {KEPT}
    assert columns["at_s"][0] == 20
    assert history.count == KEPT + 20


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        ((0, 0, 0), 0.5, None),
        ((10, 0, 0), 0.5, 0.5),
        ((10, 0, 0), 1.0, 1.0),
        ((0, 10, 0), 0.5, 2.0),
        ((5, 0, 5), 0.95, 3.0),  # above the last bound: at least that
        ((5, 5, 0), 0.5, 1.0),
    ],
)
def test_quantiles(counts: Sequence[int], quantile: float, expected: float | None) -> None:
    assert quantile_of((1.0, 3.0), counts, quantile) == expected


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_quantiles_are_in_order_and_within_the_bounds(counts: list[int], one: float, other: float) -> None:
    bounds = (0.5, 1.0, 8.0)
    low, high = (quantile_of(bounds, counts, quantile) for quantile in sorted((one, other)))
    if low is None or high is None:
        assert not any(counts)
        return
    assert 0.0 <= low <= high <= bounds[-1]


def test_totals_are_of_all_labels_together() -> None:
    metrics = Metrics()
    for model, tokens in (("a", 10), ("b", 20)):
        labels = RequestLabels(model)
        metrics.request_scheduled(labels)
        facts = RequestFacts(
            duration_s=1.0, ttft_s=0.3, streaming=model == "a", input_tokens=tokens, output_tokens=5, cached_tokens=4
        )
        metrics.request_finished(labels, facts)
        metrics.request_error(labels, "internal")
    found: list[Totals] = []
    worker = threading.Thread(target=lambda add_up: found.append(add_up()), args=[totals_of(metrics)])
    worker.start()
    worker.join()
    [totals] = found
    assert totals[:5] == (2, 2, 30, 8, 10)
    assert sum(totals.ttft_counts) == 2
    assert len(totals.ttft_counts) == len(totals.ttft_bounds) + 1


def test_totals_of_many_labels_are_added_up_in_turns() -> None:
    metrics = Metrics()
    for number in range(900):
        labels = RequestLabels(f"m-{number}")
        metrics.request_scheduled(labels)
        metrics.request_finished(labels, RequestFacts(ttft_s=0.1))
    totals = totals_of(metrics)()
    assert (totals.scheduled, sum(totals.ttft_counts)) == (900, 900)
