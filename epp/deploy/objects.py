"""The Kubernetes objects of a picker of one pool or several, as plain values, with the least rights that it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epp.cluster.election import lease_name
from epp.datalayer.objects import POOL_GROUP
from epp.deploy.pools import FILE, DeployedPool, DeployedPools

Object = dict[str, Any]

IMAGE = "endpoint-picker:latest"
GRPC, HEALTH, METRICS = 9002, 9003, 9090
USER = 65532
"""Of the image."""
GRACE_S = 130
"""Longer than the drain and the time that open streams get, which are half a minute each by default."""
READS = ["get", "list", "watch"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is known of a picker to be."""

    pool: str
    """What its objects are called by; the name of the pool, where it is one."""
    config: str = ""
    """The document; empty = the built-in default."""
    pools: DeployedPools | None = None
    """Several, each with a document of its own; None = one."""
    namespace: str = "default"
    image: str = IMAGE
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the model servers' pods; none = ``app: <pool>``, as always with several."""
    ports: tuple[int, ...] = (8000,)
    replicas: int = 1
    """More than one elect a leader."""
    reloads: bool = False
    """A changed document is taken over by the pods that run; else it is a new pod."""
    gateway: str = ""
    """Name of the Gateway that routes to the pool; empty = no HTTPRoute."""

    @property
    def name(self) -> str:
        """Of the picker's objects."""
        return f"{self.pool}-epp"

    @property
    def files(self) -> Mapping[str, str]:
        """What the ConfigMap has; none = there is no ConfigMap."""
        if self.pools is not None:
            return self.pools.files
        return {"config.yaml": self.config} if self.config else {}


def objects(wanted: Deployment) -> list[Object]:
    """All objects, in the order in which they are to be applied."""
    made = [_account(wanted), *_rights(wanted)]
    if wanted.files:
        made.append(_object(wanted, "v1", "ConfigMap", data=dict(wanted.files)))
    made += [_service(wanted), _deployment(wanted)]
    if wanted.pools is None:
        labels = dict(wanted.labels) or {"app": wanted.pool}
        made.append(_pool(wanted, wanted.pool, labels, GRPC))
        return [*made, _route(wanted, wanted.pool)] if wanted.gateway else made
    named = wanted.pools.made(wanted.namespace)
    made += [_pool(wanted, pool.name, {"app": pool.name}, pool.entry.grpc_port or GRPC) for pool in named]
    return [*made, *(_route(wanted, pool.name, pool) for pool in named)] if wanted.gateway else made


def _object(wanted: Deployment, version: str, kind: str, name: str = "", namespace: str = "", **body: Any) -> Object:
    metadata = {"name": name or wanted.name, "namespace": namespace or wanted.namespace, "labels": _labels(wanted)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _labels(wanted: Deployment) -> Mapping[str, str]:
    return {"app.kubernetes.io/name": "endpoint-picker", "app.kubernetes.io/instance": wanted.name}


def _account(wanted: Deployment) -> Object:
    return _object(wanted, "v1", "ServiceAccount")


def _rights(wanted: Deployment) -> list[Object]:
    """A Role and its binding in each namespace that is read, and in the picker's own if it holds a lease there."""
    own = wanted.namespace
    namespaces = {own: [POOL_GROUP]} if wanted.pools is None else wanted.pools.namespaces(own)
    found: list[Object] = []
    for namespace in dict.fromkeys((own, *namespaces)):
        rules = _reads(namespaces[namespace]) if namespace in namespaces else []
        if namespace == own and wanted.replicas > 1:
            verbs = [*READS, "create", "update"]
            rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs})
        if rules:
            name = wanted.name if namespace == own else f"{own}-{wanted.name}"
            found += [_role(wanted, name, namespace, rules), _binding(wanted, name, namespace)]
    return found


