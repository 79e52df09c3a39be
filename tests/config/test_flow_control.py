"""Flow control and the saturation detector: advice, what is refused, and what values mean."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.config.loaded import LoadFlags
from epp.errors import Severity
from epp.framework.handle import MetricsFlags
from epp.framework.params import format_duration, parse_quantity
from tests.config.corpus import findings, lines, load
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
    "flow 19: a detector of unknown type": (
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
    "flow 20: all values out of range": (
        "saturationDetector: {queueDepthThreshold: -5, kvCacheUtilThreshold: 1.5, metricsStalenessThreshold: -10s}\n",
        [
            (
                "epp.yaml:4:43: warning WRN012: saturationDetector.queueDepthThreshold: queueDepthThreshold -5 is "
                "out of range; the default 5 is used; use an integer above 0"
            ),
            (
                "epp.yaml:4:69: warning WRN012: saturationDetector.kvCacheUtilThreshold: kvCacheUtilThreshold 1.5 is "
                "out of range; the default 0.8 is used; use a number between 0 and 1, both excluded"
            ),
            (
                "epp.yaml:4:101: warning WRN012: saturationDetector.metricsStalenessThreshold: "
                'metricsStalenessThreshold "-10s" is out of range; the default 200ms is used; use a duration above 0'
            ),
        ],
    ),
    "flow 33: a section without its gate": (
        "flowControl: {maxBytes: 1Gi}\n",
        [
            (
                "epp.yaml:4:1: warning WRN010: flowControl: flowControl is given, but the feature gate flowControl is off: "
                "it does nothing; write `featureGates: [flowControl]`"
            )
        ],
    ),
    "flow 68: 0 is no time limit": (
        'featureGates: [flowControl]\nflowControl: {defaultRequestTTL: "0"}\n',
        [
            (
                "epp.yaml:5:1: warning WRN020: flowControl: flow control is on without a time limit: requests may wait in the "
                "queue for ever; set flowControl.defaultRequestTTL, such as 30s"
            )
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


def test_w22_the_default_threshold_is_judged_too() -> None:
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


def gated(setting: str) -> str:
    """A document with this setting of flow control, and the gate."""
    return f"{HEADER}{PLUGINS}featureGates: [flowControl]\nflowControl: {{defaultRequestTTL: 1s, {setting}}}\n"


DETECTOR = HEADER + PLUGINS + "saturationDetector: "
REFUSED = {
    "flow 23: a reference beside a threshold": (DETECTOR + "{pluginRef: x, queueDepthThreshold: 3}\n", "CFG037"),
    "flow 23: a reference to nobody": (DETECTOR + "{pluginRef: nope}\n", "CFG095"),
    "flow 23: a reference to a scorer": (DETECTOR + "{pluginRef: queue-scorer}\n", "CFG095"),
    "flow 68: a negative time": (gated("noEndpointRequestTTL: -1s"), "CFG090"),
    "flow 68: a time without a unit": (gated("noEndpointRequestTTL: 30"), "CFG034"),
    "flow 96: a large K": (gated("maxBytes: 1K"), "CFG034"),
    "flow 96: a unit": (gated("maxBytes: 1KB"), "CFG034"),
    "flow 96: a blank": (gated("maxBytes: 1 Gi"), "CFG034"),
    "flow 96: nothing": (gated('maxBytes: ""'), "CFG034"),
    "flow 96: a negative number": (gated('maxBytes: "-1"'), "CFG090"),
    "flow 96: a truth value": (gated("maxBytes: true"), "CFG034"),
    "an exponent that is no use": (gated('maxBytes: "1e9999999"'), "CFG034"),
    "flow 97: two bands of one priority": (gated("priorityBands: [{priority: 5}, {priority: 5}]"), "CFG091"),
    "flow 97: a band without a priority": (gated("priorityBands: [{maxRequests: 1}]"), "CFG033"),
    "flow 97: no such policy": (gated("priorityBands: [{priority: 1, fairnessPolicyRef: nope}]"), "CFG093"),
    "flow 97: a policy of another kind": (
        gated("priorityBands: [{priority: 1, orderingPolicyRef: global-strict-fairness-policy}]"),
        "CFG094",
    ),
    "flow 97: an unknown key": (gated("maxbytes: 1"), "CFG031"),
    "a share of a template, which is any number of bands": (gated("defaultPriorityBand: {minShare: 0.1}"), "CFG031"),
    "a whole share": (gated("priorityBands: [{priority: 1, minShare: 1}]"), "CFG035"),
    "a negative share": (gated("priorityBands: [{priority: 1, minShare: -0.1}]"), "CFG035"),
    "more shares than there are": (
        gated("priorityBands: [{priority: 1, minShare: 0.6}, {priority: 2, minShare: 0.6}]"),
        "CFG035",
    ),
    "a negative limit of a flow": (gated("defaultPriorityBand: {maxRequestsPerFlow: -1}"), "CFG090"),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED)
def test_is_refused_with_one_error(text: str, code: str) -> None:
    assert [finding.code for finding in findings(text) if finding.severity is Severity.ERROR] == [code]


QUANTITIES = [
    ('"1e50"', 2**63 - 1),
    ('"1Gi"', 2**30),
    ('"500M"', 500_000_000),
    ('"1k"', 1000),
    ('"1.5Gi"', 3 * 2**29),
    ('"0.5"', 1),
    ('"100m"', 1),
    ('"1e3"', 1000),
    ('"5."', 5),
    ("2048", 2048),
]


@pytest.mark.parametrize(("written", "number"), QUANTITIES, ids=[f"flow 95: {written}" for written, _ in QUANTITIES])
def test_quantities(written: str, number: int) -> None:
    section = load(gated(f"maxBytes: {written}")).config.flow_control
    assert section is not None
    assert section.max_bytes == number


def detector(text: str) -> dict[str, Any]:
    """The parameters of the detector that a document chooses."""
    config = load(text).config
    assert config.detector is not None
    return config.plugin(config.detector).params.model_dump()


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        pytest.param(DETECTOR + "{kvCacheUtilThreshold: 1.0}\n", 0.8, id="flow 22: inline, the default instead"),
        pytest.param(
            HEADER + "plugins: [{type: utilization-detector, parameters: {kvCacheUtilThreshold: 1.0}}]\n"
            "saturationDetector: {pluginRef: utilization-detector}\n",
            1.0,
            id="flow 22: as a plugin",
        ),
    ],
)
def test_a_full_cache_as_threshold(text: str, threshold: float) -> None:
    assert detector(text)["kv_cache_util_threshold"] == threshold


@settings(max_examples=40, deadline=None)
@given(
    queue=st.integers(1, 1000),
    usage=st.floats(0.01, 0.99).map(lambda value: round(value, 4)),
    stale_ms=st.integers(100, 10_000),
)
def test_i27_both_forms_make_the_same_detector(queue: int, usage: float, stale_ms: int) -> None:
    values = (
        f"{{queueDepthThreshold: {queue}, kvCacheUtilThreshold: {usage}, "
        f"metricsStalenessThreshold: {format_duration(stale_ms / 1000)}}}"
    )
    declared = f"plugins: [{{type: utilization-detector, name: d, parameters: {values}}}]\n"
    assert detector(f"{DETECTOR}{values}\n") == detector(f"{HEADER}{declared}saturationDetector: {{pluginRef: d}}\n")


@given(st.integers(0, 10**7), st.sampled_from([("", 1), ("k", 1000), ("Ki", 1024), ("Gi", 2**30), ("m", Fraction(1, 1000))]))
def test_i27_quantities_are_exact(thousandths: int, unit: tuple[str, Fraction]) -> None:
    written = f"{thousandths // 1000}.{thousandths % 1000:03}{unit[0]}"
    assert parse_quantity(written) == ceil(Fraction(thousandths, 1000) * unit[1])
