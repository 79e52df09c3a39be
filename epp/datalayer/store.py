"""EndpointStore: the only mutable copy of the endpoints and their metrics.

Discovery writes membership, the collector writes metrics, everyone else reads immutable snapshots. All calls are made on the
event loop and none of them waits, so there are no locks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.interfaces import FollowsEndpoints
from epp.framework.types import UNSCRAPED, Endpoint, EndpointChange, EndpointId, EndpointMetrics, Freshness

_logger = log.get(__name__)

_SAME_START_S = 1.0
"""Two starts of a process that are no further apart are one: a host's clock may be corrected while it runs."""


class Snapshot:
    """Endpoints and metrics of one moment, in declaration order; shared by all requests until something changes.

    That metrics were read again and say the same is no change: only their freshness moves.
    """

    def __init__(
        self, endpoints: tuple[Endpoint, ...], metrics: tuple[EndpointMetrics, ...], freshness: tuple[Freshness, ...]
    ) -> None:
        self.endpoints = endpoints
        self.metrics = metrics
        self._freshness = freshness

    def __len__(self) -> int:
        return len(self.endpoints)

    @cached_property
    def candidates(self) -> Candidates:
        """All endpoints as candidates; their columns are built once for all requests that read this snapshot."""
        return Candidates(self.endpoints, self.metrics, self._freshness)

    @cached_property
    def scraped(self) -> Candidates:
        """Only the endpoints whose metrics were read at least once."""
        return self.candidates.where([updated_s is not None for updated_s in self.updated_s])

    @property
    def updated_s(self) -> list[float | None]:
        """When the metrics of each endpoint were last read, as of now; None = never."""
        return self.candidates.updated_s


class _Row:
    __slots__ = ("endpoint", "freshness", "metrics", "position")

    def __init__(self, endpoint: Endpoint, metrics: EndpointMetrics, freshness: Freshness) -> None:
        self.endpoint = endpoint
        self.metrics = metrics
        self.freshness = freshness
        self.position = 0


