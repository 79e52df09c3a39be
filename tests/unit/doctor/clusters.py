"""A cluster as the manifests of ``epp manifests`` make it, to be broken by tests."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from epp.datalayer.objects import GROUP, LEGACY_GROUP, POOL_GROUP
from epp.deploy.objects import Deployment, objects
from epp.doctor.cluster.rights import Answer, Right
from epp.doctor.cluster.view import NOT_FOUND, ClusterView, Read

Object = dict[str, Any]
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
ABSENT, FORBIDDEN, SILENT = Read(status=NOT_FOUND), Read(status=403), Read(status=0)
READY = [{"type": "Ready", "status": "True"}]
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}
ACCEPTED = [{"type": kind, "status": "True", "reason": kind} for kind in ("Accepted", "ResolvedRefs")]
KINDS = {"InferenceObjective": "inferenceobjectives", "InferenceModelRewrite": "inferencemodelrewrites"}


class Cluster:
    """The objects, by kind; ``view`` has what the API server would answer."""

    def __init__(self, replicas: int = 1) -> None:
        made = {each["kind"]: copy.deepcopy(each) for each in objects(Deployment("chat", gateway="g", replicas=replicas))}
        self.pool = made["InferencePool"]
        self.pool["status"] = {"parents": [{"parentRef": GATEWAY, "conditions": copy.deepcopy(ACCEPTED)}]}
        self.pools: dict[str, list[Object]] = {POOL_GROUP: [self.pool], LEGACY_GROUP: []}
        self.service = made["Service"]
        self.deployment = made["Deployment"]
        self.route = made["HTTPRoute"]
        self.route["status"] = {"parents": [{"parentRef": GATEWAY, "conditions": copy.deepcopy(ACCEPTED)}]}
        self.routes = [self.route]
        self.servers = [pod(f"chat-{name}", {"app": "chat"}, f"10.0.0.{n}") for n, name in enumerate("ab", 1)]
        self.pickers = [self._picker(n) for n in range(replicas)]
        self.slice: Object = {"endpoints": [{"addresses": ["10.0.1.1"], "conditions": {"ready": True}}]}
        self.objects: list[Object] = []
        self.lease: Object = lease("chat-epp-0_uid") if replicas > 1 else {}
        self.secrets: dict[str, Read] = {}
        self.config_map: Object = {}
        self.rights: list[Answer] = []
        self.account = "default/chat-epp"
        self.changes: dict[str, Any] = {}

    def _picker(self, number: int) -> Object:
        template = self.deployment["spec"]["template"]
        found = pod(f"chat-epp-{number}", template["metadata"]["labels"], f"10.0.1.{number + 1}")
        return {**found, "spec": copy.deepcopy(template["spec"])}

    @property
    def container(self) -> Object:
        """The picker's container in its Deployment."""
        found: Object = self.deployment["spec"]["template"]["spec"]["containers"][0]
        return found

    @property
    def spec(self) -> Object:
        """Of the picker's pods."""
        found: Object = self.deployment["spec"]["template"]["spec"]
        return found

    def view(self) -> ClusterView:
        """What the API server would answer; ``changes`` replace answers."""
        answers: dict[str, Any] = {
            "namespace": "default",
            "name": "chat",
            "pools": {group: Read(pools) for group, pools in self.pools.items()},
            "pods": Read([*self.servers, *self.pickers]),
            "services": Read([self.service]),
            "slices": Read([self.slice]),
            "deployments": Read([self.deployment]),
            "routes": Read(self.routes),
            "objects": {
                (group, plural): Read(
                    [
                        each
                        for each in self.objects
                        if each["apiVersion"].startswith(f"{group}/") and KINDS[each["kind"]] == plural
                    ]
                )
                for group in (GROUP, LEGACY_GROUP)
                for plural in KINDS.values()
            },
            "leases": Read([self.lease]) if self.lease else ABSENT,
            "secrets": self.secrets,
            "config_map": Read([self.config_map]) if self.config_map else ABSENT,
            "rights": self.rights,
            "account": self.account,
        }
        return ClusterView(**{**answers, **self.changes})


Break = Callable[[Cluster], object]


def pod(name: str, labels: Mapping[str, str], address: str, *ports: int, **metadata: Any) -> Object:
    """A pod that is ready."""
    listed = [{"containerPort": port} for port in ports or (8000,)]
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": dict(labels), **metadata},
        "spec": {"containers": [{"name": "server", "ports": listed}]},
        "status": {"phase": "Running", "podIP": address, "conditions": copy.deepcopy(READY)},
    }


def lease(holder: str, renewed: dt.datetime = NOW) -> Object:
    """A lease that somebody holds."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    return {"metadata": {"name": "epp-default-chat.llm-d.ai"}, "spec": spec}


def pool_object(name: str, group: str = POOL_GROUP, **labels: str) -> Object:
    """Another pool."""
    selector = dict(labels)
    spec: Object = {"selector": {"matchLabels": selector}, "targetPorts": [{"number": 8000}]}
    if group == LEGACY_GROUP:
        spec = {"selector": selector, "targetPortNumber": 8000}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def objective(name: str, *, pool: str = "chat", group: str = GROUP, pool_group: str = POOL_GROUP, **spec: Any) -> Object:
    """An InferenceObjective."""
    reference = {"name": pool, "group": pool_group}
    return {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"poolRef": reference, "priority": 1, **spec},
    }


def refused(verb: str, resource: str, *, optional: bool = False, namespace: str = "default") -> Answer:
    """A right that is not there."""
    return Answer(Right("", resource, verb, namespace, is_optional=optional), is_allowed=False)


def pair(days: int = 100, begins: int = -1) -> tuple[bytes, bytes]:
    """A certificate that ends after so many days, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "epp")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + dt.timedelta(days=begins))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def secret(certificate: bytes | None = None, key: bytes | None = None) -> Read:
    """A Secret with these."""
    data = {name: base64.b64encode(value).decode() for name, value in (("tls.crt", certificate), ("tls.key", key)) if value}
    return Read([{"metadata": {"name": "tls"}, "data": data}])


def with_pools(cluster: Cluster, *pools: Object, **data: str) -> None:
    """Let the picker serve several pools, of a file in a ConfigMap.

    Args:
        data: the ConfigMap's, where it has no such file.
    """
    container = cluster.container
    container["args"] = [word for word in container["args"] if not word.startswith("--pool-name")]
    container["args"].append("--pools-file=/config/pools.yaml")
    container["volumeMounts"].append({"name": "config", "mountPath": "/config"})
    cluster.spec["volumes"].append({"name": "config", "configMap": {"name": "pools"}})
    header = {"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerPools"}
    cluster.config_map = {"metadata": {"name": "pools"}, "data": data or {"pools.yaml": json.dumps({**header, "pools": pools})}}


def with_secret(cluster: Cluster, read: Read, *flags: str) -> None:
    """Let the picker's certificate come from a Secret."""
    cluster.spec["volumes"].append({"name": "tls", "secret": {"secretName": "tls"}})
    cluster.container["volumeMounts"].append({"name": "tls", "mountPath": "/tls"})
    cluster.container["args"] += ["--cert-path=/tls", *flags]
    cluster.secrets["tls"] = read
