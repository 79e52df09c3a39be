"""What the API server answered about one pool and its picker, as documents: all that the checks of a cluster look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epp.datalayer.objects import POOL_GROUP
from epp.doctor.cluster.rights import Answer
from epp.doctor.documents import Json, mapping, mappings

OK, FORBIDDEN, NOT_FOUND = 200, 403, 404


@dataclass(frozen=True, slots=True)
class Read:
    """The answer to one question."""

    items: Sequence[Json] = ()
    """Of a collection, or the one object."""
    status: int = OK
    """Of HTTP; 0 = there was no answer."""
    problem: str = ""
    """What was asked, and why there is no answer."""

    @property
    def is_known(self) -> bool:
        """The items are all that there are."""
        return self.status == OK

    @property
    def is_absent(self) -> bool:
        """There is no such object, or no such kind."""
        return self.status == NOT_FOUND


UNASKED = Read(status=0)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The documents, as the API server has them."""

    namespace: str
    name: str
    """Of the pool."""
    group: str = POOL_GROUP
    """API group of the pool."""
    pools: Mapping[str, Read] = field(default_factory=dict)
    """By API group: those of the namespace."""
    elsewhere: Sequence[str] = ()
    """``namespace/name`` of pools with this name, where the namespace has none."""
    pods: Read = UNASKED
    """All of the namespace."""
    services: Read = UNASKED
    """All of the namespace."""
    slices: Read = UNASKED
    """EndpointSlices of the picker's Service."""
    deployments: Read = UNASKED
    """All of the namespace."""
    routes: Read = UNASKED
    """HTTPRoutes of all namespaces, or of this one where only that is allowed."""
    objects: Mapping[tuple[str, str], Read] = field(default_factory=dict)
    """By API group and plural: objectives and rewrites of the namespace."""
    leases: Read = UNASKED
    """The lease of the pickers."""
    secrets: Mapping[str, Read] = field(default_factory=dict)
    """By name: those that the picker's certificates come from."""
    config_map: Read = UNASKED
    """What the picker's pools file comes from."""
    rights: Sequence[Answer] = ()
    account: str = ""
    """``namespace/name`` of the service account that the rights are of; empty = of whoever runs this command."""

    @property
    def source(self) -> str:
        """For messages: what was looked at."""
        return f"kubernetes:{self.namespace}"

    @property
    def pool(self) -> Json | None:
        """The pool that is meant."""
        return named(self.pools.get(self.group, UNASKED).items, self.name)

    @property
    def picker_ref(self) -> Json:
        """What the pool names as its picker, in the form of v1; empty = nothing."""
        spec = mapping(mapping(self.pool).get("spec"))
        if "extensionRef" not in spec:
            return mapping(spec.get("endpointPickerRef"))
        older = dict(mapping(spec.get("extensionRef")))
        return {**older, "port": {"number": older.pop("portNumber", DEFAULT_PICKER_PORT)}}

    @property
    def service(self) -> Json | None:
        """The Service that the pool names as its picker."""
        return named(self.services.items, str(self.picker_ref.get("name", "")))

    @property
    def picker_pods(self) -> list[Json]:
        """The pods behind that Service."""
        selector = mapping(mapping(mapping(self.service).get("spec")).get("selector"))
        return [pod for pod in self.pods.items if selector and matches(selector, labels_of(pod))]


DEFAULT_PICKER_PORT = 9002
"""Of an ``extensionRef`` that names none. Source: gateway-api-inference-extension: apix/v1alpha2/inferencepool_types.go."""


def named(items: Sequence[Json], name: str) -> Json | None:
    """The object of this name."""
    return next((item for item in items if name_of(item) == name), None)


def name_of(item: Json) -> str:
    """``metadata.name``."""
    return str(mapping(item.get("metadata")).get("name", ""))


def labels_of(item: Json) -> Mapping[str, Any]:
    """``metadata.labels``."""
    return mapping(mapping(item.get("metadata")).get("labels"))


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """All of the selector's labels are there."""
    return all(labels.get(key) == value for key, value in selector.items())


def selector_of(pool: Json) -> Json:
    """The labels by which a pool of either group selects its pods."""
    selector = mapping(mapping(pool.get("spec")).get("selector"))
    if "matchLabels" in selector or "targetPorts" in mapping(pool.get("spec")):
        return mapping(selector.get("matchLabels"))
    return selector


def condition(item: Json, kind: str) -> Json:
    """The first condition of a type; empty if there is none."""
    return next((entry for entry in mappings(item.get("conditions")) if entry.get("type") == kind), {})


MOST_NAMES = 5


def some(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