def _reads(groups: list[str]) -> list[Object]:
    """Rules for a namespace of pools.

    Args:
        groups: of the InferencePools that are followed there; none = only pods are.
    """
    rules: list[Object] = [{"apiGroups": [""], "resources": ["pods"], "verbs": READS}]
    if groups:
        rules += [
            {"apiGroups": groups, "resources": ["inferencepools"], "verbs": READS},
            {
                "apiGroups": ["llm-d.ai", "inference.networking.x-k8s.io"],
                "resources": ["inferenceobjectives", "inferencemodelrewrites"],
                "verbs": READS,
            },
        ]
    return [*rules, {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]


def _role(wanted: Deployment, name: str, namespace: str, rules: list[Object]) -> Object:
    return _object(wanted, "rbac.authorization.k8s.io/v1", "Role", name, namespace, rules=rules)


def _binding(wanted: Deployment, name: str, namespace: str) -> Object:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": wanted.name, "namespace": wanted.namespace}
    return _object(wanted, "rbac.authorization.k8s.io/v1", "RoleBinding", name, namespace, roleRef=role, subjects=[subject])


def _own_ports(wanted: Deployment) -> list[int]:
    return wanted.pools.ports if wanted.pools is not None else []


def _service(wanted: Deployment) -> Object:
    ports: list[Object] = [
        {"name": "grpc-ext-proc", "port": GRPC, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
        *(
            {"name": f"grpc-{port}", "port": port, "targetPort": f"grpc-{port}", "appProtocol": "kubernetes.io/h2c"}
            for port in _own_ports(wanted)
        ),
        {"name": "http-metrics", "port": METRICS, "targetPort": "metrics"},
    ]
    return _object(wanted, "v1", "Service", spec={"selector": dict(_labels(wanted)), "ports": ports})


def _deployment(wanted: Deployment) -> Object:
    template_metadata: Object = {"labels": dict(_labels(wanted))}
    if not wanted.reloads:
        text = wanted.config if wanted.pools is None else repr(wanted.files)
        template_metadata["annotations"] = {"checksum/config": hashlib.sha256(text.encode()).hexdigest()}
    elif wanted.pools is not None and wanted.pools.ports:
        template_metadata["annotations"] = {"checksum/pool-ports": wanted.pools.digest_of_ports}
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if wanted.files:
        volumes.append({"name": "config", "configMap": {"name": wanted.name}})
    pod = {
        "serviceAccountName": wanted.name,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(wanted)],
        "volumes": volumes,
    }
    # A follower is ready only when it leads: a rolling update would wait for it for ever.
    strategy = {"type": "Recreate" if wanted.replicas > 1 else "RollingUpdate"}
    template = {"metadata": template_metadata, "spec": pod}
    spec = {
        "replicas": wanted.replicas,
        "selector": {"matchLabels": dict(_labels(wanted))},
        "strategy": strategy,
        "template": template,
    }
    return _object(wanted, "apps/v1", "Deployment", spec=spec)


def _container(wanted: Deployment) -> Object:
    of_pools = wanted.pools is not None
    arguments = [*([] if of_pools else [f"--pool-name={wanted.pool}"]), "--metrics-endpoint-auth=false"]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]
    if wanted.files:
        arguments.append(f"--pools-file=/config/{FILE}" if of_pools else "--config-file=/config/config.yaml")
        if wanted.reloads:
            arguments.append("--watch-config-file")
        # A directory: single files of a ConfigMap are never updated.
        mounts.append({"name": "config", "mountPath": "/config", "readOnly": True})
    if wanted.replicas > 1:
        arguments.append("--ha-enable-leader-election")
        if of_pools:  # else it is called by the first pool, and another order would be another lease
            arguments.append(f"--lease-name={lease_name(wanted.namespace, wanted.pool)}")
    fields = {"NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}
    liveness = {"grpc": {"port": HEALTH, "service": "liveness"}}
    return {
        "name": "epp",
        "image": wanted.image,
        "args": arguments,
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [
            {"name": "grpc", "containerPort": GRPC},
            *({"name": f"grpc-{port}", "containerPort": port} for port in _own_ports(wanted)),
            {"name": "grpc-health", "containerPort": HEALTH},
            {"name": "metrics", "containerPort": METRICS},
        ],
        "startupProbe": {**liveness, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {**liveness, "periodSeconds": 10},
        "readinessProbe": {"grpc": {"port": HEALTH, "service": "readiness"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _pool(wanted: Deployment, name: str, labels: Mapping[str, str], port: int) -> Object:
    spec = {
        "selector": {"matchLabels": dict(labels)},
        "targetPorts": [{"number": number} for number in wanted.ports],
        "endpointPickerRef": {"name": wanted.name, "port": {"number": port}, "failureMode": "FailClose"},
    }
    return _object(wanted, "inference.networking.k8s.io/v1", "InferencePool", name, spec=spec)


def _route(wanted: Deployment, name: str, pool: DeployedPool | None = None) -> Object:
    """Of one pool; of several, for what the pool is chosen by."""
    backend = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": name}
    match: Object = {"path": {"type": "PathPrefix", "value": "/"}}
    if pool is not None and pool.entry.match.headers:
        match["headers"] = [{"type": "Exact", "name": key, "value": value} for key, value in pool.entry.match.headers]
    rule = {"matches": [match], "backendRefs": [backend], "timeouts": {"request": "0s"}}
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": wanted.gateway}
    spec: Object = {"parentRefs": [parent], "rules": [rule]}
    if pool is not None and pool.hostnames:
        spec["hostnames"] = pool.hostnames
    return _object(wanted, "gateway.networking.k8s.io/v1", "HTTPRoute", name, spec=spec)
