"""The pools of one picker as its manifests need them: files of the ConfigMap, namespaces, ports."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from epp.config.header import POOLS_KIND
from epp.datalayer.objects import POOL_GROUP
from epp.pools.load import PoolEntry
from epp.pools.match import split

FILE = "pools.yaml"
_VERSION = "inference.networking.x-k8s.io/v1alpha1"


@dataclass(frozen=True, slots=True)
class DeployedPool:
    """A pool of the file, with the texts of the files that it names."""

    entry: PoolEntry
    config: str = ""
    """Empty = the built-in document."""
    shadow: str = ""
    objects: tuple[str, ...] = ()
    discovers: bool = False
    """Its document has a discovery plugin: nothing of the cluster is read."""

    @property
    def name(self) -> str:
        """Of the pool."""
        return self.entry.name

    @property
    def follows_pods(self) -> bool:
        """Its endpoints are told by the API server."""
        return not (self.entry.endpoints or self.discovers)

    @property
    def by_name(self) -> bool:
        """It is an InferencePool."""
        return self.follows_pods and not self.entry.endpoint_selector

    @property
    def hostnames(self) -> list[str]:
        """What an HTTPRoute to it is for; none = any."""
        return list(dict.fromkeys(split(authority)[0] for authority in self.entry.match.authorities))

    @property
    def files(self) -> dict[str, str]:
        """Key in the ConfigMap → text."""
        name = self.name
        named = {f"pool-{name}.yaml": self.config, f"shadow-{name}.yaml": self.shadow}
        named |= {f"objects-{name}-{number}.yaml": text for number, text in enumerate(self.objects)}
        return {key: text for key, text in named.items() if text}

    def as_written(self) -> dict[str, Any]:
        """Its entry in the file, beside its other files."""
        entry = self.entry
        match = {"authorities": list(entry.match.authorities), "headers": dict(entry.match.headers)}
        written = {
            "name": entry.name,
            "namespace": entry.namespace,
            "group": entry.group if entry.group != PoolEntry("").group else "",
            "configFile": f"pool-{entry.name}.yaml" if self.config else "",
            "shadowConfigFile": f"shadow-{entry.name}.yaml" if self.shadow else "",
            "objects": [f"objects-{entry.name}-{number}.yaml" for number, text in enumerate(self.objects) if text],
            "endpoints": list(entry.endpoints),
            "endpointSelector": entry.endpoint_selector,
            "targetPorts": list(entry.target_ports),
            "match": {key: value for key, value in match.items() if value},
            "default": entry.is_default,
        }
        written = {key: value for key, value in written.items() if value}
        if self.shadow and entry.shadow_share != PoolEntry("").shadow_share:
            written["shadowShare"] = entry.shadow_share
        numbers = {"grpcPort": entry.grpc_port, "maxBufferedBytes": entry.max_buffered_bytes}
        return written | {key: value for key, value in numbers.items() if value is not None}


@dataclass(frozen=True, slots=True)
class DeployedPools:
    """All pools of a file, in its order."""

    pools: tuple[DeployedPool, ...] = field(default=())

    @property
    def files(self) -> Mapping[str, str]:
        """What the ConfigMap has: the file, and all that it names."""
        document = {"apiVersion": _VERSION, "kind": POOLS_KIND, "pools": [pool.as_written() for pool in self.pools]}
        found = {FILE: yaml.safe_dump(document, sort_keys=False, width=130)}
        for pool in self.pools:
            found |= pool.files
        return found

    @property
    def ports(self) -> list[int]:
        """Of pools with a port of their own."""
        return [pool.entry.grpc_port for pool in self.pools if pool.entry.grpc_port]

    @property
    def digest_of_ports(self) -> str:
        """Of what takes a restart, whatever is reloaded: ports of pools are bound once, each with its limit. "" = nothing."""
        bound = [
            (pool.name, pool.entry.grpc_port, pool.entry.max_buffered_bytes) for pool in self.pools if pool.entry.grpc_port
        ]
        return hashlib.sha256(repr(bound).encode()).hexdigest() if bound else ""

    def namespaces(self, own: str) -> dict[str, list[str]]:
        """Namespaces in which pods are followed → API groups of the InferencePools among them.

        Args:
            own: of pools that name none.
        """
        found: dict[str, list[str]] = {}
        for pool in self.pools:
            if pool.follows_pods:
                groups = found.setdefault(pool.entry.namespace or own, [])
                if pool.by_name and pool.entry.group not in groups:
                    groups.append(pool.entry.group)
        return found

    def made(self, own: str) -> list[DeployedPool]:
        """Those whose InferencePool can be made beside the picker: it names a Service of its own namespace.

        Args:
            own: namespace of the picker.
        """
        return [pool for pool in self._named if self._is_made(pool, own)]

    def not_made(self, own: str) -> list[DeployedPool]:
        """Those whose InferencePool must come from elsewhere."""
        return [pool for pool in self._named if not self._is_made(pool, own)]

    @property
    def _named(self) -> list[DeployedPool]:
        return [pool for pool in self.pools if pool.by_name]

    def _is_made(self, pool: DeployedPool, own: str) -> bool:
        return (pool.entry.namespace or own) == own and pool.entry.group == POOL_GROUP
