"""The metrics of latency prediction: one record for each request that was answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from epp.framework.handle import Counter, Gauge, Histogram, PluginMetrics

_PREFIX = "llm_d_epp_"
_MOST_MODELS = 256
"""Pairs of model names whose series are kept at hand."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One of the two latencies of a request, in seconds; None = not known."""

    actual_s: float | None
    predicted_s: float | None
    objective_s: float | None
    prediction_s: float
    """How long predicting took."""


class _Series:
    """The series of one latency of one model; each is made when there is something to write."""

    def __init__(self, metrics: PluginMetrics, kind: str, labels: dict[str, str]) -> None:
        self._metrics = metrics
        self._kind = kind
        self._labels = labels
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}

    def record(self, measured: Measured) -> None:
        """Write what is known of one request."""
        kind, actual_s, predicted_s = self._kind, measured.actual_s, measured.predicted_s
        if actual_s is not None:
            self._gauge(kind).set(actual_s)
        if predicted_s is not None:
            self._gauge(f"predicted_{kind}").set(predicted_s)
            self._histogram(f"request_predicted_{kind}_seconds").observe(predicted_s)
            self._gauge(f"{kind}_prediction_duration").set(measured.prediction_s)
            self._histogram(f"request_{kind}_prediction_duration_seconds").observe(measured.prediction_s)
        if actual_s is not None and measured.objective_s is not None:
            violated = actual_s > measured.objective_s
            self._gauge(f"{kind}_slo_violation").set(float(violated))
            if violated:
                self._violations.inc()

    def _gauge(self, what: str) -> Gauge:
        gauge = self._gauges.get(what)
        if gauge is None:
            gauge = self._metrics.gauge(f"{_PREFIX}inference_request_metric", **self._labels, type=what)
            self._gauges[what] = gauge
        return gauge

    def _histogram(self, name: str) -> Histogram:
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = self._metrics.histogram(f"{_PREFIX}{name}", **self._labels)
        return histogram

    @cached_property
    def _violations(self) -> Counter:
        return self._metrics.counter(f"{_PREFIX}request_slo_violation_total", **self._labels, type=self._kind)


class LatencyReport:
    """Writes the metrics of one plugin.

    Args:
        metrics: the picker's.
        plugin_name, plugin_type: labels.
    """

    def __init__(self, metrics: PluginMetrics, plugin_name: str, plugin_type: str) -> None:
        self._metrics = metrics
        self._plugin = {"plugin_name": plugin_name, "plugin_type": plugin_type}
        self._series = lru_cache(_MOST_MODELS)(self._bind)

    def answered(self, model: str, target_model: str, ttft: Measured, tpot: Measured) -> None:
        """A request was answered to its end."""
        first, further = self._series(model or target_model, target_model)
        first.record(ttft)
        further.record(tpot)

    def _bind(self, model: str, target_model: str) -> tuple[_Series, _Series]:
        labels = {**self._plugin, "model_name": model, "target_model_name": target_model}
        return _Series(self._metrics, "ttft", labels), _Series(self._metrics, "tpot", labels)
