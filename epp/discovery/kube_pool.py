"""ClusterDiscovery: an InferencePool, or a selector of pods, followed in the cluster. Implements ``EndpointDiscovery``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from epp.cluster.connection import ClusterConnection
from epp.cluster.events import EventRecorder, Subject
from epp.cluster.watch import Collection, Listed, Watch
from epp.datalayer.objects import ObjectStore, PoolIdentity
from epp.discovery.kube_inference import InferenceObjects
from epp.discovery.kube_objects import VERSIONS, Pod, PoolSpec, ranks_of, read_pod, read_pool
from epp.discovery.kube_sync import PoolSync
from epp.framework import log
from epp.framework.interfaces import EndpointNotifier

_logger = log.get(__name__)

SYNCED = ""
"""The problem while there is none."""


@dataclass(frozen=True, slots=True)
class ClusterSource:
    """What is followed."""

    pool: PoolIdentity
    selector: str = ""
    """Label selector of pods; empty = the InferencePool says which."""
    ports: tuple[int, ...] = ()
    """With a selector: their ports."""
    metrics_port: int = 0
    """Where pods with one port serve their metrics; 0 = on that."""


class ClusterDiscovery:
    """Reports one endpoint for each ready pod of the pool and target port, for as long as the process lives.

    It begins without a pool, and may lose it: ``problem`` says why there is none. An API server that is away changes nothing:
    the last that was heard stays.
    Source: llm-d-router: pkg/epp/controller, pkg/epp/datastore/datastore.go.

    Args:
        connection: the API server.
        source: what is followed.
        objects: receives objectives and rewrites of the pool.
        on_change: told whenever ``problem`` or ``app_protocol`` has changed.
    """

    def __init__(
        self, connection: ClusterConnection, source: ClusterSource, objects: ObjectStore, on_change: Callable[[], None]
    ) -> None:
        self.ready = asyncio.Event()
        self.problem = f"{_what(source)} is not read yet"
        """Why the pool is not known; empty = it is."""
        self.app_protocol = ""
        """``spec.appProtocol`` of the pool; empty = any."""
        self._connection = connection
        self._source = source
        self._on_change = on_change
        self._events = EventRecorder(connection)
        self._objects = InferenceObjects(connection, objects, lambda text: self.warn("InvalidConfiguration", text))
        self._sync: PoolSync | None = None
        self._pool: PoolSpec | None = None
        self._ranks = ranks_of(source.ports)
        self._followed = ""
        self._following: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None

    async def run(self, notifier: EndpointNotifier) -> None:
        """Report endpoints until cancelled."""
        self._sync = PoolSync(notifier, self._source.metrics_port)
        self.ready.set()
        async with asyncio.TaskGroup() as group:
            self._group = group
            if self._source.selector:
                self._follow_pods(self._source.selector)
            else:
                group.create_task(self._follow_pool(), name="watch pool")
                group.create_task(self._objects.run(), name="watch objects")
            group.create_task(self._events.run(), name="write events")

    def reload(self) -> None:
        """Nothing to do: the cluster tells of every change."""

    def warn(self, reason: str, message: str) -> None:
        """Write a warning about the pool into the cluster, if it is there."""
        if self._pool is not None:
            group = self._source.pool.group
            version = f"{group}/{VERSIONS[group]}"
            self._events.warn(Subject(version, "InferencePool", *_identity(self._pool)), reason, message)

    # ── the pool ──

    async def _follow_pool(self) -> None:
        pool = self._source.pool
        path = f"/apis/{pool.group}/{VERSIONS[pool.group]}/namespaces/{pool.namespace}/inferencepools"
        collection = Collection(path, field_selector=f"metadata.name={pool.name}")
        watch = Watch(self._connection, collection, read_pool, on_problem=self._not_heard)
        async for event in watch.events():
            if isinstance(event, Listed):
                found = event.objects[0] if event.objects else None
            else:
                last = event.changes[-1]
                found = None if last.is_deleted else last.object
            self._pool_is(None if found is None or found.is_deleted else found)

    def _pool_is(self, pool: PoolSpec | None) -> None:
        before, self._pool = self._pool, pool
        if pool is None:
            self._no_pool()
        elif pool != before:
            self._ranks = pool.ranks
            self._use(pool)

    def _no_pool(self) -> None:
        assert self._sync is not None
        self._stop_following()
        self._sync.clear()
        self.app_protocol = ""
        self._tell(f"{_what(self._source)} does not exist")

    def _use(self, pool: PoolSpec) -> None:
        assert self._sync is not None
        if not pool.selector:
            self._stop_following()
            self._sync.clear()
            _logger.error("pool selects no pod, its selector is empty", pool=pool.name, fix="give spec.selector some labels")
            self.warn("EmptySelector", "spec.selector is empty, which selects no pod; give it some labels")
            self.problem = SYNCED
        elif pool.selector != self._followed:
            self._follow_pods(pool.selector)
        elif self.problem == SYNCED:
            self._sync.use_ranks(pool.ranks)
        self.app_protocol = pool.app_protocol
        self._on_change()

    # ── its pods ──

    def _follow_pods(self, selector: str) -> None:
        assert self._group is not None
        self._stop_following()
        self._followed = selector
        self._following = self._group.create_task(self._follow(selector), name="watch pods")

    def _stop_following(self) -> None:
        task, self._following, self._followed = self._following, None, ""
        if task is not None:
            task.cancel()

    async def _follow(self, selector: str) -> None:
        assert self._sync is not None
        collection = Collection(f"/api/v1/namespaces/{self._source.pool.namespace}/pods", label_selector=selector)
        watch = Watch(self._connection, collection, read_pod, on_problem=self._not_heard)
        async with contextlib.aclosing(watch.events()) as events:
            async for event in events:
                if isinstance(event, Listed):
                    self._listed(event.objects, selector)
                else:
                    self._sync.change(event.changes)

    def _listed(self, pods: tuple[Pod, ...], selector: str) -> None:
        assert self._sync is not None
        self._sync.replace(pods, self._ranks)
        details = {"selector": selector, "pods": len(pods), "ports": [rank.port for rank in self._ranks]}
        _logger.info("pods listed", details=details)
        if not pods:
            self.warn("NoMatchingPods", f"no pod in this namespace has the labels {selector}")
        if self.problem != SYNCED:
            self._tell(SYNCED)

    # ── what is told ──

    def _not_heard(self, problem: str) -> None:
        """While the pool was never read, say why; later the last that was heard stays good."""
        if problem and self.problem != SYNCED:
            self._tell(f"{_what(self._source)} cannot be read: {problem}")

    def _tell(self, problem: str) -> None:
        self.problem = problem
        log_it = _logger.info if problem == SYNCED else _logger.warning
        log_it("pool synced" if problem == SYNCED else "pool is not there", details={"problem": problem} if problem else None)
        self._on_change()


def _what(source: ClusterSource) -> str:
    if source.selector:
        return f"pods {source.selector} in namespace {source.pool.namespace}"
    return f"InferencePool {source.pool.namespace}/{source.pool.name} of {source.pool.group}"


def _identity(pool: PoolSpec) -> tuple[str, str, str]:
    return pool.namespace, pool.name, pool.uid
