"""Findings about what refers to a pool: HTTPRoutes, InferenceObjectives and InferenceModelRewrites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from epp.datalayer.objects import GROUP, LEGACY_GROUP, POOL_GROUP
from epp.discovery.kube_inference import VERSION
from epp.discovery.manifests import ManifestError, parse_manifest
from epp.doctor.catalogue import finding
from epp.doctor.cluster.pool import nearest, place_of
from epp.doctor.cluster.view import ClusterView, condition, name_of, named, some
from epp.doctor.documents import Json, mapping, mappings
from epp.errors import Finding
from epp.framework.params import parse_duration

_KINDS = {"inferenceobjectives": "InferenceObjective", "inferencemodelrewrites": "InferenceModelRewrite"}
_LONG_S = 300.0
"""Responses of models take minutes."""


class _Target(NamedTuple):
    """A pool that a route names."""

    route: str
    """``namespace/name``."""
    rule: Json
    group: str
    namespace: str
    name: str


def check_routes(view: ClusterView) -> list[Finding]:
    """All findings about HTTPRoutes; none where they cannot be read."""
    if not view.routes.is_known:
        return []
    found: list[Finding] = []
    to_us: list[str] = []
    for route in view.routes.items:
        targets = [target for target in _targets(route) if target.namespace == view.namespace]
        ours = [target for target in targets if (target.group, target.name) == (view.group, view.name)]
        found += _missing_pools(view, targets)
        if ours:
            to_us.append(ours[0].route)
            found += [*_timeouts(view, ours), *_acceptance(view, route, ours[0].route)]
    if view.pool is not None and not to_us:
        message = "no HTTPRoute names it, so no gateway sends requests to it"
        fix = "name it in backendRefs of an HTTPRoute; an Envoy that is configured by hand needs none"
        found.append(finding("KUB050", view.source, place_of(view), message, fix))
    return found


def _targets(route: Json) -> list[_Target]:
    metadata = mapping(route.get("metadata"))
    own = str(metadata.get("namespace", ""))
    return [
        _Target(
            f"{own}/{name_of(route)}",
            rule,
            str(reference.get("group", "")),
            str(reference.get("namespace") or own),
            str(reference.get("name", "")),
        )
        for rule in mappings(mapping(route.get("spec")).get("rules"))
        for reference in mappings(rule.get("backendRefs"))
        if reference.get("kind") == "InferencePool"
    ]


def _missing_pools(view: ClusterView, targets: Sequence[_Target]) -> Iterator[Finding]:
    for target in targets:
        read = view.pools.get(target.group)
        if read is None:
            message = f"it names InferencePool {target.name} of the API group {target.group!r}, which has no pools"
            fix = f"set the group of the backendRef to {view.group}"
            yield finding("KUB051", view.source, f"HTTPRoute {target.route}", message, fix, value=target.group)
        elif (read.is_known or read.is_absent) and named(read.items, target.name) is None:
            hint = nearest(target.name, [name_of(item) for item in read.items])
            message = f"it names InferencePool {target.name} of {target.group}, which does not exist; {hint}"
            yield finding("KUB051", view.source, f"HTTPRoute {target.route}", message, "correct the name", value=target.name)


def _timeouts(view: ClusterView, ours: Sequence[_Target]) -> Iterator[Finding]:
    for target in ours:
        timeouts = mapping(target.rule.get("timeouts"))
        for name in ("request", "backendRequest"):
            limit_s = _duration_s(timeouts.get(name))
            if 0 < limit_s < _LONG_S:
                message = f"timeouts.{name} is {timeouts[name]}, which cuts responses that take longer"
                fix = 'set it to "0s", which is no limit'
                yield finding("KUB052", view.source, f"HTTPRoute {target.route}", message, fix, value=timeouts[name])


def _acceptance(view: ClusterView, route: Json, shown: str) -> Iterator[Finding]:
    for parent in mappings(mapping(route.get("status")).get("parents")):
        gateway = mapping(parent.get("parentRef")).get("name")
        for kind in ("Accepted", "ResolvedRefs"):
            said = condition(parent, kind)
            if said.get("status") == "False":
                message = f"Gateway {gateway} says {kind}=False, {said.get('reason')}: {said.get('message')}"
                fix = "see that the gateway supports InferencePools, and listeners and references against what it says"
                yield finding("KUB053", view.source, f"HTTPRoute {shown}", message, fix, value=said.get("reason"))


def _duration_s(value: object) -> float:
    """A duration of the Gateway API: ``1h2m3s4ms``; 0 if there is none."""
    try:
        return parse_duration(value) if isinstance(value, str) else 0.0
    except ValueError:
        return 0.0


def check_objects(view: ClusterView) -> list[Finding]:
    """All findings about objectives and rewrites."""
    found: list[Finding] = []
    others: dict[str, list[str]] = {}
    for (group, plural), read in view.objects.items():
        for item in read.items:
            place = f"{_KINDS[plural]}.{group} {name_of(item)}"
            found += [*_validity(view, group, plural, item, place), *_reference(view, item, place, others)]
    for pool, places in others.items():
        message = (
            f"{len(places)} objects of this namespace are for InferencePool {pool} and have no effect here: {some(places)}"
        )
        found.append(finding("KUB056", view.source, place_of(view), message, "name this pool where it was meant", value=pool))
    return [*found, *_hidden(view)]


def _reference(view: ClusterView, item: Json, place: str, others: dict[str, list[str]]) -> Iterator[Finding]:
    reference = mapping(mapping(item.get("spec")).get("poolRef"))
    name, group = str(reference.get("name", "")), str(reference.get("group", POOL_GROUP))
    if (name, group) == (view.name, view.group) or not name:
        return
    if name == view.name:
        message = f"its poolRef names the API group {group}, the pool is in {view.group}, so it has no effect"
        yield finding("KUB055", view.source, place, message, f"set poolRef.group to {view.group}", value=group)
    elif any(named(read.items, name) is not None for read in view.pools.values()):
        others.setdefault(name, []).append(place)
    elif all(read.is_known or read.is_absent for read in view.pools.values()):
        hint = nearest(name, [name_of(pool) for read in view.pools.values() for pool in read.items])
        message = f"its poolRef names InferencePool {name}, which does not exist in this namespace; {hint}"
        yield finding("KUB054", view.source, place, message, "correct poolRef.name", value=name)


def _validity(view: ClusterView, group: str, plural: str, item: Json, place: str) -> Iterator[Finding]:
    manifest = {**item, "apiVersion": f"{group}/{VERSION}", "kind": _KINDS[plural]}  # items of a list do not tell
    try:
        parse_manifest(manifest, view.namespace, from_cluster=True)
    except ManifestError as error:
        message = f"it cannot be used: {error}"
        yield finding("KUB058", view.source, place, message, "; ".join(found.fix for found in error.findings))


def _hidden(view: ClusterView) -> Iterator[Finding]:
    for plural, kind in _KINDS.items():
        current, older = (view.objects.get((group, plural)) for group in (GROUP, LEGACY_GROUP))
        if current is None or older is None:
            continue
        ours = [item for item in current.items if mapping(mapping(item.get("spec")).get("poolRef")).get("name") == view.name]
        names = {name_of(item) for item in ours} & {name_of(item) for item in older.items}
        if names:
            message = f"{kind} {some(sorted(names))} exists in {GROUP} and in {LEGACY_GROUP}; the first one counts"
            yield finding("KUB057", view.source, place_of(view), message, f"delete the one of {LEGACY_GROUP}")
