"""Which rights a picker needs, and findings about those that it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from epp.datalayer.objects import GROUP, LEGACY_GROUP
from epp.discovery.kube_inference import PLURALS
from epp.doctor.catalogue import finding
from epp.errors import Finding

READS = ("get", "list", "watch")


class Right(NamedTuple):
    """One verb on one kind of object."""

    group: str
    resource: str
    verb: str
    namespace: str
    """Empty = of the cluster."""
    is_optional: bool = False
    """The picker works without it."""


class Answer(NamedTuple):
    """What the API server says of a right."""

    right: Right
    is_allowed: bool


class Uses(NamedTuple):
    """What a picker does that needs more rights."""

    elects: bool = False
    authenticates: bool = False
    """It asks who reads its metrics port."""


def needed(namespace: str, pool_group: str, uses: Uses, object_groups: Sequence[str] = (GROUP, LEGACY_GROUP)) -> list[Right]:
    """All rights that a picker uses.

    Args:
        namespace: of the pool.
        pool_group: API group of the pool.
        uses: what else it does.
        object_groups: API groups in which objectives and rewrites are installed.
    """
    found = [Right("", "pods", verb, namespace) for verb in READS]
    found += [Right(pool_group, "inferencepools", verb, namespace) for verb in READS]
    found += [
        Right(group, plural, verb, namespace, is_optional=True)
        for group in object_groups
        for plural in PLURALS
        for verb in READS
    ]
    found += [Right("", "events", verb, namespace, is_optional=True) for verb in ("create", "patch")]
    if uses.elects:
        found += [Right("coordination.k8s.io", "leases", verb, namespace) for verb in (*READS, "create", "update")]
    if uses.authenticates:
        found.append(Right("authentication.k8s.io", "tokenreviews", "create", ""))
        found.append(Right("authorization.k8s.io", "subjectaccessreviews", "create", ""))
    return found


def check_rights(source: str, account: str, answers: Sequence[Answer]) -> Iterator[Finding]:
    """What is not allowed, by kind of object.

    Args:
        source: what was looked at.
        account: whose rights they are; empty = of whoever runs this command.
    """
    who = f"the service account {account}" if account else "the user of this command, who should be the picker's,"
    lacking: dict[tuple[str, str, str, bool], list[str]] = {}
    for right, is_allowed in answers:
        if not is_allowed:
            lacking.setdefault((right.group, right.resource, right.namespace, right.is_optional), []).append(right.verb)
    for (group, resource, namespace, is_optional), verbs in lacking.items():
        what = f"{resource}.{group}" if group else resource
        where = f"in the namespace {namespace}" if namespace else "in the cluster"
        message = f"{who} may not {', '.join(verbs)} {what} {where}{_meaning(resource)}"
        kind = "a Role and a RoleBinding there" if namespace else "a ClusterRole and a ClusterRoleBinding"
        fix = f"give the account {kind} with apiGroups [{group!r}], resources [{resource}], verbs [{', '.join(verbs)}]"
        yield finding("RBC002" if is_optional else "RBC001", source, what, message, fix, value=", ".join(verbs))


def _meaning(resource: str) -> str:
    return {
        "pods": ", so it knows no endpoint",
        "inferencepools": ", so it is never ready",
        "inferenceobjectives": ", so all requests have priority 0",
        "inferencemodelrewrites": ", so no model is rewritten",
        "events": ", so its warnings are in its log only",
        "leases": ", so no replica ever leads",
    }.get(resource, ", so nobody can read its metrics port")
