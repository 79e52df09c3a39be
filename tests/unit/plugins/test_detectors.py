"""utilization-, concurrency- and running-requests-detector: saturation, filters, staleness, caching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epp.framework.candidates import Candidates
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.flowcontrol import concurrency_detector, running_requests_detector, utilization_detector
from plugins.producers.inflight_load import InflightLoadProducer
from tests.unit.plugins.flights import begin, decided

STALE = None
Load = tuple[int, float] | None
"""(waiting queue, KV cache usage), fresh; None = stale."""


def pool(*loads: Load) -> Candidates:
    """Endpoints with these loads at the time 0, or with metrics that were never read."""
    return make_candidates(
        [EndpointMetrics(waiting_queue=load[0], kv_cache_usage=load[1]) if load else EndpointMetrics() for load in loads],
        updated_s=[0.0 if load else None for load in loads],
    )


def utilization(now_s: float = 0.0, **parameters: Any) -> Any:
    return make_plugin(utilization_detector.PLUGIN, parameters, make_context(clock=FakeClock(now_s)))


@pytest.mark.parametrize(
    ("parameters", "loads", "expected"),
    [
        pytest.param({}, [(2, 0.40)], 0.5, id="flow 1: the fuller of queue and cache"),
        pytest.param({}, [(2, 0.40), (6, 0.10)], 0.85, id="flow 2: one full endpoint is not a full pool"),
        pytest.param({}, [(2, 0.40), STALE], 0.75, id="flow 3: a stale endpoint counts as full"),
        pytest.param({}, [(0, 0.72), (0, 0.90)], 1.0125, id="flow 4: not clamped"),
        pytest.param({}, [(5, 0.0)], 1.0, id="flow 5: full at the threshold"),
        pytest.param({}, [], 1.0, id="flow 6: no endpoints"),
        pytest.param({}, [STALE, STALE], 1.0, id="all stale"),
        pytest.param({"stalenessPolicy": "ignore"}, [(2, 0.4), STALE], 0.5, id="flow 8: ignored: the fresh ones count"),
        pytest.param({"stalenessPolicy": "ignore"}, [STALE, STALE], 0.0, id="flow 8: ignored: all stale"),
        pytest.param({"stalenessPolicy": "ignore"}, [], 1.0, id="flow 8: ignored: no endpoints"),
        pytest.param({"queueDepthThreshold": 10, "kvCacheUtilThreshold": 1.0}, [(5, 0.4)], 0.5, id="other thresholds"),
    ],
)
def test_utilization(parameters: dict[str, Any], loads: list[Load], expected: float) -> None:
    assert utilization(**parameters).saturation(pool(*loads)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("age_s", "expected"), [(0.2, 0.5), (0.200001, 1.0)], ids=["flow 7: at the threshold", "flow 7: above it"]
)
def test_metrics_are_stale_above_the_threshold(age_s: float, expected: float) -> None:
    assert utilization(now_s=age_s).saturation(pool((2, 0.40))) == expected


def test_a_value_that_was_never_read_counts_as_nothing() -> None:
    candidates = make_candidates([EndpointMetrics(kv_cache_usage=0.4), EndpointMetrics()], updated_s=[0.0, 0.0])
    assert utilization().saturation(candidates) == 0.25


@pytest.mark.parametrize(
    ("loads", "stale"),
    [([(2, 0.4), STALE], 1), ([STALE, STALE], 2), ([], 0)],
    ids=["flow 3: one", "all", "flow 6: no endpoints"],
)
def test_stale_endpoints_are_counted(loads: list[Load], stale: int) -> None:
    detector = utilization()
    detector.saturation(pool(STALE, STALE, STALE))
    detector.saturation(pool(*loads))
    assert detector.debug_state() == {"staleEndpoints": stale}


def test_stale_endpoints_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    detector = make_plugin(utilization_detector.PLUGIN, {}, make_context(clock=clock))
    for _ in range(3):
        detector.saturation(pool(STALE))
        clock.advance(15)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("headroom", "loads", "kept"),
    [
        pytest.param(0.2, [(5, 0.1), (6, 0.1), (1, 0.97)], [0], id="flow 9: below both limits"),
        pytest.param(0, [(5, 0.1), (4, 0.79), (4, 0.8)], [1], id="at a limit is full"),
        pytest.param(0, [(1, 0.1), STALE], [0], id="stale is dropped"),
        pytest.param(0, [(9, 0.1), STALE], [0, 1], id="flow 10: none left: all"),
        pytest.param(0, [STALE, STALE], [0, 1], id="F16, flow 10: all stale: all"),
    ],
)
def test_utilization_filter(headroom: float, loads: list[Load], kept: list[int]) -> None:
    candidates = pool(*loads)
    found = utilization(headroom=headroom).filter(make_request(), candidates)
    assert list(found) == [candidates[position] for position in kept]


def test_flow_21_both_wrong_thresholds_are_reported() -> None:
    with pytest.raises(ValidationError) as failure:
        utilization(queueDepthThreshold=0, kvCacheUtilThreshold=1.5)
    assert {error["loc"][0] for error in failure.value.errors()} == {"queueDepthThreshold", "kvCacheUtilThreshold"}


@pytest.mark.parametrize("plugin_type", [utilization_detector.PLUGIN, concurrency_detector.PLUGIN], ids=lambda t: t.type)
def test_a_headroom_above_one_is_suspicious(plugin_type: Any) -> None:
    context = make_context()
    make_plugin(plugin_type, {"headroom": 20}, context)
    ((name, text),) = context.warnings
    assert name == "headroom"
    assert text.startswith("20 is a fraction")


# concurrency-detector


class Counts:
    """A producer of loads that were settled before."""

    def __init__(self, *loads: tuple[int, int]) -> None:
        candidates = make_candidates(len(loads))
        self._loads = dict(zip(candidates.ids, loads, strict=True))

    def requests_in_flight(self, ids: list[Any]) -> list[int]:
        return [self._loads.get(endpoint_id, (0, 0))[0] for endpoint_id in ids]

    def tokens_in_flight(self, ids: list[Any]) -> list[int]:
        return [self._loads.get(endpoint_id, (0, 0))[1] for endpoint_id in ids]


def concurrency(counts: object, **parameters: Any) -> Any:
    context = make_context(mine=counts)
    context.writers = {"InFlightLoad": "mine"}
    return make_plugin(concurrency_detector.PLUGIN, parameters, context)


@pytest.mark.parametrize(
    ("parameters", "loads", "size", "expected"),
    [
        pytest.param({}, [(30, 0), (130, 0)], 2, 0.8, id="flow 11: requests"),
        pytest.param({"concurrencyMode": "tokens"}, [(0, 500_000), (0, 250_000)], 2, 0.375, id="flow 12: tokens"),
        pytest.param(
            {"concurrencyMode": "hybrid", "maxConcurrency": 10, "maxTokenConcurrency": 100},
            [(10, 0), (0, 100)],
            2,
            1.0,
            id="flow 13: hybrid: each endpoint by what it is full of",
        ),
        pytest.param({"maxConcurrency": 10}, [(10, 0), (0, 100)], 2, 0.5, id="flow 13: the same by requests"),
        pytest.param({}, [(50, 0)], 2, 0.25, id="flow 14: an endpoint that was sent nothing adds room"),
        pytest.param({}, [], 0, 1.0, id="no endpoints"),
        pytest.param({"concurrencyMode": "hybrid"}, [], 0, 1.0, id="hybrid: no endpoints"),
    ],
)
def test_concurrency(parameters: dict[str, Any], loads: list[tuple[int, int]], size: int, expected: float) -> None:
    assert concurrency(Counts(*loads), **parameters).saturation(make_candidates(size)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parameters", "loads", "kept"),
    [
        pytest.param(
            {"maxConcurrency": 10, "headroom": 0.25}, [(11, 0), (12, 0)], [0], id="flow 15: the limit is rounded down"
        ),
        pytest.param({"concurrencyMode": "tokens", "maxTokenConcurrency": 100}, [(999, 99), (0, 100)], [0], id="tokens"),
        pytest.param(
            {"concurrencyMode": "hybrid", "maxConcurrency": 10, "maxTokenConcurrency": 100},
            [(9, 100), (10, 99), (9, 99)],
            [2],
            id="hybrid: both",
        ),
        pytest.param({"maxConcurrency": 10}, [(10, 0), (11, 0)], [0, 1], id="F16 all full: all"),
    ],
)
def test_concurrency_filter(parameters: dict[str, Any], loads: list[tuple[int, int]], kept: list[int]) -> None:
    candidates = make_candidates(len(loads))
    found = concurrency(Counts(*loads), **parameters).filter(make_request(), candidates)
    assert list(found) == [candidates[position] for position in kept]


def test_the_counts_are_those_of_the_producer() -> None:
    producer, candidates = InflightLoadProducer(), make_candidates(2)
    detector = concurrency(producer, maxConcurrency=2)
    assert detector.saturation(candidates) == 0.0
    begin(producer, make_request(), decided(candidates[0]))
    assert detector.saturation(candidates) == 0.25


def test_a_named_producer_is_asked() -> None:
    context = make_context(other=Counts((1, 0)))
    detector = make_plugin(concurrency_detector.PLUGIN, {"inFlightLoadProducerName": "other", "maxConcurrency": 1}, context)
    assert detector.saturation(make_candidates(1)) == 1.0


def test_a_producer_without_live_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be asked between requests"):
        concurrency(object())


def test_without_a_producer_nothing_is_in_flight() -> None:
    detector = make_plugin(concurrency_detector.PLUGIN, {"concurrencyMode": "hybrid"})
    assert detector.saturation(make_candidates(2)) == 0.0
    assert len(detector.filter(make_request(), make_candidates(2))) == 2


# running-requests-detector


@dataclass
class Pool:
    """What the picker's gauges say."""

    running: int = 0
    ready: int = 0

    def running_requests(self) -> int:
        return self.running

    def ready_endpoints(self) -> int:
        return self.ready


