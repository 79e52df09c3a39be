"""Advice about flow control and the saturation detector."""

from __future__ import annotations

import pytest

from epp.config.loaded import LoadFlags
from epp.framework.handle import MetricsFlags
from tests.config.corpus import lines, load
from tests.config.doubles import HEADER

PLUGINS = "plugins: [{type: queue-scorer}]\n"

CASES = {
    "time-limit-missing": (
        "featureGates: [flowControl]\nflowControl: {maxRequests: 5}\n",
        [
            (
                "epp.yaml:5:1: warning WRN020: flowControl: flow control is on without a time limit: requests may wait in the "
                "queue for ever; set flowControl.defaultRequestTTL, such as 30s"
            )
        ],
    ),
    "time-limit-zero": (
        "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: 0s}\n",
        [
            (
                "epp.yaml:5:1: warning WRN020: flowControl: flow control is on without a time limit: requests may wait in the "
                "queue for ever; set flowControl.defaultRequestTTL, such as 30s"
            )
        ],
    ),
    "only-a-detector-needs-no-gate": ("flowControl: {saturationDetector: {queueDepthThreshold: 7}}\n", []),
    "detector-twice": (
        "saturationDetector: {queueDepthThreshold: 7}\nflowControl: {saturationDetector: {queueDepthThreshold: 9}}\n",
        [
            (
                "epp.yaml:4:1: warning WRN023: saturationDetector: saturationDetector is given here and in flowControl; "
                "the one in flowControl counts; remove one of them"
            )
        ],
    ),
    "detector-of-unknown-type": (
        "saturationDetector: {type: magic}\n",
        [
            (
                'epp.yaml:4:28: warning WRN012: saturationDetector.type: no detector is of type "magic"; utilization is used; '
                "use one of utilization, running-requests"
            )
        ],
    ),
    "field-of-the-other-type": (
        "saturationDetector: {type: running-requests, queueDepthThreshold: 5}\n",
        [
            (
                "epp.yaml:4:46: warning WRN012: saturationDetector.queueDepthThreshold: queueDepthThreshold has no effect: "
                "it belongs to another type of detector; remove it"
            )
        ],
    ),
    "values-out-of-range": (
        "saturationDetector: {queueDepthThreshold: -5, kvCacheUtilThreshold: 0, metricsStalenessThreshold: 0s}\n",
        [
            (
                "epp.yaml:4:43: warning WRN012: saturationDetector.queueDepthThreshold: queueDepthThreshold -5 is "
                "out of range; the default 5 is used; use an integer above 0"
            ),
            (
                "epp.yaml:4:69: warning WRN012: saturationDetector.kvCacheUtilThreshold: kvCacheUtilThreshold 0 is "
                "out of range; the default 0.8 is used; use a number between 0 and 1, both excluded"
            ),
            (
                "epp.yaml:4:99: warning WRN012: saturationDetector.metricsStalenessThreshold: "
                'metricsStalenessThreshold "0s" is '
                "out of range; the default 200ms is used; use a duration above 0"
            ),
        ],
    ),
    "stale-before-the-next-scrape": (
        "saturationDetector: {metricsStalenessThreshold: 90ms}\n",
        [
            (
                "epp.yaml:4:49: warning WRN013: saturationDetector.metricsStalenessThreshold: metrics older than "
                "90ms count as a full pool, but they are read only every 50ms; "
                "use at least 100ms, or lower --refresh-metrics-interval"
            )
        ],
    ),
    "no-metrics": (
        "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: 1s}\ndataLayer: {injectDefaults: false}\n",
        [
            (
                "epp.yaml:6:29: warning WRN022: dataLayer.injectDefaults: flow control is on, but no metrics are read: "
                "the pool reads as full for ever; remove injectDefaults, or use another detector"
            )
        ],
    ),
    "unknown-usage-policy": (
        "flowControl: {usageLimitPolicyPluginRef: fcfs-ordering-policy}\n",
        [
            (
                "epp.yaml:4:1: warning WRN010: flowControl: flowControl is given, but the feature gate flowControl is off: "
                "it does nothing; write `featureGates: [flowControl]`"
            ),
            (
                'epp.yaml:4:42: error CFG094: flowControl.usageLimitPolicyPluginRef: the plugin "fcfs-ordering-policy" of type '
                "fcfs-ordering-policy is not a usage limit policy, but an ordering policy; "
                "use static-usage-limit-policy"
            ),
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_findings(text: str, expected: list[str]) -> None:
    assert lines(HEADER + PLUGINS + text) == expected


def test_the_default_threshold_is_judged_too() -> None:
    flags = LoadFlags(metrics_flags=MetricsFlags(refresh_interval_s=5.0))
    assert [line.split(": ", 2)[1] for line in lines(HEADER + PLUGINS, flags)] == ["warning WRN013"]


def test_the_nested_detector_counts() -> None:
    text = "saturationDetector: {queueDepthThreshold: 7}\nflowControl: {saturationDetector: {queueDepthThreshold: 9}}\n"
    config = load(HEADER + PLUGINS + text).config
    assert config.detector is not None
    assert config.plugin(config.detector).params.model_dump()["queue_depth_threshold"] == 9


def test_default_policies_can_be_named_without_being_declared() -> None:
    band = "{priority: 1, fairnessPolicyRef: global-strict-fairness-policy, orderingPolicyRef: fcfs-ordering-policy}"
    text = "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: 1s, priorityBands: [" + band + "]}\n"
    assert lines(HEADER + PLUGINS + text) == []
