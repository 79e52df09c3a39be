"""Scorers that read one load metric: their formulas in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from epp.framework.registry import PluginType
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.scorers import kv_cache_utilization, load_aware, queue, running_requests


def score(plugin_type: PluginType, metric: str, values: Sequence[object], **parameters: Any) -> list[float]:
    candidates = make_candidates([EndpointMetrics(**{metric: value}) for value in values])  # type: ignore[arg-type]
    return list(make_plugin(plugin_type, parameters).score(make_request(), candidates))


RELATIVE = [
    pytest.param([3, 9, 6], [1, 0, 0.5], id="C1 linear between the extremes"),
    pytest.param([4, 4, 4], [1, 1, 1], id="C2 all equal"),
    pytest.param([250], [1], id="C3 one endpoint, however loaded"),
    pytest.param([0, 100, 1], [1, 0, 0.99], id="C4 an outlier flattens the rest"),
    pytest.param([0, 0, 7, 2], [1, 1, 0, 5 / 7], id="ties at the top"),
    pytest.param([None, 3], [1, 0], id="C5 never scraped looks idle"),
    pytest.param([None, None], [1, 1], id="nothing scraped"),
    pytest.param([], [], id="no candidates"),
]


@pytest.mark.parametrize(("values", "expected"), RELATIVE)
@pytest.mark.parametrize(
    ("plugin_type", "metric"),
    [
        pytest.param(queue.PLUGIN, "waiting_queue", id="queue"),
        pytest.param(running_requests.PLUGIN, "running_requests", id="running"),
    ],
)
def test_relative_load(plugin_type: PluginType, metric: str, values: list[int | None], expected: list[float]) -> None:
    assert score(plugin_type, metric, values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param([0.25, 0.9, 0], [0.75, 0.1, 1], id="C6 free fraction"),
        pytest.param([1.3], [-0.3], id="C6 more than full is left to the clamp"),
        pytest.param([None, 0.5], [1, 0.5], id="never scraped looks empty"),
        pytest.param([], [], id="no candidates"),
    ],
)
def test_kv_cache_utilization(usage: list[float | None], expected: list[float]) -> None:
    assert score(kv_cache_utilization.PLUGIN, "kv_cache_usage", usage) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("parameters", "waiting", "expected"),
    [
        pytest.param({}, [0, 32, 128, 500], [0.5, 0.375, 0, 0], id="C7 default threshold 128"),
        pytest.param({}, [1], [0.49609375], id="one waiting request"),
        pytest.param({"threshold": 10}, [5, 10, 0], [0.25, 0, 0.5], id="C8 threshold 10"),
        pytest.param({}, [None, 64], [0.5, 0.25], id="never scraped looks idle"),
        pytest.param({}, [], [], id="no candidates"),
    ],
)
def test_load_aware(parameters: dict[str, int], waiting: list[int | None], expected: list[float]) -> None:
    assert score(load_aware.PLUGIN, "waiting_queue", waiting, **parameters) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0, -5])
def test_load_aware_replaces_a_threshold_that_is_not_positive(threshold: int) -> None:
    context = make_context()
    scorer = make_plugin(load_aware.PLUGIN, {"threshold": threshold}, context)
    assert scorer.score(make_request(), make_candidates([EndpointMetrics(waiting_queue=64)])) == [0.25], "C9: 128 is used"
    assert context.warnings == [("threshold", f"{threshold} is not positive; 128 is used")]