def running_requests(facts: Pool | None, clock: FakeClock | None = None, **parameters: Any) -> Any:
    context = make_context(clock=clock)
    context.pool = facts
    return make_plugin(running_requests_detector.PLUGIN, parameters, context)


@pytest.mark.parametrize(
    ("facts", "parameters", "expected"),
    [
        pytest.param(Pool(80, 2), {}, 0.4, id="flow 16: two models, two endpoints"),
        pytest.param(Pool(300, 2), {}, 1.5, id="flow 16: not clamped"),
        pytest.param(Pool(30, 1), {"maxConcurrencyPerPod": 50}, 0.6, id="flow 16: another limit"),
        pytest.param(Pool(0, 0), {}, 1.0, id="flow 17: no endpoint ready"),
        pytest.param(None, {}, 1.0, id="flow 17: nobody to ask"),
    ],
)
def test_running_requests(facts: Pool | None, parameters: dict[str, Any], expected: float) -> None:
    detector = running_requests(facts, **parameters)
    assert detector.saturation(make_candidates(9)) == expected
    assert detector.saturation(make_candidates(0)) == expected


def test_flow_18_a_result_is_reused_for_a_while() -> None:
    clock, facts = FakeClock(), Pool(100, 2)
    detector = running_requests(facts, clock, cacheTTL="500ms")
    assert detector.saturation(make_candidates(2)) == 0.5
    facts.running = 200
    clock.advance(0.01)
    assert detector.saturation(make_candidates(2)) == 0.5
    clock.advance(0.5)
    assert detector.saturation(make_candidates(2)) == 1.0


