"""latency-scorer, slo-headroom-tier-filter and prefix-cache-affinity-filter, given predictions and matches."""

from __future__ import annotations

import random
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import (
    IN_FLIGHT_LOAD,
    LATENCY_PREDICTION,
    PREFIX_CACHE_MATCH,
    InFlightLoad,
    LatencyPrediction,
    PrefixMatch,
)
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics, InferenceRequest
from plugins.filters import prefix_cache_affinity, slo_headroom_tier
from plugins.scorers import latency


def predicted(ttft_headroom: float, tpot_headroom: float, *, dispatched: int = 1, ttft: float = 100.0) -> LatencyPrediction:
    return LatencyPrediction(
        ttft_ms=ttft,
        tpot_ms=10.0,
        ttft_headroom_ms=ttft_headroom,
        tpot_headroom_ms=tpot_headroom,
        ttft_is_valid=ttft_headroom >= 0,
        tpot_is_valid=tpot_headroom >= 0,
        dispatched_requests=dispatched,
    )


def request_with(candidates: Candidates, predictions: list[LatencyPrediction | None]) -> InferenceRequest:
    request = make_request()
    known = zip(candidates.ids, predictions, strict=True)
    request.data.set(LATENCY_PREDICTION, {endpoint_id: entry for endpoint_id, entry in known if entry is not None})
    return request


@pytest.mark.parametrize(
    ("parameters", "predictions", "expected"),
    [
        pytest.param(
            {}, [predicted(100, 10), predicted(300, 30), predicted(200, 10)], [1, 0.01, 0.61], id="C44 least headroom"
        ),
        pytest.param(
            {"headroomSelectionStrategy": ""}, [predicted(100, 10), predicted(300, 30)], [1, 0.01], id="empty is least"
        ),
        pytest.param(
            {"headroomSelectionStrategy": "most"},
            [predicted(100, 10), predicted(300, 30), predicted(200, 10)],
            [0.01, 1, 0.41],
            id="most headroom",
        ),
        pytest.param({}, [predicted(100, 5)], [0.51], id="one endpoint"),
        pytest.param({}, [predicted(100, 5), predicted(100, 5)], [0.51, 0.51], id="no difference"),
        pytest.param({}, [predicted(100, 5), predicted(100, 9)], [1, 0.01], id="no difference in TTFT: its weight moves"),
        pytest.param({}, [predicted(100, 5), predicted(300, 5)], [1, 0.01], id="no difference in TPOT: its weight moves"),
        pytest.param({"ttftWeight": 0, "tpotWeight": 0}, [predicted(1, 9), predicted(5, 1)], [1, 0.01], id="no weights: TTFT"),
        pytest.param(
            {"ttftWeight": 8, "tpotWeight": 2},
            [predicted(1, 1), predicted(5, 5), predicted(3, 1)],
            [1, 0.01, 0.61],
            id="weights are proportions",
        ),
        pytest.param({}, [predicted(100, 10), predicted(-1, 10), predicted(10, -1)], [0.51, 0, 0], id="positive ones only"),
        pytest.param({}, [predicted(0, 0), predicted(-1, 10)], [0.51, 0], id="no headroom is met"),
        pytest.param({}, [predicted(-50, -2), predicted(-50, -10, dispatched=0)], [0, 0.51], id="C45 negative: the idle one"),
        pytest.param(
            {"headroomSelectionStrategy": "most"},
            [predicted(-50, -2, dispatched=0), predicted(-150, -10, dispatched=0)],
            [1, 0.01],
            id="negative: always the least deficit",
        ),
        pytest.param({}, [predicted(-50, -2), predicted(9, -10), predicted(-9, 2)], [0, 0.51, 0], id="negative: TPOT only"),
        pytest.param({}, [predicted(-50, -2), predicted(-9, 2)], [0, 0.51], id="negative: TTFT only"),
        pytest.param({}, [predicted(-50, -2), predicted(-150, -4)], [1, 0.01], id="negative: both"),
        pytest.param({}, [None, predicted(5, 5)], [0, 0.51], id="without a prediction: 0"),
        pytest.param({}, [None, predicted(-5, -5)], [0, 0.51], id="without a prediction: no positive one"),
    ],
)
def test_latency(parameters: dict[str, Any], predictions: list[LatencyPrediction | None], expected: list[float]) -> None:
    candidates = make_candidates(len(predictions))
    scorer = make_plugin(latency.PLUGIN, parameters)
    assert scorer.score(request_with(candidates, predictions), candidates) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({}, [0.77, 0.17], id="C46 equal weights"),
        pytest.param({"compositeKVWeight": 0, "compositeQueueWeight": 0}, [0.5, 0], id="prefix only"),
        pytest.param({"compositeKVWeight": 2, "compositePrefixWeight": 0}, [0.87, 0.33], id="weights are proportions"),
        pytest.param(
            {"compositeKVWeight": 0, "compositeQueueWeight": 0, "compositePrefixWeight": 0}, [0.8, 0.5], id="no weights: KV"
        ),
    ],
)
def test_without_predictions_the_load_decides(parameters: dict[str, Any], expected: list[float]) -> None:
    rows = [EndpointMetrics(waiting_queue=0, kv_cache_usage=0.2), EndpointMetrics(waiting_queue=4, kv_cache_usage=0.5)]
    candidates, request = make_candidates(rows), make_request()
    request.data.set(PREFIX_CACHE_MATCH, {candidates.ids[0]: PrefixMatch(4, 8, 16)})
    assert make_plugin(latency.PLUGIN, parameters).score(request, candidates) == pytest.approx(expected)


