"""Flow control's metrics: what each request's way through the queues counts, and the queues as they are when exposed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from epp.telemetry.cardinality import OTHER, clean
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.instruments import Counter, Gauge, Histogram, LabelValues
from epp.telemetry.requests import RequestLabels

FLOW = f"{PREFIX}flow_control_"
QUEUE_S = f"{FLOW}request_queue_duration_seconds"
ENQUEUE_S = f"{FLOW}request_enqueue_duration_seconds"
FLOW_IDLE_S = 300.0
"""After which the series of a flow are dropped. Source: llm-d-router."""

Series = tuple[str, Mapping[LabelValues, Counter | Gauge | Histogram]]
"""Full name of a family, and its children."""


class Families(Protocol):
    """Where children come from: ``Metrics``."""

    def counter(self, name: str, /, **labels: str) -> Counter: ...
    def histogram(self, name: str, /, **labels: str) -> Histogram: ...
    def label_values(self, labels: RequestLabels) -> tuple[LabelValues, bool]: ...
    def forget(self, name: str, /, **labels: str) -> None: ...
    def watch_flow_control(self, read: Callable[[], Iterator[Series]]) -> None: ...


class FlowSeries:
    """The series of one set of request labels.

    Args:
        families: where they are.
        values: label values in the order of ``catalogue.REQUEST_LABELS``.
        pool: name of the pool.
    """

    __slots__ = ("_durations", "_enqueued", "_families", "_pool", "bytes", "last_s", "size", "values")

    def __init__(self, families: Families, values: LabelValues, pool: str) -> None:
        self.values = values
        self.size = 0
        """Requests that wait."""
        self.bytes = 0
        """Their bodies."""
        self.last_s = 0.0
        """When something was counted last, monotonic."""
        self._families = families
        self._pool = pool
        self._durations: dict[str, Histogram] = {}
        self._enqueued: dict[str, Histogram] = {}

    def left(self, outcome: str, waited_s: float) -> None:
        """A request has left flow control."""
        child = self._durations.get(outcome)
        if child is None:
            child = self._durations[outcome] = self._families.histogram(QUEUE_S, outcome=outcome, **self.labels())
        child.observe(waited_s)

    def taken(self, outcome: str, took_s: float) -> None:
        """An arrival was dealt with."""
        child = self._enqueued.get(outcome)
        if child is None:
            _, _, fairness_id, priority = self.values
            child = self._enqueued[outcome] = self._families.histogram(
                ENQUEUE_S, fairness_id=fairness_id, priority=priority, outcome=outcome
            )
        child.observe(took_s)

    def labels(self) -> dict[str, str]:
        """Of the families that have all labels."""
        model, target, fairness_id, priority = self.values
        return {
            "fairness_id": fairness_id,
            "priority": priority,
            "inference_pool": self._pool,
            "model_name": model,
            "target_model_name": target,
        }

    @property
    def flow(self) -> LabelValues:
        """What series of several models have in common."""
        return self.values[2:]

    def drop(self, *, flow: bool) -> None:
        """Remove them from the page.

        Args:
            flow: also what the whole flow has in common.
        """
        for outcome in self._durations:
            self._families.forget(QUEUE_S, outcome=outcome, **self.labels())
        if flow:
            fairness_id, priority = self.flow
            for outcome in self._enqueued:
                self._families.forget(ENQUEUE_S, fairness_id=fairness_id, priority=priority, outcome=outcome)


class FlowMetrics:
    """All of flow control's series of one pool.

    Args:
        families: where children come from.
        pool: name of the pool.
    """

    def __init__(self, families: Families, pool: str) -> None:
        self.pool = clean(pool)
        self._families = families
        self._by_labels: dict[RequestLabels, FlowSeries] = {}
        self._by_values: dict[LabelValues, FlowSeries] = {}
        self._outcomes: dict[tuple[str, int], Counter] = {}
        self.cycle_s = families.histogram(f"{FLOW}dispatch_cycle_duration_seconds")

    def series(self, labels: RequestLabels) -> FlowSeries:
        """The series of a request; the same object for the same label values."""
        return self._by_labels.get(labels) or self._bind(labels)

    def outcome(self, outcome: str, priority: int) -> None:
        """A request has its outcome; once for each."""
        child = self._outcomes.get((outcome, priority))
        if child is None:
            labels = {"outcome": outcome, "priority": str(priority), "inference_pool": self.pool}
            child = self._families.counter(f"{FLOW}requests_total", **labels)
            self._outcomes[outcome, priority] = child
        child.value += 1

    def counter(self, name: str, **labels: str) -> Counter:
        """A counter of the pool."""
        return self._families.counter(FLOW + name, inference_pool=self.pool, **labels)

    def histogram(self, name: str) -> Histogram:
        """A histogram of the pool."""
        return self._families.histogram(FLOW + name, inference_pool=self.pool)

    def watch(self, read: Callable[[], QueueSnapshot]) -> None:
        """Ask ``read`` for the queues whenever metrics are exposed."""
        self._families.watch_flow_control(lambda: self._computed(read()))

    def prune(self, now_s: float) -> bool:
        """Drop the series of flows that were idle for long, but not those that several flows share.

        Returns:
            Whether some are left that may go later.
        """
        own = [one for values, one in self._by_values.items() if OTHER not in values]
        gone = [one for one in own if not one.size and now_s - one.last_s >= FLOW_IDLE_S]
        if gone:
            for one in gone:
                del self._by_values[one.values]
            flows = {one.flow for one in self._by_values.values()}
            for one in gone:
                one.drop(flow=one.flow not in flows)
            dropped = set(map(id, gone))
            self._by_labels = {labels: one for labels, one in self._by_labels.items() if id(one) not in dropped}
        return len(gone) < len(own)

    def _bind(self, labels: RequestLabels) -> FlowSeries:
        values, is_exact = self._families.label_values(labels)
        series = self._by_values.get(values)
        if series is None:
            series = self._by_values[values] = FlowSeries(self._families, values, self.pool)
        if is_exact:
            self._by_labels[labels] = series
        return series

    def _computed(self, snapshot: QueueSnapshot) -> Iterator[Series]:
        sizes: dict[LabelValues, Gauge] = {}
        held: dict[LabelValues, Gauge] = {}
        for series in self._by_values.values():
            model, target, fairness_id, priority = series.values
            key = (fairness_id, priority, self.pool, model, target)
            sizes[key], held[key] = _gauge(series.size), _gauge(series.bytes)
        yield f"{FLOW}queue_size", sizes
        yield f"{FLOW}queue_bytes", held
        pool: LabelValues = (self.pool,)
        stages = {"prefill": snapshot.prefill, "decode": snapshot.decode, "effective": snapshot.effective}
        yield f"{FLOW}pool_saturation", {(self.pool, name): _gauge(v) for name, v in stages.items() if v is not None}
        stale: dict[LabelValues, Gauge] = (
            {} if snapshot.stale is None else {(clean(snapshot.detector),): _gauge(snapshot.stale)}
        )
        yield f"{FLOW}stale_endpoints", stale
        bands: dict[LabelValues, BandSnapshot] = {(str(band.priority), self.pool): band for band in snapshot.bands}
        yield f"{FLOW}capacity_utilization_requests", {k: _share(b.requests, b.max_requests) for k, b in bands.items()}
        yield f"{FLOW}capacity_utilization_bytes", {k: _share(b.bytes, b.max_bytes) for k, b in bands.items()}
        requests, size = sum(band.requests for band in snapshot.bands), sum(band.bytes for band in snapshot.bands)
        limits = (("requests", requests, snapshot.max_requests), ("bytes", size, snapshot.max_bytes))
        for name, value, limit in limits:
            yield f"{FLOW}global_capacity_utilization_{name}", {pool: _share(value, limit)} if limit else {}
        yield f"{FLOW}oldest_request_age_seconds", {k: _gauge(b.oldest_age_s) for k, b in bands.items()}
        if snapshot.evicts:
            yield f"{FLOW}reclaim_target", {pool: _gauge(snapshot.reclaim_target)}
            yield f"{FLOW}pending_reclaim", {pool: _gauge(snapshot.pending_reclaim)}


class BandSnapshot(NamedTuple):
    """One band at the moment of the scrape."""

    priority: int
    requests: int
    bytes: int
    max_requests: int
    max_bytes: int
    oldest_age_s: float
    """Of the request that waits longest; 0 if none waits."""


class QueueSnapshot(NamedTuple):
    """Flow control at the moment of the scrape."""

    bands: tuple[BandSnapshot, ...] = ()
    effective: float | None = None
    """Saturation of the fullest stage."""
    prefill: float | None = None
    decode: float | None = None
    detector: str = ""
    stale: int | None = None
    """Endpoints whose metrics the detector finds too old."""
    max_requests: int = 0
    max_bytes: int = 0
    evicts: bool = False
    reclaim_target: float = 0.0
    """Saturation that the last decision to end requests wanted to free."""
    pending_reclaim: float = 0.0
    """What is still to show of it."""


def _share(value: float, limit: float) -> Gauge:
    return _gauge(value / limit if limit else 0.0)


def _gauge(value: float) -> Gauge:
    gauge = Gauge()
    gauge.set(value)
    return gauge
