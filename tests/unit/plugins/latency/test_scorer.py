"""predicted-latency-scorer: which endpoint it chooses, and whom it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings

from epp.framework.candidates import Candidates
from epp.framework.keys import LATENCY_PREDICTION, PREFIX_CACHE_MATCH, LatencyPrediction, PrefixMatch
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics, InferenceRequest
from plugins.scorers.predicted_latency import DENIED, PLUGIN, PredictedLatencyScorer
from tests.property.strategies import Decision, decisions

KEY = LATENCY_PREDICTION.by(PLUGIN.type)
SURE = {"epsilonExploreSticky": 0, "epsilonExploreNeg": 0}
Headroom = tuple[float, float] | None


def make_scorer(seed: int = 1, **parameters: Any) -> PredictedLatencyScorer:
    scorer = make_plugin(PLUGIN, parameters, make_context(PLUGIN.type, seed=seed))
    assert isinstance(scorer, PredictedLatencyScorer)
    return scorer


def prediction(headroom: tuple[float, float], dispatched: int = 1) -> LatencyPrediction:
    ttft, tpot = headroom
    return LatencyPrediction(100.0, 10.0, ttft, tpot, ttft > 0, tpot > 0, dispatched)


def predicted(
    candidates: Candidates,
    headrooms: list[Headroom],
    *,
    dispatched: list[int] | None = None,
    prefix: list[float] | None = None,
    headers: Mapping[str, str] | None = None,
    priority: int = 0,
) -> InferenceRequest:
    """A request for which these headrooms were predicted."""
    request = make_request(headers=headers, priority=priority)
    counts = dispatched or [1] * len(candidates)
    rows = zip(candidates.ids, headrooms, counts, strict=True)
    request.data.set(KEY, {i: prediction(headroom, count) for i, headroom, count in rows if headroom is not None})
    if prefix is not None:
        shares = zip(candidates.ids, prefix, strict=True)
        request.data.set(PREFIX_CACHE_MATCH, {i: PrefixMatch(round(share * 1000), 1000, 16) for i, share in shares})
    return request


def chosen(scorer: PredictedLatencyScorer, candidates: Candidates, *args: Any, draws: int = 400, **kwargs: Any) -> Counter[str]:
    """How often each endpoint is chosen."""
    found: Counter[str] = Counter()
    for _ in range(draws):
        scores = scorer.score(predicted(candidates, *args, **kwargs), candidates)
        assert sorted(scores) == [0.0] * (len(candidates) - 1) + [1.0]
        found[candidates[scores.index(1.0)].name] += 1
    return found


POSITIVE: list[Headroom] = [(100, 5), (300, 15), (200, 15)]
NEGATIVE: list[Headroom] = [(-50, -5), (-150, -5), (-100, -10)]


@pytest.mark.parametrize(
    ("parameters", "headrooms", "expected"),
    [
        pytest.param({}, POSITIVE, {"a": 101, "b": 2, "c": 41}, id="C37 least"),
        pytest.param({"headroomSelectionStrategy": "most"}, POSITIVE, {"a": 2, "b": 100, "c": 61}, id="C37 most"),
        pytest.param({"headroomSelectionStrategy": ""}, POSITIVE, {"a": 101, "b": 2, "c": 41}, id="empty is least"),
        pytest.param({}, NEGATIVE, {"a": 82, "b": 18, "c": 34}, id="C38 all too late"),
        pytest.param({"streamingMode": False}, POSITIVE, {"a": 101, "b": 2, "c": 51}, id="first token alone"),
    ],
)
def test_the_draw_follows_the_weights(parameters: dict[str, Any], headrooms: list[Headroom], expected: dict[str, int]) -> None:
    draws = 3000
    found = chosen(make_scorer(**SURE, **parameters), make_candidates(3), headrooms, draws=draws)
    for name, weight in expected.items():
        assert found[name] == pytest.approx(draws * weight / sum(expected.values()), abs=110), name


COMPOSITE = [EndpointMetrics(0, 1, 0.2), EndpointMetrics(4, 1, 0.5), EndpointMetrics(2, 1, 0.1)]


@pytest.mark.parametrize(
    ("parameters", "headrooms", "best"),
    [
        pytest.param({}, [(100, 5), None, (200, 15)], "c", id="C40 one prediction is missing: composite over all three"),
        pytest.param({}, [None, None, None], "c", id="no prediction at all"),
        pytest.param({"headroomSelectionStrategy": "composite-only"}, NEGATIVE, "c", id="composite only"),
        pytest.param({"headroomSelectionStrategy": "composite-most"}, POSITIVE, "c", id="composite most"),
        pytest.param({"headroomSelectionStrategy": "composite-most"}, NEGATIVE, "c", id="composite most, all miss"),
        pytest.param({"headroomSelectionStrategy": "composite-least"}, POSITIVE, "b", id="composite least"),
        pytest.param({"headroomSelectionStrategy": "composite-least"}, NEGATIVE, "b", id="composite least, all miss"),
        pytest.param({"compositePrefixWeight": 0, "compositeKVWeight": 0}, [None] * 3, "a", id="queue alone"),
    ],
)
def test_composite(parameters: dict[str, Any], headrooms: list[Headroom], best: str) -> None:
    candidates = make_candidates(COMPOSITE)
    scorer = make_scorer(selectionMode="max", affinityGateTau=0, affinityGateTauGlobal=0, **SURE, **parameters)
    assert chosen(scorer, candidates, headrooms, prefix=[0.5, 0.0, 1.0], draws=5) == {best: 5}


def test_c41_endpoints_that_miss_are_left_out_while_others_meet() -> None:
    candidates, headrooms = make_candidates(3), [(100, 5), (300, 15), (-1, 50)]
    assert set(chosen(make_scorer(seed=7, **SURE), candidates, headrooms, draws=2000)) == {"a", "b"}
    assert chosen(make_scorer(selectionMode="max", **SURE), candidates, headrooms) == {"a": 400}


def test_endpoints_that_miss_are_explored() -> None:
    scorer = make_scorer(selectionMode="max", epsilonExploreSticky=0, epsilonExploreNeg=0.25)
    found = chosen(scorer, make_candidates(2), [(100, 5), (-1, 50)], draws=2000)
    assert found["b"] == pytest.approx(500, abs=80)


@pytest.mark.parametrize("strategy", ["least", "composite-only"])
def test_c42_an_endpoint_that_holds_the_whole_prefix_comes_first(strategy: str) -> None:
    scorer = make_scorer(headroomSelectionStrategy=strategy, **SURE)
    found = chosen(scorer, make_candidates(3), [(100, 5), (300, 15), (-900, -90)], prefix=[0.0, 0.98, 0.995])
    assert found == {"c": 400}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({"epsilonExploreSticky": 1}, {"a"}, id="always explored"),
        pytest.param({"affinityGateTauGlobal": 0}, {"a"}, id="global gate off"),
        pytest.param({}, {"c"}, id="closed"),
    ],
)
def test_global_gate(parameters: dict[str, Any], expected: set[str]) -> None:
    scorer = make_scorer(**{"selectionMode": "max", "affinityGateTau": 0, **SURE, **parameters})
    assert set(chosen(scorer, make_candidates(3), POSITIVE, prefix=[0.0, 0.5, 1.0])) == expected


@pytest.mark.parametrize(
    ("tau", "expected"),
    [pytest.param(0.8, "b", id="kept"), pytest.param(0.9, "a", id="nobody holds enough"), pytest.param(0, "a", id="off")],
)
def test_gate_of_the_tier(tau: float, expected: str) -> None:
    scorer = make_scorer(selectionMode="max", affinityGateTau=tau, **SURE)
    headrooms: list[Headroom] = [(100, 5), (300, 15), (-1, -1)]
    assert set(chosen(scorer, make_candidates(3), headrooms, prefix=[0.0, 0.85, 0.95])) == {expected}


def test_idle_endpoints_come_first_where_all_miss() -> None:
    scorer = make_scorer(**SURE)
    assert chosen(scorer, make_candidates(3), NEGATIVE, dispatched=[1, 0, 2]) == {"b": 400}
    assert set(chosen(scorer, make_candidates(3), NEGATIVE, dispatched=[1, 2, 2])) == {"a", "b", "c"}


def test_a_headroom_of_zero_meets_the_objective() -> None:
    assert chosen(make_scorer(**SURE), make_candidates(2), [(0.0, 0.0), (-0.001, 5.0)]) == {"a": 400}


def test_the_largest_weight_is_the_first_of_equals() -> None:
    scorer = make_scorer(selectionMode="max", **SURE)
    assert chosen(scorer, make_candidates(3), [(100, 5), (100, 5), (100, 5)]) == {"a": 400}


def test_the_only_candidate_is_chosen_and_none_is_nothing() -> None:
    assert make_scorer().score(make_request(), make_candidates(1)) == [1.0]
    assert make_scorer().score(make_request(), make_candidates(0)) == []


@pytest.mark.parametrize("usage", [float("nan"), 7.0, -1.0, None])
def test_nonsense_in_metrics_does_no_harm(usage: float | None) -> None:
    candidates = make_candidates([EndpointMetrics(1, 1, usage), EndpointMetrics(None, None, 0.5)])
    assert sum(make_scorer().score(make_request(), candidates)) == 1.0


def test_a_kv_cache_usage_that_is_no_number_counts_as_full() -> None:
    candidates = make_candidates([EndpointMetrics(0, 1, float("nan")), EndpointMetrics(0, 1, 0.9)])
    scorer = make_scorer(selectionMode="max", compositeQueueWeight=0, compositePrefixWeight=0)
    assert scorer.score(make_request(), candidates) == [0.0, 1.0]


@given(decision=decisions())
@settings(max_examples=60, deadline=None)
def test_one_endpoint_is_chosen_whatever_the_order(decision: Decision) -> None:
    request = decision.new_request()
    found = request.data.get(LATENCY_PREDICTION)
    assert found is not None
    request.data.set(KEY, found)
    scorer = make_scorer()
    scorer.produce(request, decision.candidates)
    scores = scorer.score(request, decision.candidates)
    assert sorted(scores) == sorted([1.0] * bool(scores) + [0.0] * (len(scores) - 1))
    assert scorer.score(request, decision.candidates) == scores
    again = scorer.score(request, decision.candidates.select(decision.order))
    assert again == [scores[position] for position in decision.order]


# Admission

WANTED = {"x-slo-ttft-ms": "200", "x-slo-tpot-ms": "20"}
BUSY = [EndpointMetrics(5, 9, 0.5), EndpointMetrics(5, 9, 0.6)]


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        pytest.param({}, True, id="nobody can serve it"),
        pytest.param({"priority": 0}, False, id="not sheddable"),
        pytest.param({"headers": {"x-slo-tpot-ms": "20"}}, False, id="no objective for the first token"),
        pytest.param({"headers": {"x-slo-ttft-ms": "200"}}, False, id="none for the others while streaming counts"),
        pytest.param({"headers": {"x-slo-ttft-ms": "200"}, "streamingMode": False}, True, id="none is needed otherwise"),
        pytest.param({"headers": {**WANTED, "x-slo-ttft-ms": "soon"}}, False, id="an objective that is no number"),
        pytest.param({"headrooms": [(-1, -1), (5, 5)]}, False, id="one can"),
        pytest.param({"headrooms": [(-1, -1), (5, -5)]}, True, id="one meets half"),
        pytest.param({"dispatched": [3, 0]}, False, id="one is idle"),
        pytest.param({"metrics": [BUSY[0], EndpointMetrics(5, 9, 0.019)]}, False, id="one is cold"),
        pytest.param({"metrics": [BUSY[0], EndpointMetrics(5, 9, 0.02)]}, True, id="2 % is not cold"),
        pytest.param({"metrics": [BUSY[0], EndpointMetrics()]}, False, id="one was never scraped"),
        pytest.param({"prefix": [0.0, 0.99]}, False, id="one holds the prefix"),
        pytest.param({"prefix": [0.0, 0.98]}, True, id="not quite"),
        pytest.param({"prefix": [0.0, 1.0], "affinityGateTauGlobal": 0}, True, id="the prefix does not matter"),
        pytest.param({"headrooms": [(-1, -1), None]}, False, id="one has no prediction"),
        pytest.param({"headrooms": [None, None]}, False, id="none has"),
    ],
)
def test_admission(changes: dict[str, Any], is_refused: bool) -> None:
    given_changes = dict(changes)
    parameters = {key: given_changes.pop(key) for key in ("streamingMode", "affinityGateTauGlobal") if key in given_changes}
    candidates = make_candidates(given_changes.pop("metrics", BUSY))
    headrooms = given_changes.pop("headrooms", [(-1, -1), (-1, -1)])
    request = predicted(candidates, headrooms, **{"headers": WANTED, "priority": -1, **given_changes})
    assert make_scorer(**parameters).admit(request, candidates) == (DENIED if is_refused else None)


def test_a_request_of_which_nothing_is_known_is_admitted() -> None:
    assert make_scorer().admit(make_request(headers=WANTED, priority=-1), make_candidates(BUSY)) is None
