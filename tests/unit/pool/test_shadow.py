"""What stays of the plugins in use when a shadow is taken over, and where the shadow's plugins count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epp.config.changes import compare
from epp.pool.shadow import SwitchedMetrics, kept_at_takeover
from epp.telemetry.metrics import Metrics
from tests.config.test_changes import load

LIVE = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: approx-prefix-cache-producer}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: approx-prefix-cache-producer}}
- {type: active-request-scorer, parameters: {requestTimeout: 1m}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: active-request-scorer}]}
"""
PRODUCER, SCORER, ACTIVE = "approx-prefix-cache-producer", "prefix-cache-scorer", "active-request-scorer"


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        pytest.param("kind:", "kind:", {PRODUCER, SCORER, ACTIVE}, id="nothing changes"),
        pytest.param("1m", "2m", {PRODUCER, SCORER}, id="one that nobody needs"),
        pytest.param(
            "{type: approx-prefix-cache-producer}",
            "{type: approx-prefix-cache-producer, parameters: {maxPrefixBlocksToMatch: 9}}",
            {ACTIVE},
            id="one that another reads: both come from the shadow",
        ),
    ],
)
def test_what_stays(old: str, new: str, kept: set[str]) -> None:
    assert old in LIVE
    live, shadow = load(LIVE), load(LIVE.replace(old, new))
    found = kept_at_takeover(compare(live, shadow), shadow)
    assert found & {PRODUCER, SCORER, ACTIVE} == kept


def test_what_a_plugin_of_the_shadow_needs_comes_with_it() -> None:
    config = load(LIVE)
    changes = compare(config, config)
    changes = replace(changes, unchanged=changes.unchanged - {SCORER}, changed=(SCORER,))
    assert kept_at_takeover(changes, config) & {PRODUCER, SCORER, ACTIVE} == {ACTIVE}


def test_what_plugins_count_is_exposed_once_they_serve() -> None:
    before, serving = Metrics(), Metrics()
    metrics = SwitchedMetrics(before)
    name = "llm_d_epp_kv_cache_events_sequence_gaps_total"
    bound, again = metrics.counter(name), metrics.counter(name)
    assert bound is again
    bound.inc(2)
    metrics.use(serving)
    bound.inc()
    metrics.counter(name).inc()
    assert (before.counter(name).value, serving.counter(name).value) == (2, 2)


def test_families_are_those_of_the_catalogue() -> None:
    with pytest.raises(ValueError, match="no such family"):
        SwitchedMetrics(Metrics()).counter("nothing")
