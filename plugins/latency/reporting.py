"""The metrics of latency prediction: one record for each request that was answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    """The series of one latency of one model."""

    def __init__(self, metrics: PluginMetrics, kind: str, labels: dict[str, str]) -> None:
        def gauge(what: str) -> Gauge:
            return metrics.gauge(f"{_PREFIX}inference_request_metric", **labels, type=what)

        def histogram(name: str) -> Histogram:
            return metrics.histogram(f"{_PREFIX}{name}", **labels)

        self._actual = gauge(kind)
        self._predicted = gauge(f"predicted_{kind}")
        self._duration = gauge(f"{kind}_prediction_duration")
        self._violation = gauge(f"{kind}_slo_violation")
        self._predictions = histogram(f"request_predicted_{kind}_seconds")
        self._durations = histogram(f"request_{kind}_prediction_duration_seconds")
        self._violations: Counter = metrics.counter(f"{_PREFIX}request_slo_violation_total", **labels, type=kind)

    def record(self, measured: Measured) -> None:
        actual_s, predicted_s = measured.actual_s, measured.predicted_s
        if actual_s is not None:
            self._actual.set(actual_s)
        if predicted_s is not None:
            self._predicted.set(predicted_s)
            self._predictions.observe(predicted_s)
            self._duration.set(measured.prediction_s)
            self._durations.observe(measured.prediction_s)
        if actual_s is not None and measured.objective_s is not None:
            violated = actual_s > measured.objective_s
            self._violation.set(float(violated))
            if violated:
                self._violations.inc()


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
