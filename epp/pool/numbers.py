"""What plugins are told of the whole pool."""

from __future__ import annotations

import time
from collections.abc import Callable

from epp.datalayer.store import EndpointStore
from epp.decision.ledger import Ledger


class PoolNumbers:
    """Reads ledger and store. Implements ``PoolState``.

    Args:
        ledger: of the requests in flight.
        store: all endpoints.
        fresh_s: age up to which metrics are fresh.
        clock: seconds, monotonic.
    """

    def __init__(
        self, ledger: Ledger, store: EndpointStore, fresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._fresh_s = fresh_s
        self._clock = clock

    def running_requests(self) -> int:
        """Requests that were scheduled and are not over."""
        return self._ledger.running

    def ready_endpoints(self) -> int:
        """Endpoints with fresh metrics."""
        oldest = self._clock() - self._fresh_s
        return sum([updated_s is not None and updated_s >= oldest for updated_s in self._store.snapshot().updated_s])
