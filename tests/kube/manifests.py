"""Objects that tests put into a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.kube.crds import GROUP, LEGACY_GROUP, POOL_GROUP

Object = dict[str, Any]


def pool(
    name: str = "chat", *, labels: Mapping[str, str] | None = None, ports: Sequence[int] = (8000,), app_protocol: str = ""
) -> Object:
    """An InferencePool v1 of pods with label ``app=m``."""
    spec: Object = {
        "selector": {"matchLabels": dict(labels or {"app": "m"})},
        "targetPorts": [{"number": port} for port in ports],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    }
    if app_protocol:
        spec["appProtocol"] = app_protocol
    return {"apiVersion": f"{POOL_GROUP}/v1", "kind": "InferencePool", "metadata": {"name": name}, "spec": spec}


def legacy_pool(name: str = "chat", *, labels: Mapping[str, str] | None = None, port: int = 8000) -> Object:
    """An InferencePool v1alpha2."""
    spec = {"selector": dict(labels or {"app": "m"}), "targetPortNumber": port, "extensionRef": {"name": "epp"}}
    return {"apiVersion": f"{LEGACY_GROUP}/v1alpha2", "kind": "InferencePool", "metadata": {"name": name}, "spec": spec}


def pod(
    name: str,
    address: str = "",
    *,
    ready: str | None = "True",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    host: str = "",
) -> Object:
    """A pod with the status that a kubelet would have written.

    Args:
        ready: status of its Ready condition; None = it has none.
    """
    conditions = [{"type": "Ready", "status": ready}] if ready is not None else []
    status: Object = {"phase": "Running", "conditions": conditions}
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if host:
        status["hostIP"] = host
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {"app": "m"}), "annotations": dict(annotations or {})},
        "spec": {"containers": [{"name": "vllm", "image": "none"}], "terminationGracePeriodSeconds": 30},
        "status": status,
    }


def objective(
    name: str, priority: int | None, *, pool: str = "chat", group: str = GROUP, pool_group: str = POOL_GROUP
) -> Object:
    """An InferenceObjective."""
    spec: Object = {"poolRef": {"name": pool, "group": pool_group}}
    if priority is not None:
        spec["priority"] = priority
    return {"apiVersion": f"{group}/v1alpha2", "kind": "InferenceObjective", "metadata": {"name": name}, "spec": spec}


def rewrite(name: str, model: str, target: str, *, pool: str = "chat", group: str = GROUP) -> Object:
    """An InferenceModelRewrite with one exact rule."""
    rule = {"matches": [{"model": {"value": model}}], "targets": [{"modelRewrite": target}]}
    spec = {"poolRef": {"name": pool}, "rules": [rule]}
    return {"apiVersion": f"{group}/v1alpha2", "kind": "InferenceModelRewrite", "metadata": {"name": name}, "spec": spec}


READS = ("get", "list", "watch")


def role(name: str = "epp", *, objects: bool = True, leases: bool = False) -> Object:
    """What a picker must be allowed to do in the namespace of its pool."""
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": list(READS)},
        {"apiGroups": [POOL_GROUP, LEGACY_GROUP], "resources": ["inferencepools"], "verbs": list(READS)},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    if objects:
        resources = ["inferenceobjectives", "inferencemodelrewrites"]
        rules.append({"apiGroups": [GROUP, LEGACY_GROUP], "resources": resources, "verbs": list(READS)})
    if leases:
        verbs = [*READS, "create", "update", "patch", "delete"]
        rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs})
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}


def binding(namespace: str, name: str = "epp") -> Object:
    """Gives the role to the service account of the same name."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
