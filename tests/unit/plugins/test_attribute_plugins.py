"""endpoint-attribute-filter, endpoint-attribute-scorer and utilization-filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import IN_FLIGHT_LOAD, InFlightLoad
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.filters import endpoint_attribute as attribute_filter
from plugins.filters import utilization
from plugins.scorers import endpoint_attribute as attribute_scorer

LOWER = {"type": "linear_lower_is_better"}
HIGHER = {"type": "linear_higher_is_better"}
PERCENT = {"normalization": {"fixedRange": {"min": 0, "max": 100}}}
MISSING = object()


def heated(values: Sequence[object]) -> Candidates:
    """Endpoints with the custom attribute ``heat``."""
    return make_candidates([EndpointMetrics(attributes={} if value is MISSING else {"heat": value}) for value in values])


@pytest.mark.parametrize(
    ("algorithm", "values", "expected"),
    [
        pytest.param(LOWER, [0.2, 0.8, MISSING], [1, 0, 0], id="C47 lower is better, between the extremes"),
        pytest.param(HIGHER, [0.2, 0.8, 0.5], [0, 1, 0.5], id="higher is better"),
        pytest.param({**HIGHER, "normalization": {"adaptiveRange": {}}}, [1, 3], [0, 1], id="the default, written"),
        pytest.param({**HIGHER, **PERCENT}, [25, 150], [0.25, 1], id="C48 between given bounds, clamped"),
        pytest.param({**LOWER, **PERCENT}, [25, 150, -5], [0.75, 0, 1], id="between given bounds, lower is better"),
        pytest.param({**LOWER, **PERCENT}, [MISSING], [0], id="missing is 0 also between given bounds"),
        pytest.param(LOWER, [7, 7, MISSING], [1, 1, 0], id="all equal"),
        pytest.param(LOWER, [MISSING, MISSING], [0, 0], id="nobody has it"),
        pytest.param(LOWER, [float("nan"), "hot", True, float("inf"), 3], [0, 0, 0, 0, 1], id="what is no number is missing"),
        pytest.param(LOWER, [], [], id="no candidates"),
    ],
)
def test_score(algorithm: dict[str, Any], values: list[object], expected: list[float]) -> None:
    scorer = make_plugin(attribute_scorer.PLUGIN, {"attributeKey": "heat", "algorithm": algorithm})
    assert scorer.score(make_request(), heated(values)) == pytest.approx(expected)


METRICS = [
    EndpointMetrics(waiting_queue=1, running_requests=5, kv_cache_usage=0.1),
    EndpointMetrics(waiting_queue=3, running_requests=2, kv_cache_usage=0.9),
    EndpointMetrics(),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("WaitingQueueSize", [1, 0, 0]), ("RunningRequestsSize", [0, 1, 0]), ("KVCacheUsagePercent", [1, 0, 0])],
)
def test_the_metrics_extractors_own_values_have_names(name: str, expected: list[float]) -> None:
    scorer = make_plugin(attribute_scorer.PLUGIN, {"attributeKey": name, "algorithm": LOWER})
    assert scorer.score(make_request(), make_candidates(METRICS)) == expected


@pytest.mark.parametrize(
    ("operator", "kept"),
    [
        ("LessThan", [0]),
        ("LessThanOrEqual", [0, 1]),
        ("GreaterThan", [2]),
        ("GreaterThanOrEqual", [1, 2]),
        ("Equal", [1]),
        ("NotEqual", [0, 2]),
    ],
)
def test_filter(operator: str, kept: list[int]) -> None:
    assert filtered([1, 2, 3], operator) == kept


@pytest.mark.parametrize(
    ("more", "values", "kept"),
    [
        pytest.param({}, [1, MISSING, 3], [0, 1], id="missing passes"),
        pytest.param({"onMissing": "Fail"}, [1, MISSING, 3], [0], id="missing fails"),
        pytest.param({"onMissing": "Fail"}, [float("nan"), "hot"], [], id="what is no number is missing"),
        pytest.param({}, [3, 4], [], id="none left"),
        pytest.param({"fallbackOnEmpty": True}, [3, 4], [0, 1], id="none left: all"),
        pytest.param({"fallbackOnEmpty": True}, [1, 4], [0], id="one left"),
        pytest.param({}, [], [], id="no candidates"),
    ],
)
def test_filter_where_something_is_missing(more: dict[str, Any], values: list[object], kept: list[int]) -> None:
    assert filtered(values, "LessThan", **more) == kept


def filtered(values: Sequence[object], operator: str, **more: Any) -> list[int]:
    """Positions that remain of a comparison with 2."""
    algorithm = {"type": "threshold", "threshold": {"operator": operator, "value": 2}}
    plugin = make_plugin(attribute_filter.PLUGIN, {"attribute": "heat", "algorithm": algorithm, **more})
    candidates = heated(values)
    return [list(candidates).index(endpoint) for endpoint in plugin.filter(make_request(), candidates)]


def condition(metric: str, limit: float) -> dict[str, object]:
    return {"metric": metric, "maxValue": limit}


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        pytest.param([condition("waiting-queue", 1)], [0, 2], id="at the limit is within"),
        pytest.param([condition("running-requests", 2)], [1, 2], id="running requests"),
        pytest.param([condition("kv-cache-utilization", 0.5)], [0, 2], id="KV cache"),
        pytest.param([condition("active-requests", 3)], [0, 2], id="active requests"),
        pytest.param([condition("waiting-queue", 2), condition("running-requests", 2)], [2], id="all conditions"),
    ],
)
def test_utilization(conditions: list[dict[str, object]], kept: list[int]) -> None:
    candidates, request = make_candidates(METRICS), make_request()
    request.data.set(IN_FLIGHT_LOAD, {candidates.ids[0]: InFlightLoad(3, 0), candidates.ids[1]: InFlightLoad(4, 0)})
    plugin = make_plugin(utilization.PLUGIN, {"conditions": conditions})
    assert list(plugin.filter(request, candidates)) == [candidates[position] for position in kept]


def test_five_waiting_are_within_five_and_six_are_not() -> None:
    candidates = make_candidates([EndpointMetrics(waiting_queue=5), EndpointMetrics(waiting_queue=6)])
    plugin = make_plugin(utilization.PLUGIN, {"conditions": [condition("waiting-queue", 5)]})
    assert list(plugin.filter(make_request(), candidates)) == [candidates[0]], "F15: a limit of 5 waiting"


@pytest.mark.parametrize(("falls_back", "count"), [(False, 0), (True, 1)])
def test_when_no_endpoint_is_within_the_limits(falls_back: bool, count: int) -> None:
    candidates = make_candidates([EndpointMetrics(waiting_queue=6)])
    parameters = {"conditions": [condition("waiting-queue", 5)], "fallbackOnEmpty": falls_back}
    assert len(make_plugin(utilization.PLUGIN, parameters).filter(make_request(), candidates)) == count


def test_active_requests_of_another_producer() -> None:
    candidates, request = make_candidates(1), make_request()
    request.data.set(IN_FLIGHT_LOAD.by("mine"), {candidates.ids[0]: InFlightLoad(4, 0)})
    parameters = {"conditions": [condition("active-requests", 3)], "inFlightLoadProducerName": "mine"}
    assert list(make_plugin(utilization.PLUGIN, parameters).filter(request, candidates)) == []


def test_without_a_load_nothing_is_active() -> None:
    candidates = make_candidates(1)
    plugin = make_plugin(utilization.PLUGIN, {"conditions": [condition("active-requests", 0)]}, make_context())
    assert list(plugin.filter(make_request(), candidates)) == list(candidates)
