"""The metrics of several pools as one page: each series of a pool with the pool's name, what the process has once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Collected
from prometheus_client.registry import Collector

from epp.telemetry.cardinality import clean
from epp.telemetry.catalogue import CATALOGUE, POOL_LABEL, Metric
from epp.telemetry.exposition import Points
from epp.telemetry.instruments import Counter, Gauge, Histogram, LabelValues
from epp.telemetry.metrics import Metrics, Snapshot, rendered

_OF_PROCESS = "process_"
"""What a registry collects of the process, whoever's it is."""


class SnapshotOfPools(NamedTuple):
    """What a scrape exposes."""

    process: Snapshot
    pools: Mapping[str, Snapshot]
    registries: Mapping[str, CollectorRegistry]


class MetricsOfPools:
    """The metrics of a process and its pools; ``transport.metrics_page.Exposed``.

    Args:
        process: has what a process has once.
        pools: the metrics of each pool by name, asked at each snapshot.
        legacy: expose the older names too.
    """

    def __init__(self, process: Metrics, pools: Callable[[], Mapping[str, Metrics]], *, legacy: bool) -> None:
        self._process = process
        self._pools = pools
        self._legacy = legacy

    def snapshot(self) -> SnapshotOfPools:
        """What a scrape made now exposes. Must be called on the event loop; cheap."""
        pools = self._pools()
        snapshots = {name: metrics.snapshot() for name, metrics in pools.items()}
        return SnapshotOfPools(self._process.snapshot(), snapshots, {name: m.registry for name, m in pools.items()})

    def render(self, snapshot: SnapshotOfPools) -> bytes:
        """``snapshot`` as text; in any thread."""
        collected = _CollectedOfPools(self._process.registry, snapshot.registries)
        return rendered(list(_merged(snapshot)), collected, legacy=self._legacy)


def _merged(snapshot: SnapshotOfPools) -> Iterator[Points]:
    for index, metric in enumerate(CATALOGUE):
        if metric.of_process:
            yield snapshot.process.families[index]
        else:
            yield _of_pools(metric, {name: pool.families[index] for name, pool in snapshot.pools.items()})


def _of_pools(metric: Metric, pools: Mapping[str, Points]) -> Points:
    children: dict[LabelValues, Counter | Gauge | Histogram] = {}
    for name, points in pools.items():
        label = clean(name)
        children.update({(*values, label): child for values, child in points.children.items()})
    return Points(replace(metric, labels=(*metric.labels, POOL_LABEL)), children)


class _CollectedOfPools(Collector):
    """What client libraries collect, in the process and in each pool."""

    def __init__(self, process: CollectorRegistry, pools: Mapping[str, CollectorRegistry]) -> None:
        self._process = process
        self._pools = pools

    def collect(self) -> Iterator[Collected]:
        """Families, each once."""
        families = {family.name: family for family in self._process.collect()}
        for pool, registry in self._pools.items():
            for family in registry.collect():
                if family.name.startswith(_OF_PROCESS):
                    continue
                known = families.setdefault(family.name, Collected(family.name, family.documentation, family.type, family.unit))
                known.samples += [sample._replace(labels={**sample.labels, POOL_LABEL: pool}) for sample in family.samples]
        yield from families.values()