def test_without_reuse_every_change_is_seen() -> None:
    facts = Pool(100, 2)
    detector = running_requests(facts, cacheTTL="0s")
    assert detector.saturation(make_candidates(2)) == 0.5
    facts.running = 200
    assert detector.saturation(make_candidates(2)) == 1.0


# What holds for any pool

fresh = st.tuples(st.integers(0, 50), st.floats(0, 1.5))
loads = st.lists(fresh | st.none(), max_size=8)


@given(loads, st.randoms(use_true_random=False))
def test_the_order_of_endpoints_is_of_no_account(given_loads: list[Load], order: Any) -> None:
    shuffled = order.sample(given_loads, len(given_loads))
    assert utilization().saturation(pool(*shuffled)) == pytest.approx(utilization().saturation(pool(*given_loads)))


@given(loads)
def test_an_idle_endpoint_never_makes_the_pool_fuller(given_loads: list[Load]) -> None:
    before = utilization().saturation(pool(*given_loads))
    assert utilization().saturation(pool(*given_loads, (0, 0.0))) <= before + 1e-9


@given(loads)
def test_a_stale_endpoint_moves_the_pool_towards_full(given_loads: list[Load]) -> None:
    before = utilization().saturation(pool(*given_loads))
    after = utilization().saturation(pool(*given_loads, STALE))
    assert abs(1 - after) <= abs(1 - before) + 1e-9


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2_000_000)), min_size=1, max_size=6))
def test_hybrid_is_at_least_either_share(given_counts: list[tuple[int, int]]) -> None:
    candidates = make_candidates(len(given_counts))
    by_mode = {
        mode: concurrency(Counts(*given_counts), concurrencyMode=mode).saturation(candidates)
        for mode in ("requests", "tokens", "hybrid")
    }
    assert by_mode["hybrid"] >= max(by_mode["requests"], by_mode["tokens"]) - 1e-9
