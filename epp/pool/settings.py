"""What the process says about one pool, and what it lends it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from epp.cluster.connection import ClusterConnection
from epp.datalayer.collector import TIMEOUT_S
from epp.datalayer.objects import PoolIdentity
from epp.datalayer.page_rounds import PageReader, make_page_reader
from epp.decision.records import DecisionLog
from epp.discovery.kube_pool import ClusterSource
from epp.framework.handle import MetricsFlags
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.telemetry.decisions import DecisionOptions


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Flags that concern one pool."""

    identity: PoolIdentity
    endpoints: tuple[str, ...] = ()
    """``--endpoint``: as they were given; none = a discovery plugin finds them."""
    objects: tuple[str, ...] = ()
    """``--objects``: files with objectives and rewrites."""
    use_subset: bool = True
    """False is ``--disable-endpoint-subset-filter``."""
    hold_back_unscraped: bool = False
    hold_back_stale: bool = False
    staleness_threshold_s: float = 2.0
    """Age up to which metrics are fresh."""
    refresh_interval_s: float = 0.05
    """Of data sources without an interval of their own."""
    emit_scores: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    """``--max-request-body-bytes``; 0 = no limit."""
    max_decoded_bytes: int = 1024 * 1024 * 1024
    """``--max-buffered-bytes``, which holds for what content codings unfold to by itself; 0 = no limit."""
    decisions: DecisionOptions = field(default_factory=DecisionOptions)
    """Which decisions are kept for explanations."""
    metrics_flags: MetricsFlags = field(default_factory=MetricsFlags)
    selector: str = ""
    """``--endpoint-selector``: pods that are followed in place of an InferencePool."""
    target_ports: tuple[int, ...] = ()
    metrics_port: int = 0
    """``--model-server-metrics-port``, of pools in a cluster that have one port."""

    @property
    def source(self) -> ClusterSource:
        """What is followed in a cluster."""
        return ClusterSource(self.identity, self.selector, self.target_ports, self.metrics_port)


def _native_pages() -> PageReader | None:
    return make_page_reader(MAX_PAGE_BYTES, TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All of the world outside that a pool and its plugins meet, but the event loop: time, chance, and the servers' pages.

    The defaults are the real world; with others, and another event loop, a pool lives in a world of its own.
    """

    clock: Callable[[], float] = time.monotonic
    """Seconds; of everything that waits, ages or is remembered for a time."""
    stopwatch: Callable[[], float] = time.perf_counter
    """Seconds; of how long plugins take, by which they are judged."""
    seeds: random.Random = field(default_factory=random.Random)
    """Where all randomness comes from: of plugins, of rewrites, of requests that go anywhere."""
    new_request_id: Callable[[], str] = lambda: str(uuid4())
    pages: Callable[[], PageReader | None] = _native_pages
    """Makes what reads plain metrics pages; None = the event loop reads them."""
    cluster: ClusterConnection | None = None
    """Where endpoints are found that neither flags nor the configuration name; None = outside of any."""
    decisions: DecisionLog | None = None
    """Takes the records of decisions; None = the log, and those that are kept for explanations."""
