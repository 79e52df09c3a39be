"""PoolSync: pods of a pool → its endpoints in the store. No I/O, no clock; the store never shows a part of a change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from epp.cluster.watch import Change
from epp.discovery.kube_containers import Run, serving
from epp.discovery.kube_objects import Pod, Rank
from epp.framework import log
from epp.framework.interfaces import EndpointNotifier
from epp.framework.types import Endpoint, EndpointId

_logger = log.get(__name__)


class _Server(NamedTuple):
    """What was published of a pod."""

    uid: str
    endpoints: Mapping[EndpointId, Endpoint]
    runs: Mapping[str, Run]
    """Containers that may serve, by name."""
    served_by: Mapping[EndpointId, tuple[str, ...]]
    """Names of the containers behind each endpoint."""


class PoolSync:
    """Keeps the endpoints of a store equal to what the pods of one pool say: one for each eligible pod and target port.

    A pod that was deleted and made again under its name is another server, also where it has the same address. So is one whose
    serving container was started anew, which keeps even the pod; where nothing tells of containers, none was.
    Source: llm-d-router: pkg/epp/datastore/datastore.go.

    Args:
        notifier: the store.
        metrics_port: where pods serve their metrics, if the pool has one port; 0 = on that.
    """

    def __init__(self, notifier: EndpointNotifier, metrics_port: int = 0) -> None:
        self._notifier = notifier
        self._metrics_port = metrics_port
        self._ranks: tuple[Rank, ...] = ()
        self._pods: dict[str, Pod] = {}
        self._servers: dict[str, _Server] = {}

    @property
    def pods(self) -> Mapping[str, Pod]:
        """The pods that the selector matches, eligible or not."""
        return self._pods

    def replace(self, pods: Iterable[Pod], ranks: tuple[Rank, ...]) -> None:
        """These are all pods, and these the target ports."""
        self._pods = {pod.name: pod for pod in pods}
        self._ranks = ranks
        self._publish({**self._servers, **self._pods})

    def use_ranks(self, ranks: tuple[Rank, ...]) -> None:
        """The target ports have changed."""
        self._ranks = ranks
        self._publish(self._pods)

    def change(self, changes: Sequence[Change[Pod]]) -> None:
        """Some pods came, changed or left."""
        for pod, is_deleted in changes:
            if is_deleted:
                self._pods.pop(pod.name, None)
            else:
                self._pods[pod.name] = pod
        self._publish(dict.fromkeys(change.object.name for change in changes))

    def clear(self) -> None:
        """The pool is gone."""
        self.replace((), ())

    def _publish(self, names: Iterable[str]) -> None:
        """Tell the store what has changed of these pods, at once."""
        upserted: list[Endpoint] = []
        deleted: list[EndpointId] = []
        for name in names:
            before = self._servers.get(name, _NOTHING)
            after = self._server(name)
            anew = _begun_anew(before, after)
            if after.endpoints:
                self._servers[name] = _remembering(after, before)
            else:
                self._servers.pop(name, None)
            deleted += [known for known in before.endpoints if known in anew or known not in after.endpoints]
            upserted += [new for known, new in after.endpoints.items() if known in anew or before.endpoints.get(known) != new]
        if upserted or deleted:
            self._notifier.change(upserted, deleted)

    def _server(self, name: str) -> _Server:
        pod = self._pods.get(name)
        if pod is None or not pod.is_eligible:
            return _NOTHING
        ranks = self._ranks
        if pod.active_ports is not None:
            ranks = tuple(rank for rank in ranks if rank.port in pod.active_ports)
            if not ranks and _logger.v(log.VERBOSE):
                _logger.verbose("pod has no endpoint, its annotation names no port of the pool", pod=name)
        metrics_port = self._metrics_port if len(self._ranks) == 1 else 0
        endpoints = [
            Endpoint.of(
                f"{name}-rank-{rank.position}",
                pod.address,
                rank.port,
                pod.labels,
                namespace=pod.namespace,
                pod_name=name,
                node_address=pod.node_address,
                rank_index=rank.position,
                metrics_port=metrics_port,
            )
            for rank in ranks
        ]
        served_by = {e.id: tuple(container.name for container in serving(pod.containers, e.port)) for e in endpoints}
        runs = {container.name: container.run for container in pod.containers}
        return _Server(pod.uid, {endpoint.id: endpoint for endpoint in endpoints}, runs, served_by)


_NOTHING = _Server("", {}, {}, {})


def _begun_anew(before: _Server, after: _Server) -> Collection[EndpointId]:
    """Endpoints whose server is another one than before: of another pod, or in a container that was started again."""
    if before.uid != after.uid:
        return before.endpoints.keys() | after.endpoints.keys()
    started = {name for name, run in after.runs.items() if run.follows(before.runs.get(name, _NO_RUN))}
    if not started:
        return ()
    anew = [known for known in before.endpoints if started.intersection(after.served_by.get(known, ()))]
    for known in anew:
        details = {"endpoint": known, "containers": sorted(started)}
        _logger.info("model server was restarted, what was known of it is forgotten", details=details)
    return anew


def _remembering(after: _Server, before: _Server) -> _Server:
    """``after`` with what ``before`` told of the same containers: a status may say less than the one before it."""
    if before.uid != after.uid or before.runs == after.runs:
        return after
    return after._replace(runs={name: run.or_else(before.runs.get(name, _NO_RUN)) for name, run in after.runs.items()})


_NO_RUN = Run()
