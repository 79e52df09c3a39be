"""What environment variables of earlier versions say about a configuration; each is told once, with what to write instead.

Source: gateway-api-inference-extension: cmd/epp/runner/runner.go, pkg/epp/saturationdetector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from epp.config.report import Report
from epp.framework.params import parse_duration
from epp.framework.registry import Gate

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"", "0", "f", "false"})


class _Gated(NamedTuple):
    gate: Gate
    instead: str


class _Threshold(NamedTuple):
    parameter: str
    """Of the utilization detector, inline or declared."""
    read: Callable[[str], object]
    """Raises ValueError."""
    legal: str


def _count(text: str) -> object:
    if (value := int(text)) <= 0:
        raise ValueError(text)
    return value


def _share(text: str) -> object:
    if not 0 < (value := float(text)) < 1:
        raise ValueError(text)
    return value


def _time(text: str) -> object:
    if parse_duration(text) <= 0:
        raise ValueError(text)
    return text


_GATES: Mapping[str, _Gated] = {
    "ENABLE_EXPERIMENTAL_DATALAYER_V2": _Gated(Gate.DATA_LAYER, "featureGates: [dataLayer]"),
    "ENABLE_EXPERIMENTAL_FLOW_CONTROL_LAYER": _Gated(Gate.FLOW_CONTROL, "featureGates: [flowControl]"),
}
_THRESHOLDS: Mapping[str, _Threshold] = {
    "SD_QUEUE_DEPTH_THRESHOLD": _Threshold("queueDepthThreshold", _count, "an integer above 0"),
    "SD_KV_CACHE_UTIL_THRESHOLD": _Threshold("kvCacheUtilThreshold", _share, "a number between 0 and 1, both excluded"),
    "SD_METRICS_STALENESS_THRESHOLD": _Threshold("metricsStalenessThreshold", _time, "a duration above 0, such as 200ms"),
}
VARIABLES = (*_GATES, *_THRESHOLDS)
"""The variables that are read."""


def gates_of(environ: Mapping[str, str], report: Report) -> set[Gate]:
    """Gates that the environment switches on."""
    found: set[Gate] = set()
    for name, (gate, instead) in _GATES.items():
        text = environ.get(name, "").strip()
        if not text:
            continue
        if text.lower() not in _TRUE | _FALSE:
            report.warn("WRN018", "", f"{name}={text} is neither true nor false; it has no effect", f"write `{instead}`")
            continue
        report.warn("WRN018", "", f"{name} is an older form", f"write `{instead}`")
        if text.lower() in _TRUE:
            found.add(gate)
    return found


def thresholds_of(environ: Mapping[str, str], report: Report) -> dict[str, object]:
    """Parameters of the utilization detector that the environment sets; they win over the document."""
    found: dict[str, object] = {}
    for name, (parameter, read, legal) in _THRESHOLDS.items():
        text = environ.get(name, "").strip()
        if not text:
            continue
        fix = f"write `saturationDetector: {{{parameter}: ...}}`"
        try:
            found[parameter] = read(text)
        except ValueError:
            report.warn("WRN018", "", f"{name}={text} has no effect: it must be {legal}", fix)
        else:
            report.warn("WRN018", "", f"{name} is an older form; it wins over the document", fix)
    return found
