"""One look at a cluster: its documents, what the checks find in them, and what else can be looked at because of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from epp.cluster.connection import ClusterConnection
from epp.datalayer.objects import PoolIdentity
from epp.doctor.catalogue import finding
from epp.doctor.cluster.deployment import check_deployment
from epp.doctor.cluster.pods import check_known, check_pods, endpoints_of
from epp.doctor.cluster.pool import check_pool_object
from epp.doctor.cluster.pools_file import check_pools_file
from epp.doctor.cluster.reading import ClusterReader
from epp.doctor.cluster.references import check_objects, check_routes
from epp.doctor.cluster.rights import check_rights
from epp.doctor.cluster.secrets import check_secrets
from epp.doctor.cluster.service import check_service
from epp.doctor.cluster.view import ClusterView, name_of
from epp.doctor.cluster.workload import picker_workload
from epp.doctor.documents import mapping, number
from epp.errors import Finding, UsageError
from epp.framework.types import Endpoint


@dataclass(frozen=True, slots=True)
class ClusterQuestion:
    """What to look at."""

    pool: PoolIdentity
    kubeconfig: str = ""
    """Empty = the service account of this pod, or ``$KUBECONFIG``."""
    account: str = ""
    """``namespace/name`` of the picker's service account; empty = as its Deployment has it."""

    @property
    def is_inside(self) -> bool:
        """This command runs in the cluster, where addresses of pods and names of Services mean the same."""
        return not self.kubeconfig and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """What was found, and what else can be looked at from here."""

    findings: Sequence[Finding] = ()
    seen: str = ""
    """Empty = the cluster could not be looked at."""
    endpoints: Sequence[Endpoint] = ()
    """Of the pool, where they can be reached."""
    grpc: tuple[str, int] | None = None
    """The picker's Service, where it can be reached."""


async def look_at_cluster(
    question: ClusterQuestion, picker_url: str, known: Mapping[str, str] | None, timeout_s: float
) -> ClusterLook:
    """Look at a pool and its picker.

    Args:
        question: which ones.
        picker_url: for messages.
        known: id → ``host:port`` of the endpoints that the picker knows; None = it was not asked.
        timeout_s: of each question.
    """
    connection = ClusterConnection(question.kubeconfig)
    try:
        await connection.open()
        reader = ClusterReader(connection, question.pool, question.account, timeout_s)
        view = await reader.read()
    except UsageError as error:
        return ClusterLook([finding("DOC001", "kubernetes", "", error.problems[0], "give --kubeconfig, or run it in a pod")])
    finally:
        await connection.close()
    if view is None:
        return ClusterLook(reader.notes)
    found = [*reader.notes, *check_view(view, datetime.now(UTC))]
    if known is not None:
        found += check_known(view, picker_url, known)
    inside = question.is_inside
    return ClusterLook(found, "the cluster", endpoints_of(view) if inside else (), _grpc(view) if inside else None)


def check_view(view: ClusterView, now: datetime) -> list[Finding]:
    """All findings in the documents."""
    workload = picker_workload(view)
    found = check_pool_object(view)
    if view.pool is not None:
        found += [*check_service(view, workload), *check_pods(view)]
    found += [*check_routes(view), *check_objects(view), *check_rights(view.source, view.account, view.rights)]
    if workload is not None:
        found += [*check_deployment(view, workload, now), *check_pools_file(view, workload)]
        found += check_secrets(view, workload, now)
    return found


def _grpc(view: ClusterView) -> tuple[str, int] | None:
    port = number(mapping(view.picker_ref.get("port")).get("number"), 0)
    return (f"{name_of(view.service)}.{view.namespace}.svc", port) if view.service is not None and port else None
