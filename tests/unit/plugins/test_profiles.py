"""Profiles of real plugins: scores of several scorers add up, and pickers choose where nothing was scored."""

from __future__ import annotations

from collections import Counter

import pytest

from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.registry import PluginType
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.filters import by_label_selector
from plugins.pickers import max_score
from plugins.pickers import random as random_picker
from plugins.scorers import active_request, kv_cache_utilization, prefix_cache, queue
from tests.unit.plugins.flights import begin, decided
from tests.unit.scheduling.doubles import make_profile


def test_s23_four_scorers_of_which_each_prefers_another() -> None:
    rows = [EndpointMetrics(waiting_queue=q, kv_cache_usage=u) for q, u in ((0, 0.6), (2, 0.2), (4, 0.1))]
    candidates, request = make_candidates(rows), make_request()
    active = make_plugin(active_request.PLUGIN)
    for endpoint, count in zip(candidates, (4, 2, 0), strict=True):
        for _ in range(count):
            begin(active, make_request(), decided(endpoint))
    ratios = {i: PrefixMatch(held, 4, 16) for i, held in zip(candidates.ids, (2, 1, 0), strict=True)}
    request.data.set(PREFIX_CACHE_MATCH.by("mine"), ratios)
    prefix = make_plugin(prefix_cache.PLUGIN, {}, make_context("mine"))
    queued, used = make_plugin(queue.PLUGIN), make_plugin(kv_cache_utilization.PLUGIN)
    result = make_profile(scorers=[(queued, 1), (used, 1), (active, 2), (prefix, 3)]).run(request, candidates)
    assert result.totals == pytest.approx([2.9, 3.05, 2.9])
    assert result.targets == (candidates[1],)


@pytest.mark.parametrize(
    ("plugin_type", "count"),
    [pytest.param(max_score.PLUGIN, 3, id="S12 max-score"), pytest.param(random_picker.PLUGIN, 2, id="S13 random")],
)
def test_where_nothing_was_scored_all_are_picked_alike(plugin_type: PluginType, count: int) -> None:
    everything = make_plugin(by_label_selector.PLUGIN)
    profile = make_profile(filters=[everything], picker=make_plugin(plugin_type))
    candidates, request = make_candidates(count), make_request()
    picked = Counter(profile.run(request, candidates).targets[0].name for _ in range(3000))
    # The standard deviation of a count is at most 27.
    assert list(picked.values()) == pytest.approx([3000 / count] * count, abs=140)
