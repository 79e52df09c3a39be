"""All metrics of one picker: one method for each event, written on the event loop, exposed as Prometheus text.

Each instance has families and a registry of its own, so that several pickers live in one process. The families are
those of ``catalogue``; a plugin binds a child of one by name (``counter``, ``gauge``, ``histogram``). To expose them,
take a ``snapshot`` on the event loop and ``render`` it in any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from epp.telemetry import exposition
from epp.telemetry.cardinality import Cap, clean
from epp.telemetry.catalogue import CATALOGUE, PREFIX, Bounds, Kind, Metric
from epp.telemetry.exposition import Points
from epp.telemetry.flow_control import Series
from epp.telemetry.instruments import Counter, Family, Gauge, Histogram, LabelValues
from epp.telemetry.legacy_names import LEGACY
from epp.telemetry.pool import PoolSnapshot, pool_series
from epp.telemetry.requests import Labeller, RequestFacts, RequestLabels, RequestSeries
from epp.telemetry.streams import StreamStats, stream_series

_MODEL_LABELS = frozenset({"model_name", "target_model_name"})
_PAUSE_AFTER = 65_536
"""Characters that ``render`` makes before it lets other threads run; some 0.2 ms, ten times the cost of letting them."""


class Build(NamedTuple):
    """What the build is made from."""

    version: str = ""
    commit: str = ""
    build_ref: str = ""
    """Branch or tag."""


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """What is exposed, and how many label values clients may create."""

    build: Build = field(default=Build())
    legacy: bool = True
    """Expose the older names too (``--legacy-metrics``)."""
    stream_metrics: bool = False
    """Expose ``extproc_stream*`` (``--enable-grpc-stream-metrics``)."""
    fairness_id_limit: int = 1000
    """Distinct fairness ids (``--fairness-id-metric-label-limit``); 0 = all are ``other``."""
    model_name_limit: int = 1000
    """Distinct model names, incoming and target together; llm-d-router's number."""


class PluginLabels(NamedTuple):
    """A plugin at one of its extension points."""

    extension_point: str
    """``Filter``, ``Scorer``, ``Picker``, ``PreRequest`` and so on."""
    plugin_type: str
    plugin_name: str


class AttemptLabels(NamedTuple):
    """One scheduling decision; the endpoint's labels are empty when none was picked."""

    succeeded: bool
    target_model_name: str
    endpoint_name: str = ""
    namespace: str = ""
    port: str = ""


class RewriteLabels(NamedTuple):
    """One model name that a rewrite rule replaced."""

    model_rewrite_name: str
    """Name of the InferenceModelRewrite object."""
    model_name: str
    target_model: str


class Reloaded(StrEnum):
    """What became of another configuration."""

    SUCCESS = "success"
    FAILURE = "failure"
    """It cannot be used; the one before stays."""
    NOOP = "noop"
    """It is the one in use."""
    RESTART_REQUIRED = "restart_required"
    """It can be used by another process only; the one before stays, as a whole."""


class Snapshot(NamedTuple):
    """What a scrape exposes. The children stay live; which children there are is settled."""

    families: Sequence[Points]


