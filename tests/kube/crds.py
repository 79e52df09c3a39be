"""The custom resources that the picker watches, as far as it reads them, with the validation of their definitions upstream.

Source: kubernetes-sigs/gateway-api-inference-extension and llm-d/llm-d-router: config/crd/bases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POOL_GROUP = "inference.networking.k8s.io"
LEGACY_GROUP = "inference.networking.x-k8s.io"
GROUP = "llm-d.ai"

Schema = dict[str, Any]

_PORT: Schema = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 253}
_LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}, "maxProperties": 64}
_FAILURE: Schema = {"type": "string", "enum": ["FailOpen", "FailClose"], "default": "FailClose"}
_STATUS: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_POOL_REF: Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "group": {"type": "string", "default": POOL_GROUP},
        "kind": {"type": "string", "default": "InferencePool"},
        "name": _NAME,
    },
}


def pool() -> Schema:
    """InferencePool v1."""
    picker = _object(
        ["name"],
        group={"type": "string", "default": ""},
        kind={"type": "string", "default": "Service"},
        name=_NAME,
        port=_object(["number"], number=_PORT),
        failureMode=_FAILURE,
    )
    picker["x-kubernetes-validations"] = [
        {
            "rule": "self.kind != 'Service' || has(self.port)",
            "message": "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
        }
    ]
    ports = {
        "type": "array",
        "minItems": 1,
        "maxItems": 8,
        "x-kubernetes-list-type": "atomic",
        "items": _object(["number"], number=_PORT),
        "x-kubernetes-validations": [
            {
                "rule": "self.all(p1, self.exists_one(p2, p1.number==p2.number))",
                "message": "port number must be unique",
            }
        ],
    }
    spec = _object(
        ["selector", "targetPorts"],
        selector=_object(["matchLabels"], matchLabels={**_LABELS, "minProperties": 1}),
        targetPorts=ports,
        appProtocol={"type": "string", "enum": ["http", "kubernetes.io/h2c"], "default": "http"},
        endpointPickerRef=picker,
    )
    return _definition(POOL_GROUP, "v1", "InferencePool", "inferencepools", spec)


def legacy_pool() -> Schema:
    """InferencePool v1alpha2, of the group before."""
    picker = _object(
        ["name"],
        group={"type": "string", "default": ""},
        kind={"type": "string", "default": "Service"},
        name=_NAME,
        portNumber=_PORT,
        failureMode=_FAILURE,
    )
    spec = _object(["selector", "targetPortNumber"], selector=_LABELS, targetPortNumber=_PORT, extensionRef=picker)
    return _definition(LEGACY_GROUP, "v1alpha2", "InferencePool", "inferencepools", spec)


def objective(group: str) -> Schema:
    """InferenceObjective v1alpha2 of a group."""
    spec = _object(["poolRef"], priority={"type": "integer", "format": "int32"}, poolRef=_POOL_REF)
    return _definition(group, "v1alpha2", "InferenceObjective", "inferenceobjectives", spec)


def rewrite(group: str) -> Schema:
    """InferenceModelRewrite v1alpha2 of a group."""
    model = _object(["value"], type={"type": "string", "enum": ["Exact"], "default": "Exact"}, value={**_NAME})
    target = _object(
        ["modelRewrite"],
        modelRewrite={"type": "string"},
        weight={"type": "integer", "format": "int32", "minimum": 1, "maximum": 1000000},
    )
    rule = _object(
        [],
        matches={"type": "array", "items": _object([], model=model)},
        targets={"type": "array", "minItems": 1, "items": target},
    )
    spec = _object(["poolRef", "rules"], poolRef=_POOL_REF, rules={"type": "array", "items": rule})
    return _definition(group, "v1alpha2", "InferenceModelRewrite", "inferencemodelrewrites", spec)


def everything() -> list[Schema]:
    """All of them."""
    both = (GROUP, LEGACY_GROUP)
    return [pool(), legacy_pool(), *(objective(group) for group in both), *(rewrite(group) for group in both)]


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _definition(group: str, version: str, kind: str, plural: str, spec: Mapping[str, Any]) -> Schema:
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": _STATUS}, "required": ["spec"]}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Groups below k8s.io need it; these are copies for tests.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests only"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}],
        },
    }
