"""What must hold for every scorer, filter and picker, whatever it is given."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import plugins
from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import DataProducer, FollowsEndpoints, HasState, ResponseComplete, Role
from epp.framework.results import SchedulingResult
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointChange, Freshness, InferenceRequest
from plugins.scorers import precise_prefix_cache
from plugins.scorers.active_request import ActiveRequestScorer
from plugins.scorers.no_hit_lru import NoHitLruScorer
from tests.property.strategies import Decision, decisions, totals
from tests.unit.plugins.flights import begin, decided, end

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "by-label": [
        {"label": "tier", "validValues": ["gold", ""]},
        {"label": "tier", "validValues": ["gold"], "allowsNoLabel": True},
    ],
    "by-label-selector": [
        {},
        {
            "matchLabels": {"tier": "gold"},
            "matchExpressions": [{"key": "llm-d.ai/role", "operator": "NotIn", "values": ["both"]}],
        },
    ],
    "endpoint-attribute-filter": [
        {
            "attribute": "heat",
            "onMissing": "Fail",
            "algorithm": {"type": "threshold", "threshold": {"operator": "LessThan", "value": 1.5}},
        },
        {
            "attribute": "WaitingQueueSize",
            "fallbackOnEmpty": True,
            "algorithm": {"type": "threshold", "threshold": {"operator": "GreaterThan", "value": 1}},
        },
    ],
    "endpoint-attribute-scorer": [
        {"attributeKey": "heat", "algorithm": {"type": "linear_lower_is_better"}},
        {
            "attributeKey": "KVCacheUsagePercent",
            "algorithm": {"type": "linear_higher_is_better", "normalization": {"fixedRange": {"min": 0.2, "max": 0.8}}},
        },
    ],
    "context-length-aware": [{}, {"enableFiltering": True}],
    "header-label-affinity-scorer": [{"headerName": "X-Tier", "labelKey": "tier"}],
    "topology-affinity-filter": [{"minAffinity": "zone"}],
    "utilization-filter": [
        {"conditions": [{"metric": "waiting-queue", "maxValue": 1}, {"metric": "kv-cache-utilization", "maxValue": 0.5}]},
        {"conditions": [{"metric": "active-requests", "maxValue": 1}], "fallbackOnEmpty": True},
    ],
    "prefix-cache-affinity-filter": [{}, {"affinityThreshold": 0.3, "ttftSource": "latencyPredictor"}],
    "slo-headroom-tier-filter": [{"epsilonExploreNeg": 0}, {"epsilonExploreNeg": 1}],
    "prefix-cache-scorer": [
        {"blockSizeTokens": 1},
        {"blockSizeTokens": 1, "matchLengthWeight": 0.5, "matchLengthScaleTokens": 100},
        {"prefixMatchInfoProducerName": "other"},
    ],
    "approx-prefix-cache-producer": [{"blockSizeTokens": 1, "maxTotalEntries": 3}],
    "burst-prefix-cache-producer": [{"blockSizeTokens": 1, "windowDurationMs": 1}],
    "precise-prefix-cache-scorer": [
        {"indexerConfig": {"tokenizersPoolConfig": {"modelName": "m"}}, "scoreNormalization": name}
        for name in ("ratio", "minmax")
    ],
    "latency-scorer": [{}, {"headroomSelectionStrategy": "most", "ttftWeight": 0}],
    "session-affinity-scorer": [{}, {"strategy": "session_id"}],
    "session-affinity-filter": [{}, {"strategy": "session_id"}],
    "token-load-scorer": [{}, {"queueThresholdTokens": 1000}],
    "concurrency-detector": [{"concurrencyMode": mode} for mode in ("requests", "tokens", "hybrid")],
    "utilization-detector": [{}, {"stalenessPolicy": "ignore", "headroom": 0.5}],
    "load-aware-scorer": [{}, {"threshold": 2}],
    "active-request-scorer": [{}, {"idleThreshold": 1, "maxBusyScore": 0.5}],
    "max-score-picker": [{}, {"maxNumOfEndpoints": 3}],
    "random-picker": [{}, {"maxNumOfEndpoints": 3}],
    "weighted-random-picker": [{}, {"maxNumOfEndpoints": 3}],
}
"""Parameters to try; other types are tried with their defaults."""


SCORING_HALVES: dict[str, Callable[[PluginContext, Any], Any]] = {
    "precise-prefix-cache-scorer": precise_prefix_cache.create_scorer,
}
"""Types whose scorer exists before their index does."""


def built(role: Role) -> list[Any]:
    """A fresh instance for each built type of this role and each of its variants, as test parameters."""
    types = [
        replace(plugin_type, factory=plugin_type.factory or SCORING_HALVES.get(plugin_type.type))
        for plugin_type in plugins.plugin_types()
        if role in plugin_type.roles
    ]
    return [
        pytest.param(lambda t=plugin_type, p=parameters: make_plugin(t, p), id=f"{plugin_type.type}-{number}")
        for plugin_type in types
        if plugin_type.is_built
        for number, parameters in enumerate(VARIANTS.get(plugin_type.type, [{}]))
    ]


def clamp(score: float) -> float:
    """As a profile does it."""
    return 0.0 if math.isnan(score) else min(max(score, 0.0), 1.0)


def busy(plugin: Any, endpoints: Candidates) -> None:
    """Give a plugin with state something to remember: no, one, two, ... requests per endpoint."""
    if isinstance(plugin, ActiveRequestScorer):
        for position, endpoint in enumerate(endpoints):
            for _ in range(position % 4):
                begin(plugin, make_request(), decided(endpoint))
    if isinstance(plugin, NoHitLruScorer):  # of endpoints that were never used the first candidate is the best, by contract
        for endpoint in endpoints:
            begin(plugin, make_request(), decided(endpoint))


def prepared(plugin: Any, request: InferenceRequest, endpoints: Candidates) -> None:
    """Let a plugin that is a data producer too write what it reads when it scores, unless that was generated."""
    own = getattr(plugin, "_match_key", None)
    if isinstance(plugin, DataProducer) and (own is None or request.data.get(own) is None):
        plugin.produce(request, endpoints)


@pytest.mark.parametrize("create", built(Role.SCORER))
@given(decision=decisions())
@settings(max_examples=40, deadline=None)
def test_scores_are_aligned_bounded_and_permute(create: Callable[[], Any], decision: Decision) -> None:
    endpoints, order, new_request = decision
    scorer, request = create(), new_request()
    busy(scorer, endpoints)
    prepared(scorer, request, endpoints)
    scores = list(scorer.score(request, endpoints))
    clamped = [clamp(score) for score in scores]
    assert len(scores) == len(endpoints)
    assert all(math.isfinite(score) for score in clamped)
    again = [clamp(score) for score in scorer.score(request, endpoints.select(order))]
    assert again == [clamped[position] for position in order]


def per_snapshot(role: Role) -> list[Any]:
    """``built``, of the types that say that they need no request."""
    names = {plugin_type.type for plugin_type in plugins.plugin_types() if plugin_type.per_snapshot}
    return [param for param in built(role) if param.id.rpartition("-")[0] in names]


@pytest.mark.parametrize("create", per_snapshot(Role.SCORER))
@given(decision=decisions(), other=decisions())
@settings(max_examples=40, deadline=None)
def test_scores_of_a_snapshot_do_not_depend_on_the_request(
    create: Callable[[], Any], decision: Decision, other: Decision
) -> None:
    endpoints, _, new_request = decision
    scorer = create()
    scores = list(map(clamp, scorer.score(new_request(), endpoints)))
    scorer.score(other[2](), other[0])
    assert list(map(clamp, scorer.score(other[2](), endpoints))) == scores


@pytest.mark.parametrize("create", per_snapshot(Role.FILTER))
@given(decision=decisions(), other=decisions())
@settings(max_examples=40, deadline=None)
def test_what_a_filter_of_a_snapshot_keeps_does_not_depend_on_the_request(
    create: Callable[[], Any], decision: Decision, other: Decision
) -> None:
    endpoints, _, new_request = decision
    kept = list(create().filter(new_request(), endpoints))
    assert list(create().filter(other[2](), endpoints)) == kept


def of_another_age(candidates: Candidates) -> Candidates:
    """The same, all read a moment ago."""
    return Candidates(candidates.endpoints, candidates.metrics, [Freshness(1000.0) for _ in candidates])


@pytest.mark.parametrize("create", per_snapshot(Role.SCORER))
@given(decision=decisions())
@settings(max_examples=20, deadline=None)
def test_scores_of_a_snapshot_do_not_depend_on_its_age(create: Callable[[], Any], decision: Decision) -> None:
    endpoints, _, new_request = decision
    scores = list(map(clamp, create().score(new_request(), endpoints)))
    assert list(map(clamp, create().score(new_request(), of_another_age(endpoints)))) == scores


@pytest.mark.parametrize("create", per_snapshot(Role.FILTER))
@given(decision=decisions())
@settings(max_examples=20, deadline=None)
def test_what_a_filter_of_a_snapshot_keeps_does_not_depend_on_its_age(create: Callable[[], Any], decision: Decision) -> None:
    endpoints, _, new_request = decision
    kept = list(create().filter(new_request(), endpoints))
    assert list(create().filter(new_request(), of_another_age(endpoints))) == kept


@pytest.mark.parametrize("create", built(Role.SCORER))
@given(decision=decisions())
@settings(max_examples=20, deadline=None)
def test_scoring_has_no_effect(create: Callable[[], Any], decision: Decision) -> None:
    endpoints, _, new_request = decision
    scorer, request = create(), new_request()
    busy(scorer, endpoints)
    prepared(scorer, request, endpoints)
    written = dict(request.data._values or {})
    state = scorer.debug_state() if isinstance(scorer, HasState) else None
    first = [clamp(score) for score in scorer.score(request, endpoints)]
    assert [clamp(score) for score in scorer.score(request, endpoints)] == first
    assert (request.data._values or {}) == written
    assert state is None or scorer.debug_state() == state


@pytest.mark.parametrize("create", built(Role.FILTER))
@given(decision=decisions())
@settings(max_examples=40, deadline=None)
def test_filters_keep_a_subsequence_whatever_the_order(create: Callable[[], Any], decision: Decision) -> None:
    endpoints, order, new_request = decision
    plugin, request = create(), new_request()
    written = dict(request.data._values or {})
    kept = plugin.filter(request, endpoints)
    assert (request.data._values or {}) == written
    ids = [endpoint.id for endpoint in kept]
    assert ids == [endpoint.id for endpoint in endpoints if endpoint.id in set(ids)]
    assert [endpoints.metrics[list(endpoints).index(e)] for e in kept] == list(kept.metrics)
    assert {e.id for e in plugin.filter(request, endpoints.select(order))} == set(ids)
    assert [e.id for e in plugin.filter(request, kept)] == ids


def remembering() -> list[Any]:
    """Instances of all built types that see decisions and hear of endpoints that leave."""
    return [case for case in built(Role.PRE_REQUEST) if isinstance(case.values[0](), FollowsEndpoints)]


@pytest.mark.parametrize("create", remembering())
@given(sent=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=20))
@settings(max_examples=20, deadline=None)
def test_endpoints_that_left_are_forgotten(create: Callable[[], Any], sent: list[tuple[int, int, bool]]) -> None:
    plugin, endpoints = create(), make_candidates(5)
    plugin.endpoints_changed(EndpointChange(added=tuple(endpoints)))
    for decode, prefill, is_over in sent:
        request = make_request(headers={"x-session-id": f"{decode}"})
        result = decided(endpoints[decode], prefill=endpoints[prefill])
        prepared(plugin, request, endpoints)
        begin(plugin, request, result)
        if is_over and isinstance(plugin, ResponseComplete):
            end(plugin, request, result)
    for endpoint in endpoints:
        plugin.endpoints_changed(EndpointChange(removed=(endpoint,)))
        if isinstance(plugin, HasState):
            assert endpoint.id not in json.dumps(plugin.debug_state())


@pytest.mark.parametrize("create", built(Role.PICKER))
@given(given_totals=totals)
@settings(max_examples=60, deadline=None)
def test_pickers_choose_distinct_candidates_up_to_the_limit(create: Callable[[], Any], given_totals: list[float]) -> None:
    picker = create()
    picked = list(picker.pick(make_request(), make_candidates(len(given_totals)), given_totals))
    assert len(picked) == len(set(picked)) == min(picker._most, len(given_totals))
    assert set(picked) <= set(range(len(given_totals)))


@given(given_totals=totals, most=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_max_score_picks_the_best_in_order(given_totals: list[float], most: int, seed: int) -> None:
    picker = make_plugin(_type("max-score-picker"), {"maxNumOfEndpoints": most}, make_context(seed=seed))
    picked = picker.pick(make_request(), make_candidates(len(given_totals)), given_totals)
    assert [given_totals[i] for i in picked] == sorted(given_totals, reverse=True)[:most]


@given(given_totals=totals, most=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_weighted_random_prefers_any_positive_total(given_totals: list[float], most: int, seed: int) -> None:
    picker = make_plugin(_type("weighted-random-picker"), {"maxNumOfEndpoints": most}, make_context(seed=seed))
    picked = picker.pick(make_request(), make_candidates(len(given_totals)), given_totals)
    positive = [given_totals[i] > 0 for i in picked]
    assert positive == sorted(positive, reverse=True)
    assert sum(positive) == min(most, sum(total > 0 for total in given_totals))


@pytest.mark.parametrize("name", ["max-score-picker", "random-picker", "weighted-random-picker"])
@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("size", [2, 5, 10])
def test_equal_totals_are_picked_evenly(name: str, most: int, size: int) -> None:
    draws = 1000 * size
    picker = make_plugin(_type(name), {"maxNumOfEndpoints": most}, make_context(seed=7))
    request, endpoints, equal = make_request(), make_candidates(size), [1.0] * size
    counts = Counter(picker.pick(request, endpoints, equal)[0] for _ in range(draws))
    chi_square = sum((counts[i] - 1000) ** 2 / 1000 for i in range(size))
    # The mean is size - 1 and the standard deviation sqrt(2 (size - 1)): five deviations above the mean is no accident.
    assert chi_square < size - 1 + 5 * math.sqrt(2 * (size - 1))


def _type(name: str) -> Any:
    return next(plugin_type for plugin_type in plugins.plugin_types() if plugin_type.type == name)


@dataclass
class Flight:
    """A request as the model knows it."""

    request: InferenceRequest
    result: SchedulingResult
    counted: list[Endpoint]
    deadline_s: float


class ActiveRequestMachine(RuleBasedStateMachine):
    """active-request-scorer against a list of flights, over any order of events."""

    flights = Bundle("flights")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.endpoints = make_candidates(3)
        self.scorer = ActiveRequestScorer(self.clock, timeout_s=10.0)
        self.model: list[Flight] = []

    @rule(target=flights, decode=st.integers(0, 2), prefill=st.none() | st.integers(0, 2))
    def begin(self, decode: int, prefill: int | None) -> Flight:
        targets = [self.endpoints[decode]] + ([] if prefill is None else [self.endpoints[prefill]])
        result = decided(targets[0], **({"prefill": targets[1]} if prefill is not None else {}))
        flight = Flight(make_request(request_id="same for all"), result, targets, self.clock.now_s + 10.0)
        begin(self.scorer, flight.request, result)
        self.model.append(flight)
        return flight

    @rule(target=ended, flight=consumes(flights))
    def end(self, flight: Flight) -> Flight:
        end(self.scorer, flight.request, flight.result)
        self.model = [other for other in self.model if other is not flight]
        return flight

    @rule(flight=ended)
    def end_again(self, flight: Flight) -> None:
        end(self.scorer, flight.request, flight.result)

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(position=st.integers(0, 2))
    def remove_endpoint(self, position: int) -> None:
        gone = self.endpoints[position]
        self.scorer.endpoints_changed(EndpointChange(removed=(gone,)))
        for flight in self.model:
            flight.counted = [endpoint for endpoint in flight.counted if endpoint is not gone]

    @invariant()
    def counts_equal_the_model(self) -> None:
        live = [flight for flight in self.model if flight.deadline_s > self.clock.now_s]
        expected = Counter(endpoint.id for flight in live for endpoint in flight.counted)
        assert self.scorer.debug_state() == {"requests": len(live), "active": dict(expected)}

    @invariant()
    def scores_follow_the_counts(self) -> None:
        live = [flight for flight in self.model if flight.deadline_s > self.clock.now_s]
        counts = [sum(e is endpoint for flight in live for e in flight.counted) for endpoint in self.endpoints]
        high = max(counts)
        expected = [1.0 if count == 0 else (high - count) / high for count in counts]
        assert self.scorer.score(make_request(), self.endpoints) == pytest.approx(expected)


TestActiveRequestMachine = ActiveRequestMachine.TestCase
TestActiveRequestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("name", ["max-score-picker", "random-picker", "weighted-random-picker"])
def test_picks_repeat_with_the_seed(name: str) -> None:
    request, endpoints = make_request(), make_candidates(10)
    pickers = [make_plugin(_type(name), {}, make_context(seed=3)) for _ in range(2)]
    first, second = ([picker.pick(request, endpoints, [1.0] * 10) for _ in range(20)] for picker in pickers)
    assert first == second