class EndpointStore:
    """Endpoints by id, in declaration order, each with its last metrics. Implements ``EndpointNotifier``.

    A change of address or port is a removal and an addition: nothing that was learned of one server may stick to another. So is
    a server that says that it began later than the one that was there before.
    """

    def __init__(self) -> None:
        self._rows: dict[EndpointId, _Row] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._metrics: list[EndpointMetrics] = []
        self._snapshot: Snapshot | None = None
        self._by_host_port: dict[str, Endpoint] | None = None
        self._by_address: dict[str, tuple[Endpoint, ...]] | None = None
        self._listeners: list[FollowsEndpoints] = []
        self._scraped: Callable[[], None] | None = None

    # ── reading ──

    def snapshot(self) -> Snapshot:
        """Everything as of now; the same object until an endpoint or a metric changes, or one is read for the first time."""
        snapshot = self._snapshot
        if snapshot is None:
            freshness = tuple([row.freshness for row in self._rows.values()])
            snapshot = self._snapshot = Snapshot(self._endpoints, tuple(self._metrics), freshness)
        return snapshot

    def candidates(self) -> Candidates:
        """All endpoints with their metrics of this moment; shared by all requests until something changes."""
        return self.snapshot().candidates

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def get(self, endpoint_id: EndpointId) -> Endpoint | None:
        """The endpoint with this id."""
        row = self._rows.get(endpoint_id)
        return row.endpoint if row is not None else None

    def metrics(self, endpoint_id: EndpointId) -> EndpointMetrics:
        """Its last metrics; ``UNSCRAPED`` if there is no such endpoint."""
        row = self._rows.get(endpoint_id)
        return row.metrics if row is not None else UNSCRAPED

    def updated_s(self, endpoint_id: EndpointId) -> float | None:
        """When its metrics were last read, monotonic; None if they never were or there is no such endpoint."""
        row = self._rows.get(endpoint_id)
        return row.freshness.updated_s if row is not None else None

    def at(self, host_port: str) -> Endpoint | None:
        """The endpoint at ``address:port`` (IPv6 in brackets); the first declared if several share it."""
        if self._by_host_port is None:
            self._by_host_port = {e.host_port: e for e in reversed(self._endpoints)}
        return self._by_host_port.get(host_port) or self._by_host_port.get(_canonical_host_port(host_port))

    def at_address(self, address: str) -> tuple[Endpoint, ...]:
        """All endpoints at an address, without port and brackets, in declaration order."""
        if self._by_address is None:
            groups: dict[str, list[Endpoint]] = {}
            for endpoint in self._endpoints:
                groups.setdefault(endpoint.address, []).append(endpoint)
            self._by_address = {key: tuple(group) for key, group in groups.items()}
        return self._by_address.get(address) or self._by_address.get(_canonical_address(address), ())

    # ── listening ──

    def cache_block_tokens(self, endpoint_id: EndpointId) -> int:
        """Tokens per KV block, as the server tells; 0 = it does not, or there is no such endpoint. Not for every request."""
        snapshot = self.snapshot()
        found = zip(snapshot.endpoints, snapshot.metrics, strict=True)
        return next((metrics.cache_block_size for endpoint, metrics in found if endpoint.id == endpoint_id), 0)

    def subscribe(self, listener: FollowsEndpoints) -> None:
        """Tell ``listener`` of changes from now on, and of all endpoints that are already there.

        Each change is told at once and in order, to all listeners; one that raises is logged.
        """
        self._listeners.append(listener)
        if self._endpoints:
            _tell(listener, EndpointChange(added=self._endpoints))

    def unsubscribe(self, listener: FollowsEndpoints) -> None:
        """Stop telling; nothing happens if it was not subscribed."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def on_scrape(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each scrape, also after one that said the same; there is one at most."""
        self._scraped = callback

    # ── membership: EndpointNotifier ──

    def upsert(self, endpoint: Endpoint) -> None:
        """Add an endpoint at the end, or replace its metadata where it stands; its metrics stay."""
        self.change((endpoint,))

    def delete(self, endpoint_id: EndpointId) -> None:
        """Remove an endpoint; nothing happens if it is not there."""
        self.change((), (endpoint_id,))

    def change(self, upserted: Sequence[Endpoint], deleted: Sequence[EndpointId] = ()) -> None:
        """Delete, then add or replace, as one change; one that is in both keeps nothing of what was known of it."""
        rows = self._rows.copy()
        for endpoint_id in deleted:
            rows.pop(endpoint_id, None)
        for endpoint in upserted:
            rows[endpoint.id] = _merged(rows.get(endpoint.id), endpoint)
        self._apply(rows)

    def replace_all(self, endpoints: Sequence[Endpoint]) -> None:
        """Make the membership equal to ``endpoints``, in their order; of a doubled id the last one counts."""
        self._apply({endpoint.id: _merged(self._rows.get(endpoint.id), endpoint) for endpoint in endpoints})

    # ── metrics ──

    def set_metrics(self, endpoint_id: EndpointId, metrics: EndpointMetrics, updated_s: float | None = None) -> bool:
        """Replace the metrics of an endpoint; equal ones leave what is known, and the snapshot, as it is.

        Args:
            updated_s: when they were read, monotonic; None = they are as old as before.

        Returns:
            False if the endpoint is gone, or is another server than before, which is read anew; nothing is written then.
        """
        row = self._rows.get(endpoint_id)
        if row is None:
            return False
        if metrics is not row.metrics and _began_later(metrics, row.metrics):
            self._begin_anew(row, metrics.started_s)
            return False
        if updated_s is not None:
            if row.freshness.updated_s is None:
                self._snapshot = None
            row.freshness.updated_s = updated_s
        if metrics is not row.metrics and metrics != row.metrics:
            row.metrics = metrics
            self._metrics[row.position] = metrics
            self._snapshot = None
        if updated_s is not None and self._scraped is not None:
            self._scraped()
        return True

    # ── inside ──

    def _begin_anew(self, row: _Row, started_s: float | None) -> None:
        """Another server is where this one was: remove and add it."""
        endpoint = row.endpoint
        details = {"endpoint": endpoint.id, "started": started_s, "before": row.metrics.started_s}
        _logger.info("model server was restarted, what was known of it is forgotten", details=details)
        self._apply({**self._rows, endpoint.id: _Row(endpoint, replace(UNSCRAPED, started_s=started_s), Freshness())})

    def _apply(self, rows: dict[EndpointId, _Row]) -> None:
        """Take over the new rows, then tell the listeners what changed, all at once."""
        before, self._rows = self._rows, rows
        for position, row in enumerate(rows.values()):
            row.position = position
        self._endpoints = tuple(row.endpoint for row in rows.values())
        self._metrics = [row.metrics for row in rows.values()]
        self._snapshot = self._by_host_port = self._by_address = None
        change = _change(before, rows)
        if change != _NO_CHANGE:
            for listener in tuple(self._listeners):
                _tell(listener, change)


_NO_CHANGE = EndpointChange()


def _merged(old: _Row | None, endpoint: Endpoint) -> _Row:
    """The row that ``endpoint`` gets: with the old metrics if it is still the same server."""
    if old is None or old.endpoint.host_port != endpoint.host_port:
        return _Row(endpoint, UNSCRAPED, Freshness())
    return old if old.endpoint == endpoint else _Row(endpoint, old.metrics, old.freshness)


def _began_later(metrics: EndpointMetrics, before: EndpointMetrics) -> bool:
    """The process that says so is not the one that was there. Where several share an address, only a later one can tell."""
    started_s, known_s = metrics.started_s, before.started_s
    return started_s is not None and known_s is not None and started_s > known_s + _SAME_START_S


def _change(before: Mapping[EndpointId, _Row], after: Mapping[EndpointId, _Row]) -> EndpointChange:
    """From one membership to the next; rows of servers that stayed share their freshness."""
    added, updated, removed = [], [], []
    for endpoint_id, row in before.items():
        now = after.get(endpoint_id)
        if now is None or now.freshness is not row.freshness:
            removed.append(row.endpoint)
    for endpoint_id, row in after.items():
        old = before.get(endpoint_id)
        if old is None or old.freshness is not row.freshness:
            added.append(row.endpoint)
        elif old is not row:
            updated.append(row.endpoint)
    return EndpointChange(tuple(added), tuple(updated), tuple(removed))


def _tell(listener: FollowsEndpoints, change: EndpointChange) -> None:
    try:
        listener.endpoints_changed(change)
    except Exception as error:  # noqa: BLE001 — told; the other listeners still hear
        _logger.error("endpoint listener failed", exc=error, listener=repr(listener))


def _canonical_address(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        return address


def _canonical_host_port(host_port: str) -> str:
    host, _, port = host_port.rpartition(":")
    address = _canonical_address(host)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
