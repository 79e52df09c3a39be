"""The Kubernetes objects that serve one pool, as plain values, with the least rights that the picker needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    config: str = ""
    """The document; empty = the built-in default."""
    namespace: str = "default"
    image: str = IMAGE
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the model servers' pods; none = ``app: <pool>``."""
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


def objects(wanted: Deployment) -> list[Object]:
    """All objects, in the order in which they are to be applied."""
    made = [_account(wanted), _role(wanted), _binding(wanted)]
    if wanted.config:
        made.append(_object(wanted, "v1", "ConfigMap", data={"config.yaml": wanted.config}))
    made += [_service(wanted), _deployment(wanted), _pool(wanted)]
    if wanted.gateway:
        made.append(_route(wanted))
    return made


def _object(wanted: Deployment, version: str, kind: str, name: str = "", **body: Any) -> Object:
    metadata = {"name": name or wanted.name, "namespace": wanted.namespace, "labels": _labels(wanted)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _labels(wanted: Deployment) -> Mapping[str, str]:
    return {"app.kubernetes.io/name": "endpoint-picker", "app.kubernetes.io/instance": wanted.name}


def _account(wanted: Deployment) -> Object:
    return _object(wanted, "v1", "ServiceAccount")


def _role(wanted: Deployment) -> Object:
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": READS},
        {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": READS},
        {
            "apiGroups": ["llm-d.ai", "inference.networking.x-k8s.io"],
            "resources": ["inferenceobjectives", "inferencemodelrewrites"],
            "verbs": READS,
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    if wanted.replicas > 1:
        verbs = [*READS, "create", "update"]
        rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs})
    return _object(wanted, "rbac.authorization.k8s.io/v1", "Role", rules=rules)


def _binding(wanted: Deployment) -> Object:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": wanted.name}
    subject = {"kind": "ServiceAccount", "name": wanted.name, "namespace": wanted.namespace}
    return _object(wanted, "rbac.authorization.k8s.io/v1", "RoleBinding", roleRef=role, subjects=[subject])


def _service(wanted: Deployment) -> Object:
    ports: list[Object] = [
        {"name": "grpc-ext-proc", "port": GRPC, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
        {"name": "http-metrics", "port": METRICS, "targetPort": "metrics"},
    ]
    return _object(wanted, "v1", "Service", spec={"selector": dict(_labels(wanted)), "ports": ports})


def _deployment(wanted: Deployment) -> Object:
    template_metadata: Object = {"labels": dict(_labels(wanted))}
    if not wanted.reloads:
        template_metadata["annotations"] = {"checksum/config": hashlib.sha256(wanted.config.encode()).hexdigest()}
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if wanted.config:
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
    arguments = [f"--pool-name={wanted.pool}", "--metrics-endpoint-auth=false"]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]
    if wanted.config:
        arguments.append("--config-file=/config/config.yaml")
        if wanted.reloads:
            arguments.append("--watch-config-file")
        # A directory: single files of a ConfigMap are never updated.
        mounts.append({"name": "config", "mountPath": "/config", "readOnly": True})
    if wanted.replicas > 1:
        arguments.append("--ha-enable-leader-election")
    fields = {"NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}
    liveness = {"grpc": {"port": HEALTH, "service": "liveness"}}
    return {
        "name": "epp",
        "image": wanted.image,
        "args": arguments,
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [
            {"name": "grpc", "containerPort": GRPC},
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


def _pool(wanted: Deployment) -> Object:
    spec = {
        "selector": {"matchLabels": dict(wanted.labels) or {"app": wanted.pool}},
        "targetPorts": [{"number": port} for port in wanted.ports],
        "endpointPickerRef": {"name": wanted.name, "port": {"number": GRPC}, "failureMode": "FailClose"},
    }
    return _object(wanted, "inference.networking.k8s.io/v1", "InferencePool", wanted.pool, spec=spec)


def _route(wanted: Deployment) -> Object:
    backend = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": wanted.pool}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [backend],
        "timeouts": {"request": "0s"},
    }
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": wanted.gateway}
    spec = {"parentRefs": [parent], "rules": [rule]}
    return _object(wanted, "gateway.networking.k8s.io/v1", "HTTPRoute", wanted.pool, spec=spec)