def test_without_anything_all_score_alike() -> None:
    assert make_plugin(latency.PLUGIN).score(make_request(), make_candidates(2)) == [0.67, 0.67]
    assert make_plugin(latency.PLUGIN).score(make_request(), make_candidates(0)) == []


# slo-headroom-tier-filter


@pytest.mark.parametrize(
    ("epsilon", "predictions", "kept"),
    [
        pytest.param(0, [predicted(0, 0), predicted(-1, 5), predicted(5, -1)], [0], id="both headrooms must be met"),
        pytest.param(0, [predicted(1, 1), None], [0], id="without a prediction: negative"),
        pytest.param(1, [predicted(1, 1), predicted(-1, 5), None], [1, 2], id="exploring"),
        pytest.param(0, [predicted(-1, 1), predicted(1, -1)], [0, 1], id="only negative ones"),
        pytest.param(1, [predicted(1, 1), predicted(2, 2)], [0, 1], id="only positive ones"),
        pytest.param(0, [None, None], [0, 1], id="nobody predicted"),
    ],
)
def test_headroom_tiers(epsilon: float, predictions: list[LatencyPrediction | None], kept: list[int]) -> None:
    candidates = make_candidates(len(predictions))
    plugin = make_plugin(slo_headroom_tier.PLUGIN, {"epsilonExploreNeg": epsilon})
    assert list(plugin.filter(request_with(candidates, predictions), candidates)) == [candidates[i] for i in kept]


def test_so_many_requests_explore() -> None:
    candidates = make_candidates(2)
    request = request_with(candidates, [predicted(1, 1), predicted(-1, -1)])
    plugin = make_plugin(slo_headroom_tier.PLUGIN, {"epsilonExploreNeg": 0.25}, make_context(seed=4))
    explored = sum(list(plugin.filter(request, candidates)) == [candidates[1]] for _ in range(2000))
    assert 420 < explored < 580


def test_without_data_all_are_kept() -> None:
    candidates = make_candidates(2)
    assert make_plugin(slo_headroom_tier.PLUGIN).filter(make_request(), candidates) is candidates


# prefix-cache-affinity-filter


def held(*ratios: float) -> tuple[Candidates, InferenceRequest]:
    candidates, request = make_candidates(len(ratios)), make_request()
    matches = {i: PrefixMatch(round(ratio * 100), 100, 16) for i, ratio in zip(candidates.ids, ratios, strict=True) if ratio}
    request.data.set(PREFIX_CACHE_MATCH, matches)
    return candidates, request


def affine(
    candidates: Candidates, request: InferenceRequest, parameters: dict[str, Any] | None = None, **context: Any
) -> list[int]:
    plugin = make_plugin(prefix_cache_affinity.PLUGIN, parameters or {}, make_context(**context))
    return [list(candidates).index(endpoint) for endpoint in plugin.filter(request, candidates)]


