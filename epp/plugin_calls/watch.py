"""Guards of plugins, with what they tell in the log and the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from epp.framework import log
from epp.plugin_calls.guard import BUDGET_S, SKIP_S, Guard
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.metrics import Metrics, PluginLabels

_REPORT_EVERY_S = 10.0

_logger = log.get("epp.plugins")


class PluginWatch:
    """Makes one guard for each plugin at each extension point, whatever the number of profiles.

    Args:
        metrics: where overruns and absences are counted.
        clock: seconds, monotonic.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._guards: dict[PluginLabels, Guard] = {}

    def for_plugins(self, names: Collection[str]) -> PluginWatch:
        """Another one that has the guards of these plugins already: whoever was left out stays left out."""
        other = PluginWatch(self._metrics, self._clock)
        other._guards = {labels: guard for labels, guard in self._guards.items() if labels.plugin_name in names}
        return other

    def forget(self, names: Collection[str]) -> None:
        """These plugins are gone, so none of them is left out any more."""
        for labels, guard in self._guards.items():
            if guard.is_out and labels.plugin_name in names:
                self._metrics.gauge(f"{PREFIX}plugin_skipped", **labels._asdict()).set(0)

    def guard(self, labels: PluginLabels, *, may_skip: bool, budget_s: float = BUDGET_S) -> Guard:
        """The guard of a plugin at an extension point."""
        found = self._guards.get(labels)
        if found is None:
            report = _Report(labels, self._metrics, self._clock)
            found = self._guards[labels] = Guard(report, may_skip=may_skip, budget_s=budget_s, clock=self._clock)
        return found


class _Report:
    """Writes to log and metrics."""

    def __init__(self, labels: PluginLabels, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._labels = labels
        self._metrics = metrics
        self._clock = clock
        self._last_s = float("-inf")

    def overran(self) -> None:
        self._metrics.counter(f"{PREFIX}plugin_overruns_total", **self._labels._asdict()).inc()

    def skipped(self) -> None:
        self._metrics.counter(f"{PREFIX}plugin_skipped_calls_total", **self._labels._asdict()).inc()

    def put_out(self, elapsed_s: float) -> None:
        self._skipped(1)
        self._log(_logger.error, "plugin left out", took_ms=_ms(elapsed_s), for_s=SKIP_S)

    def taken_back(self) -> None:
        self._skipped(0)
        self._log(_logger.info, "plugin taken back")

    def stays_slow(self, elapsed_s: float) -> None:
        now = self._clock()
        if now - self._last_s >= _REPORT_EVERY_S:
            self._last_s = now
            self._log(_logger.error, "plugin too slow", took_ms=_ms(elapsed_s), note="requests cannot do without it")

    def _log(self, write: Callable[..., None], message: str, **fields: object) -> None:
        point, kind, name = self._labels
        write(message, plugin=name, type=kind, extension_point=point, **fields)

    def _skipped(self, value: int) -> None:
        self._metrics.gauge(f"{PREFIX}plugin_skipped", **self._labels._asdict()).set(value)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
