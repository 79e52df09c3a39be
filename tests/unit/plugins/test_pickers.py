"""The pickers: which endpoints, in which order, and how ties and zeros are drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from epp.framework.registry import PluginType
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from plugins.pickers import max_score, weighted_random
from plugins.pickers import random as random_picker

ALL = [
    pytest.param(max_score.PLUGIN, id="max-score"),
    pytest.param(random_picker.PLUGIN, id="random"),
    pytest.param(weighted_random.PLUGIN, id="weighted-random"),
]


def pick(plugin_type: PluginType, totals: Sequence[float], most: int = 1, seed: int = 1) -> list[int]:
    picker = make_plugin(plugin_type, {"maxNumOfEndpoints": most}, make_context(seed=seed))
    return list(picker.pick(make_request(), make_candidates(len(totals)), totals))


def shares(plugin_type: PluginType, totals: Sequence[float], draws: int = 20_000) -> list[float]:
    """How often each candidate is picked alone."""
    picker = make_plugin(plugin_type)
    request, candidates = make_request(), make_candidates(len(totals))
    counts = Counter(picker.pick(request, candidates, totals)[0] for _ in range(draws))
    return [counts[position] / draws for position in range(len(totals))]


@pytest.mark.parametrize(
    ("plugin_type", "totals", "expected"),
    [
        pytest.param(max_score.PLUGIN, [1, 3, 3], [0, 0.5, 0.5], id="P1 max-score: ties evenly, the rest never"),
        pytest.param(max_score.PLUGIN, [0, 0, 0], [1 / 3] * 3, id="P2 max-score: nothing scored"),
        pytest.param(max_score.PLUGIN, [-2, -1, -1], [0, 0.5, 0.5], id="max-score: negative weights"),
        pytest.param(max_score.PLUGIN, [0.1 + 0.2, 0.3], [1, 0], id="max-score: ties are exact"),
        pytest.param(random_picker.PLUGIN, [100, 0], [0.5, 0.5], id="P10 random: totals do not matter"),
        pytest.param(weighted_random.PLUGIN, [0.1, 0.3, 0.6], [0.1, 0.3, 0.6], id="P3 weighted: in proportion"),
        pytest.param(weighted_random.PLUGIN, [10, 30, 60], [0.1, 0.3, 0.6], id="weighted: totals above 1"),
        pytest.param(weighted_random.PLUGIN, [0, 0, 0.001], [0, 0, 1], id="P4 weighted: zero is never drawn"),
        pytest.param(weighted_random.PLUGIN, [0, 0, 0], [1 / 3] * 3, id="P5 weighted: nothing scored"),
        pytest.param(weighted_random.PLUGIN, [1e-5, 2e-5], [1 / 3, 2 / 3], id="P8 weighted: tiny totals"),
        pytest.param(weighted_random.PLUGIN, [-1, float("nan"), 1], [0, 0, 1], id="weighted: negative and NaN count as 0"),
    ],
)
def test_shares_of_single_picks(plugin_type: PluginType, totals: list[float], expected: list[float]) -> None:
    # 20,000 draws: the standard deviation of a share is at most 0.0035.
    assert shares(plugin_type, totals) == pytest.approx(expected, abs=0.015)


def test_max_score_orders_by_total() -> None:
    assert pick(max_score.PLUGIN, [0.9, 0.7, 0.8], most=2) == [0, 2]


def test_max_score_orders_ties_at_random() -> None:
    orders = Counter(tuple(pick(max_score.PLUGIN, [1, 2, 2], most=3, seed=seed)) for seed in range(200))
    assert set(orders) == {(1, 2, 0), (2, 1, 0)}
    assert min(orders.values()) > 60


def test_weighted_random_fills_up_with_the_others() -> None:
    picks = {tuple(pick(weighted_random.PLUGIN, [5, 0, 0], most=2, seed=seed)) for seed in range(50)}
    assert picks == {(0, 1), (0, 2)}, "P6: the first, then any other"


class ScriptedRandom(random.Random):
    """Draws the given numbers."""

    def __init__(self, draws: Sequence[float]) -> None:
        super().__init__(0)
        self._draws = iter(draws)

    def random(self) -> float:
        return next(self._draws)


@pytest.mark.parametrize(
    ("draws", "totals", "expected"),
    [
        # The keys U ** (1 / total) are 0.7071, 0.81 and 0.2.
        pytest.param([0.5, 0.9, 0.2], [2.0, 0.5, 1.0], [1, 0, 2], id="P7 descending keys"),
        pytest.param([0.0, 0.5], [1.0, 1.0], [1, 0], id="a draw of 0 has a key"),
    ],
)
def test_weighted_random_sorts_by_key(draws: list[float], totals: list[float], expected: list[int]) -> None:
    picker = weighted_random.WeightedRandomPicker(len(totals), ScriptedRandom(draws))
    assert picker.pick(make_request(), make_candidates(len(totals)), totals) == expected


@pytest.mark.parametrize("plugin_type", ALL)
def test_more_than_there_are(plugin_type: PluginType) -> None:
    assert sorted(pick(plugin_type, [1, 2, 0], most=10)) == [0, 1, 2], "P9: all, and no error"


@pytest.mark.parametrize("plugin_type", ALL)
@pytest.mark.parametrize("most", [1, 3])
def test_no_candidates(plugin_type: PluginType, most: int) -> None:
    assert pick(plugin_type, [], most=most) == []


@pytest.mark.parametrize("plugin_type", ALL)
@pytest.mark.parametrize("most", [0, -2])
def test_a_limit_that_is_not_positive_becomes_one(plugin_type: PluginType, most: int) -> None:
    context = make_context()
    picker = make_plugin(plugin_type, {"maxNumOfEndpoints": most}, context)
    assert len(picker.pick(make_request(), make_candidates(3), [1.0, 1.0, 1.0])) == 1
    assert context.warnings == [("maxNumOfEndpoints", f"{most} is not positive; 1 is used")]


@pytest.mark.parametrize("plugin_type", ALL)
def test_one_endpoint_is_the_default(plugin_type: PluginType) -> None:
    context = make_context()
    picker = make_plugin(plugin_type, {}, context)
    assert len(picker.pick(make_request(), make_candidates(3), [1.0, 1.0, 1.0])) == 1
    assert context.warnings == []
