"""What plugins are told of the whole pool: the numbers behind the picker's own gauges."""

from __future__ import annotations

import time
from collections.abc import Callable

from epp.datalayer.store import EndpointStore
from epp.telemetry.metrics import Metrics


class PoolNumbers:
    """Reads the counters themselves, so that nothing is gathered or rendered. Implements ``PoolState``.

    Args:
        metrics: where running requests are counted.
        store: all endpoints.
        fresh_s: age up to which metrics are fresh.
        clock: seconds, monotonic.
    """

    def __init__(
        self, metrics: Metrics, store: EndpointStore, fresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._fresh_s = fresh_s
        self._clock = clock

    def running_requests(self) -> int:
        """Requests that were scheduled and are not over."""
        return self._metrics.running

    def ready_endpoints(self) -> int:
        """Endpoints with fresh metrics."""
        oldest = self._clock() - self._fresh_s
        return sum([updated_s is not None and updated_s >= oldest for updated_s in self._store.snapshot().updated_s])
