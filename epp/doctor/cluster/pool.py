"""Findings about the InferencePool itself: whether it is there, and what gateways say of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from epp.discovery.kube_objects import VERSIONS
from epp.doctor.catalogue import finding
from epp.doctor.cluster.view import UNASKED, ClusterView, condition, name_of, named
from epp.doctor.documents import Json, mapping, mappings
from epp.errors import Finding


def check_pool_object(view: ClusterView) -> list[Finding]:
    """All findings about it."""
    pool = view.pool
    if pool is None:
        return list(_missing(view))
    return [*_both_groups(view), *_deletion(view, pool), *_status(view, pool)]


def place_of(view: ClusterView) -> str:
    """The pool, for messages."""
    return f"InferencePool {view.name}"


def nearest(name: str, known: Sequence[str]) -> str:
    """A name that may have been meant, or all that there are, as a hint."""
    if near := difflib.get_close_matches(name, known, 1, 0.6):
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(sorted(known)[:10])}" if known else "there is none"


def _missing(view: ClusterView) -> Iterator[Finding]:
    place = place_of(view)
    read = view.pools.get(view.group, UNASKED)
    if read.is_absent and all(other.is_absent for other in view.pools.values()):
        message = "InferencePool is not installed in this cluster in any API group, so the picker is never ready"
        fix = "install the definitions of the Gateway API inference extension, or follow pods with --endpoint-selector"
        yield finding("KUB002", view.source, place, message, fix)
        return
    if not (read.is_known or read.is_absent):
        return  # that it could not be read is told already
    for group, other in view.pools.items():
        if group != view.group and named(other.items, view.name) is not None:
            message = f"it is not in the API group {view.group}, but in {group}, so the picker is never ready"
            yield finding("KUB001", view.source, place, message, f"start the picker with --pool-group={group}", value=group)
            return
    if view.elsewhere:
        message = f"the namespace {view.namespace} has no such pool, others do: {', '.join(view.elsewhere)}"
        yield finding("KUB001", view.source, place, message, "compare --pool-namespace and the picker's NAMESPACE")
        return
    hint = nearest(view.name, [name_of(item) for item in read.items])
    message = f"the namespace {view.namespace} has no such pool, so the picker is never ready and answers 503; {hint}"
    yield finding("KUB001", view.source, place, message, "create the pool, or correct --pool-name and --pool-namespace")


def _both_groups(view: ClusterView) -> Iterator[Finding]:
    others = [group for group, read in view.pools.items() if group != view.group and named(read.items, view.name) is not None]
    for group in others:
        message = f"a pool of this name is in the API group {group}, too; a route may mean that one, and the picker does not"
        fix = "delete the one that is not used, and let routes and objectives name the other's group"
        yield finding("KUB003", view.source, place_of(view), message, fix, value=group)


def _deletion(view: ClusterView, pool: Json) -> Iterator[Finding]:
    if "deletionTimestamp" in mapping(pool.get("metadata")):
        message = "it is being deleted, so the picker has dropped its endpoints"
        fix = "see which finalizer keeps it, and create it anew"
        yield finding("KUB004", view.source, place_of(view), message, fix)


def _status(view: ClusterView, pool: Json) -> Iterator[Finding]:
    status = mapping(pool.get("status"))
    parents = [entry for entry in mappings(status.get("parents") or status.get("parent")) if _is_gateway(entry)]
    if not parents:
        message = "no gateway has written into its status, so none sends requests to it yet"
        fix = "route to it from a gateway that supports InferencePools; an Envoy that is configured by hand writes nothing"
        yield finding("KUB007", view.source, f"{place_of(view)}: status", message, fix)
    for parent in parents:
        reference = mapping(parent.get("parentRef"))
        gateway = f"{reference.get('kind', 'Gateway')} {reference.get('name')}"
        for kind, code in (("Accepted", "KUB005"), ("ResolvedRefs", "KUB006")):
            said = condition(parent, kind)
            if said.get("status") == "False":
                message = f"{gateway} says {kind}=False, {said.get('reason')}: {said.get('message')}"
                yield finding(code, view.source, f"{place_of(view)}: status", message, _FIXES[code], value=said.get("reason"))


_FIXES = {
    "KUB005": "route to the pool with an HTTPRoute that the gateway accepts, and see that the gateway supports InferencePools",
    "KUB006": "see what else is found about endpointPickerRef and its Service",
}


def _is_gateway(parent: Json) -> bool:
    """The older definition has an entry by default that nobody wrote."""
    return mapping(parent.get("parentRef")).get("kind") != "Status"


def pool_path(group: str, namespace: str = "") -> str:
    """Where the API server has the pools of a group."""
    of_namespace = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{group}/{VERSIONS[group]}{of_namespace}/inferencepools"
