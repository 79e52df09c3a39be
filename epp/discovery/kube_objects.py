"""What is kept of an InferencePool and of a pod, as the API server sends them.

Reading never fails for what is missing: definitions of older releases check less than today's.
Source: kubernetes-sigs/gateway-api-inference-extension: api/v1/inferencepool_types.go; llm-d-router: pkg/epp/util/pod/pod.go,
pkg/epp/datastore/datastore.go.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from epp.datalayer.objects import LEGACY_GROUP, POOL_GROUP
from epp.discovery.kube_containers import Container, read_containers

VERSIONS: Mapping[str, str] = {POOL_GROUP: "v1", LEGACY_GROUP: "v1alpha2"}
"""API group of InferencePool → the version that is read."""
ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""Annotations that restrict a pod to some of the pool's ports; the first that is there counts."""

_INTEGER = re.compile(r"\s*([+-]?\d+)")
"""What Go's Sscanf reads of a text by ``%d``."""
_MAX_PORT = 65535


class Rank(NamedTuple):
    """A target port of the pool."""

    position: int
    """Its place in ``spec.targetPorts``."""
    port: int


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What an InferencePool says about endpoints."""

    name: str
    namespace: str
    uid: str
    selector: str
    """Label selector, sorted; empty = no pod."""
    ranks: tuple[Rank, ...]
    app_protocol: str = ""
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod says about endpoints."""

    name: str
    namespace: str
    uid: str
    address: str
    """Empty = there is none yet."""
    node_address: str
    labels: Mapping[str, str]
    active_ports: frozenset[int] | None
    """None = all."""
    is_ready: bool
    """Its condition Ready is true, and it is not being deleted."""
    containers: tuple[Container, ...] = ()
    """That may be the model server."""

    @property
    def is_eligible(self) -> bool:
        """Requests may be sent to it."""
        return self.is_ready and bool(self.address)


def read_pool(item: Mapping[str, Any]) -> PoolSpec:
    """An InferencePool of either group."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    selector = spec.get("selector") or {}
    if "targetPorts" in spec or "matchLabels" in selector:
        labels = selector.get("matchLabels") or {}
        ports = [entry.get("number") for entry in spec.get("targetPorts") or ()]
    else:
        labels, ports = selector, [spec.get("targetPortNumber")]
    return PoolSpec(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "",
        uid=metadata.get("uid") or "",
        selector=",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        ranks=ranks_of(ports),
        app_protocol=spec.get("appProtocol") or "",
        is_deleted="deletionTimestamp" in metadata,
    )


def ranks_of(ports: list[Any] | tuple[int, ...]) -> tuple[Rank, ...]:
    """The usable ports with their places; what is no port, or named before, is left out."""
    first: dict[int, Rank] = {}
    for index, port in enumerate(ports):
        if isinstance(port, int) and 0 < port <= _MAX_PORT:
            first.setdefault(port, Rank(index, port))
    return tuple(first.values())


def read_pod(item: Mapping[str, Any]) -> Pod:
    """A pod."""
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = next((entry.get("status") for entry in conditions if entry.get("type") == "Ready"), "")
    intern = sys.intern  # a thousand pods of one deployment have the same labels
    return Pod(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid") or "",
        address=status.get("podIP") or "",
        node_address=intern(status.get("hostIP") or ""),
        labels={intern(key): intern(value) for key, value in (metadata.get("labels") or {}).items()},
        active_ports=_active_ports(metadata.get("annotations") or {}),
        is_ready=ready == "True" and "deletionTimestamp" not in metadata,
        containers=read_containers(item.get("spec") or {}, status),
    )


def _active_ports(annotations: Mapping[str, str]) -> frozenset[int] | None:
    text = next((annotations[key] for key in ACTIVE_PORTS if key in annotations), None)
    if text is None:
        return None
    return frozenset(int(match[1]) for part in text.split(",") if (match := _INTEGER.match(part)))
