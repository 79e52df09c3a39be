"""Which containers of a pod may be its model server, and when one of them was started anew.

A container that dies is started again in the same pod, which keeps its name, uid and address.
Source: kubernetes: staging/src/k8s.io/api/core/v1/types.go (``ContainerStatus``); llm-d-router: docs/disaggregation.md (the
routing sidecar in front of an engine).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MESH_PROXIES = ("istio-proxy", "linkerd-proxy")
"""Names of the containers that service meshes add, and whose ports and restarts say nothing of the server's."""
ROUTING_PROXIES = ("routing-proxy", "routing-sidecar", "heimdall-proxy")
"""A name or image with one of these is a proxy in front of the engine: it has no cache, and its restart loses none."""

_UNKNOWN = -1


class Run(NamedTuple):
    """One life of a container."""

    id: str = ""
    """Of the container runtime; empty = not told."""
    restarts: int = _UNKNOWN
    """Lives before it; negative = not told."""

    def follows(self, earlier: Run) -> bool:
        """It is certainly another one than ``earlier``. Counts alone may begin anew, so that ids go before."""
        if self.id and earlier.id:
            return self.id != earlier.id
        return self.restarts > earlier.restarts > _UNKNOWN

    def or_else(self, earlier: Run) -> Run:
        """With what ``earlier`` told of the same life, where this says nothing."""
        if self.follows(earlier):
            return self
        return Run(self.id or earlier.id, self.restarts if self.restarts > _UNKNOWN else earlier.restarts)


class Container(NamedTuple):
    """A container that may be the model server."""

    name: str
    ports: frozenset[int]
    """That it declares, which it need not."""
    run: Run = Run()


def read_containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Container, ...]:
    """The containers of a pod, without proxies, and without init containers, of which native sidecars are some."""
    statuses = {entry.get("name"): entry for entry in status.get("containerStatuses") or ()}
    return tuple(
        Container(entry.get("name") or "", _ports(entry), _run(statuses.get(entry.get("name")) or {}))
        for entry in spec.get("containers") or ()
        if not _is_proxy(entry)
    )


def serving(containers: tuple[Container, ...], port: int) -> tuple[Container, ...]:
    """Those that declare the port; all, if none does, as a proxy in front of them may have it."""
    return tuple(container for container in containers if port in container.ports) or containers


def _is_proxy(container: Mapping[str, Any]) -> bool:
    name, image = container.get("name") or "", container.get("image") or ""
    return name in MESH_PROXIES or any(proxy in name or proxy in image for proxy in ROUTING_PROXIES)


def _ports(container: Mapping[str, Any]) -> frozenset[int]:
    return frozenset(entry["containerPort"] for entry in container.get("ports") or () if "containerPort" in entry)


def _run(status: Mapping[str, Any]) -> Run:
    restarts = status.get("restartCount")
    return Run(status.get("containerID") or "", restarts if isinstance(restarts, int) else _UNKNOWN)