class Metrics:
    """The metrics of one picker.

    Args:
        options: what is exposed.
    """

    def __init__(self, options: MetricsOptions = MetricsOptions()) -> None:
        self._options = options
        self.registry = CollectorRegistry(auto_describe=False)
        """Exposed after our own families: the process, and what a plugin's own client library collects."""
        ProcessCollector(registry=self.registry)
        self._counters: dict[str, Family[Counter]] = {}
        self._gauges: dict[str, Family[Gauge]] = {}
        self._histograms: dict[str, Family[Histogram]] = {}
        for metric in CATALOGUE:
            self._add(metric)
        self._models = Cap(options.model_name_limit)
        self._labeller = Labeller(self._models, Cap(options.fairness_id_limit))
        self._requests: dict[RequestLabels, RequestSeries] = {}
        self._series: dict[LabelValues, RequestSeries] = {}
        self._attempts: dict[AttemptLabels, Counter] = {}
        self._plugin_errors = self._counters[f"{PREFIX}plugin_errors_total"]
        self._scheduler_s = self._histogram("scheduler_e2e_duration_seconds")
        self._request_processing_s = self._histogram("request_processing_duration_seconds")
        self._response_processing_s = self._histogram("response_processing_duration_seconds")
        self._pool: Callable[[], PoolSnapshot] | None = None
        self._running: Callable[[], Mapping[RequestLabels, int]] | None = None
        self._streams: Callable[[], StreamStats] | None = None
        self._queues: Callable[[], Iterator[Series]] | None = None
        self._pools: Callable[[], Iterator[Series]] | None = None
        build = options.build
        self._gauge("info", (build.commit, build.build_ref, build.version)).set(1)

    # Requests

    def request_scheduled(self, labels: RequestLabels) -> None:
        """A request got an endpoint."""
        self._request(labels).total.value += 1

    def request_finished(self, labels: RequestLabels, facts: RequestFacts) -> None:
        """A scheduled request is over, however it ended; call it once."""
        self._request(labels).finished(facts)

    def request_error(self, labels: RequestLabels, error_code: str) -> None:
        """A request ended in an error, scheduled or not; ``error_code`` is an ``errors.ErrorCode``."""
        values, _ = self._labeller.values(labels)
        self._counter("request_error_total", (*values, error_code)).inc()

    def request_processing(self, seconds: float) -> None:
        """Time from a request's headers to its answer, queueing included; also for rejected requests."""
        self._request_processing_s.observe(seconds)

    def response_processing(self, seconds: float) -> None:
        """Time spent on one whole response; 0 is not observed."""
        if seconds > 0:
            self._response_processing_s.observe(seconds)

    def model_rewrite_decision(self, labels: RewriteLabels) -> None:
        """A rewrite rule replaced a model name."""
        rule, model, target = labels
        values = (rule, self._models.fold(model), self._models.fold(target))
        self._counter("model_rewrite_decisions_total", values).inc()

    def admit_model_names(self, names: Iterable[str]) -> None:
        """Never fold these names into ``other``: those that InferenceModelRewrite objects mention."""
        self._models.admit(names)

    # Scheduling and plugins

    def scheduler_attempt(self, labels: AttemptLabels, duration_s: float) -> None:
        """One scheduling decision, made or failed."""
        (self._attempts.get(labels) or self._attempt(labels)).value += 1
        self._scheduler_s.observe(duration_s)

    def plugin_duration(self, labels: PluginLabels) -> Histogram:
        """Where calls of this plugin are observed, in seconds; bind it once when the plugin is built."""
        return self._histogram("plugin_duration_seconds", labels)

    def plugin_error(self, labels: PluginLabels) -> None:
        """A plugin raised, or returned what its contract forbids."""
        self._plugin_errors.child(labels).inc()

    # Data layer, configuration

    def datalayer_poll_error(self, source_type: str) -> None:
        """A data source could not be polled."""
        self._counter("datalayer_poll_errors_total", (source_type,)).inc()

    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None:
        """A value could not be read from a poll's answer."""
        self._counter("datalayer_extract_errors_total", (source_type, extractor_type)).inc()

    def config_loaded(self, sha256: str, unix_s: float) -> None:
        """The first configuration, or a reloaded one, is in use."""
        hashes = self._gauges[f"{PREFIX}config_hash"]
        hashes.children.clear()
        hashes.child((sha256,)).set(1)
        self._gauge("config_last_reload_successful").set(1)
        self._gauge("config_last_reload_success_timestamp_seconds").set(unix_s)

    def config_reloaded(self, result: Reloaded) -> None:
        """Another configuration was tried; after a success ``config_loaded`` is called too."""
        self._counter("config_reloads_total", (result.value,)).inc()
        self._gauge("config_last_reload_successful").set(int(result in (Reloaded.SUCCESS, Reloaded.NOOP)))

    # Read when scraped

    def watch_requests(self, read: Callable[[], Mapping[RequestLabels, int]]) -> None:
        """Ask ``read`` for the requests in flight at each snapshot, on the event loop."""
        self._running = read

    def watch_pool(self, read: Callable[[], PoolSnapshot]) -> None:
        """Ask ``read`` for the pool at each snapshot, on the event loop."""
        self._pool = read

    def watch_transport(self, read: Callable[[], StreamStats]) -> None:
        """Ask ``read`` for the transport's counts at each snapshot, on the event loop."""
        self._streams = read

    def watch_flow_control(self, read: Callable[[], Iterator[Series]]) -> None:
        """Ask ``read`` for the series of the queues at each snapshot, on the event loop."""
        self._queues = read

    def watch_pools(self, read: Callable[[], Iterator[Series]]) -> None:
        """Ask ``read`` for series of the pools of a process at each snapshot, on the event loop; full names of families."""
        self._pools = read

    # Request labels, for those who have families of their own

    def label_values(self, labels: RequestLabels) -> tuple[LabelValues, bool]:
        """Values in the order of ``catalogue.REQUEST_LABELS``, within the caps, and whether none was changed."""
        return self._labeller.values(labels)

    def forget(self, name: str, /, **labels: str) -> None:
        """Drop the child of a family; nothing happens if there is none. Whoever has bound it has to bind it again."""
        metric = _METRICS[name]
        values = tuple([labels[label] for label in metric.labels])
        if metric.kind is Kind.COUNTER:
            self._counters[name].children.pop(values, None)
        elif metric.kind is Kind.GAUGE:
            self._gauges[name].children.pop(values, None)
        else:
            self._histograms[name].children.pop(values, None)

    # Families by name, for plugins

    def counter(self, name: str, /, **labels: str) -> Counter:
        """The child of a counter family; ``name`` in full. Bind it once where values repeat.

        Model names come from clients: above ``MetricsOptions.model_name_limit`` they become ``other``.

        Raises:
            ValueError: no such family, or other labels than the catalogue's.
        """
        return _bind(self._counters, Kind.COUNTER, name, self._folded(labels))

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        """The child of a gauge family. Raises as ``counter`` does."""
        return _bind(self._gauges, Kind.GAUGE, name, self._folded(labels))

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        """The child of a histogram family. Raises as ``counter`` does."""
        return _bind(self._histograms, Kind.HISTOGRAM, name, self._folded(labels))

    # Exposition

    def children(self, name: str) -> Mapping[LabelValues, Counter | Gauge | Histogram]:
        """The children of one family as there are now, each still live; ``name`` without prefix. On the event loop."""
        return self._children(_METRICS[PREFIX + name])

    def snapshot(self) -> Snapshot:
        """What a scrape made now exposes. Must be called on the event loop; cheap."""
        computed = dict[str, Mapping[LabelValues, Counter | Gauge | Histogram]]()
        if self._pool is not None:
            pool = self._pool()
            self._drop_departed(pool)
            computed.update(pool_series(pool))
        if self._running is not None:
            computed[f"{PREFIX}request_running"] = self._running_series(self._running())
        if self._queues is not None:
            computed.update(self._queues())
        if self._pools is not None:
            computed.update(self._pools())
        if self._streams is not None:
            computed.update(stream_series(self._streams(), detailed=self._options.stream_metrics))
        return Snapshot([Points(metric, computed.get(metric.name) or self._children(metric)) for metric in CATALOGUE])

    def render(self, snapshot: Snapshot) -> bytes:
        """``snapshot`` as text; in any thread; lets the event loop run in between."""
        return rendered(snapshot.families, self.registry, legacy=self._options.legacy)

    def exposition(self) -> bytes:
        """``render(snapshot())``, on the event loop: for tests and small tools."""
        return self.render(self.snapshot())

    def _add(self, metric: Metric) -> None:
        if metric.kind is Kind.COUNTER:
            self._counters[metric.name] = Family(Counter)
        elif metric.kind is Kind.GAUGE:
            self._gauges[metric.name] = Family(Gauge)
        else:
            bounds = _counted_bounds(metric)
            self._histograms[metric.name] = Family(lambda: Histogram(bounds))

    def _counter(self, name: str, values: LabelValues = ()) -> Counter:
        return self._counters[PREFIX + name].child(values)

    def _gauge(self, name: str, values: LabelValues = ()) -> Gauge:
        return self._gauges[PREFIX + name].child(values)

    def _histogram(self, name: str, values: LabelValues = ()) -> Histogram:
        return self._histograms[PREFIX + name].child(values)

    def _folded(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """``labels`` with as many model names as are kept apart."""
        if not _MODEL_LABELS & labels.keys():
            return labels
        return {name: self._models.fold(value) if name in _MODEL_LABELS else value for name, value in labels.items()}

    def _request(self, labels: RequestLabels) -> RequestSeries:
        return self._requests.get(labels) or self._bind_request(labels)

    def _bind_request(self, labels: RequestLabels) -> RequestSeries:
        values, is_exact = self._labeller.values(labels)
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = RequestSeries(values, self._counter, self._histogram)
        if is_exact:
            self._requests[labels] = series
        return series

    def _attempt(self, labels: AttemptLabels) -> Counter:
        succeeded, target, endpoint_name, namespace, port = labels
        folded = self._models.fold(target)
        values = ("success" if succeeded else "failure", folded, endpoint_name, namespace, port)
        counter = self._counter("scheduler_attempts_total", values)
        if folded == target:
            self._attempts[labels] = counter
        return counter

    def _running_series(self, running: Mapping[RequestLabels, int]) -> dict[LabelValues, Gauge]:
        """The requests in flight, with 0 where some have been."""
        series = {values: Gauge() for values in self._series}
        for labels, count in running.items():
            values, _ = self._labeller.values(labels)
            series.setdefault(values, Gauge()).inc(count)
        return series

    def _children(self, metric: Metric) -> Mapping[LabelValues, Counter | Gauge | Histogram]:
        if metric.kind is Kind.COUNTER:
            return self._counters[metric.name].children.copy()
        if metric.kind is Kind.GAUGE:
            return self._gauges[metric.name].children.copy()
        return self._histograms[metric.name].children.copy()

    def _drop_departed(self, pool: PoolSnapshot) -> None:
        """Drop the series of endpoints that left; they would stay for ever and grow with every roll-out."""
        present = {(clean(endpoint.name), clean(endpoint.namespace)) for endpoint in pool.endpoints}
        for metric in CATALOGUE:
            if not metric.of_endpoint:
                continue
            name, namespace = metric.labels.index("endpoint_name"), metric.labels.index("namespace")
            family = self._counters.get(metric.name) or self._gauges[metric.name]
            gone = [key for key in family.children if key[name] and (key[name], key[namespace]) not in present]
            for key in gone:
                del family.children[key]
            if gone:
                self._attempts.clear()


def rendered(families: Sequence[Points], collected: Collector, *, legacy: bool) -> bytes:
    """Families as text, and after them what client libraries collect; in any thread, lets the event loop run in between."""
    pieces: list[str] = []
    since_pause = 0
    for piece in exposition.text(families, legacy=legacy):
        pieces.append(piece)
        since_pause += len(piece)
        if since_pause > _PAUSE_AFTER:
            since_pause = 0
            time.sleep(0)  # lets the event loop's thread run now, not after the interpreter's switch interval of 5 ms
    return "".join(pieces).encode() + generate_latest(collected)


def _counted_bounds(metric: Metric) -> Bounds:
    """The bounds observations are counted by: the family's, and those of its older names where they differ."""
    bounds = set(metric.buckets)
    for entry in LEGACY:
        if entry.current == metric.name:
            bounds.update(entry.buckets)
    return tuple(sorted(bounds))


_Child = TypeVar("_Child", Counter, Gauge, Histogram)


def _bind(families: Mapping[str, Family[_Child]], kind: Kind, name: str, labels: Mapping[str, str]) -> _Child:
    metric = _METRICS.get(name)
    if metric is None or metric.kind is not kind:
        what = f"it is a {metric.kind}" if metric else "there is no such family"
        msg = f"cannot bind {kind} {name}: {what}; families are declared in epp/telemetry/catalogue.py"
        raise ValueError(msg)
    if labels.keys() != set(metric.labels):
        msg = f"cannot bind {name} with labels {sorted(labels)}: the catalogue gives it {sorted(metric.labels)}"
        raise ValueError(msg)
    return families[name].child(tuple([labels[label] for label in metric.labels]))


_METRICS = {metric.name: metric for metric in CATALOGUE}