@pytest.mark.parametrize(
    ("ratios", "parameters", "kept"),
    [
        pytest.param((0.9, 0.8, 0.79, 0), {}, [0, 1], id="at the threshold is held"),
        pytest.param((0.5, 0.2), {}, [0, 1], id="nobody holds enough"),
        pytest.param((0.9, 0.9), {}, [0, 1], id="everybody holds enough"),
        pytest.param((0.3, 0.2), {"affinityThreshold": 0.3}, [0], id="another threshold"),
        pytest.param((0.9, 0.2), {"affinityThreshold": 0}, [0, 1], id="switched off"),
        pytest.param((0.9, 0.2), {"explorationProbability": 1}, [0, 1], id="exploring"),
        pytest.param((0.1,), {}, [0], id="one candidate"),
    ],
)
def test_holders_are_kept(ratios: tuple[float, ...], parameters: dict[str, Any], kept: list[int]) -> None:
    assert affine(*held(*ratios), parameters) == kept


def test_without_a_match_all_are_kept() -> None:
    assert affine(make_candidates(2), make_request()) == [0, 1]


@pytest.mark.parametrize(
    ("parameters", "tokens", "kept"),
    [
        pytest.param({}, [20_001, 0], [0, 1], id="F14 20 s slower"),
        pytest.param({}, [5_000, 0], [0], id="F14 5 s slower"),
        pytest.param({}, [18_000, 0], [0], id="exactly the penalty"),
        pytest.param({}, [30_000, 15_000], [0], id="both busy"),
        pytest.param({}, [None, 0], [0], id="no entry is idle"),
        pytest.param({"maxTTFTPenaltyMs": 0}, [10**9, 0], [0], id="no limit"),
        pytest.param({"maxTTFTPenaltyMs": 4000}, [5_000, 0], [0, 1], id="another limit"),
    ],
)
def test_busy_holders_are_given_up(parameters: dict[str, Any], tokens: list[int | None], kept: list[int]) -> None:
    candidates, request = held(0.9, 0.1)
    known = zip(candidates.ids, tokens, strict=True)
    request.data.set(IN_FLIGHT_LOAD, {i: InFlightLoad(1, count) for i, count in known if count is not None})
    assert affine(candidates, request, {"peakPrefillThroughput": 1000, **parameters}) == kept


@pytest.mark.parametrize(
    ("ttft", "kept"),
    [
        pytest.param([20_100, 100], [0, 1], id="holder predicted too slow"),
        pytest.param([5_100, 100], [0], id="holder predicted slower"),
        pytest.param([None, 100], [0, 1], id="holder without a prediction"),
        pytest.param([20_100, None], [0], id="other without a prediction"),
        pytest.param([None, None], [0], id="nobody predicted"),
    ],
)
def test_predictions_may_decide(ttft: list[float | None], kept: list[int]) -> None:
    candidates, request = held(0.9, 0.1)
    known = zip(candidates.ids, ttft, strict=True)
    request.data.set(LATENCY_PREDICTION, {i: predicted(0, 0, ttft=ms) for i, ms in known if ms is not None})
    assert affine(candidates, request, {"ttftSource": "latencyPredictor"}) == kept


def test_the_fastest_of_each_side_are_compared() -> None:
    candidates, request = held(0.9, 0.9, 0.1, 0.1)
    loads = [InFlightLoad(1, count) for count in (90_000, 10_000, 80_000, 1_000)]
    request.data.set(IN_FLIGHT_LOAD, dict(zip(candidates.ids, loads, strict=True)))
    assert affine(candidates, request, {"peakPrefillThroughput": 1000}) == [0, 1]


def test_some_requests_explore() -> None:
    candidates, request = held(0.9, 0.1)
    plugin = make_plugin(prefix_cache_affinity.PLUGIN, {"explorationProbability": 0.25}, make_context(seed=4))
    draws = random.Random(4)
    expected = [2 if draws.random() < 0.25 else 1 for _ in range(200)]
    assert [len(plugin.filter(request, candidates)) for _ in range(200)] == expected
