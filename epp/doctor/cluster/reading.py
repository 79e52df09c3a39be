"""Asks the API server for all that the checks of a cluster look at. Nothing is changed: reviews of rights are questions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.cluster.election import lease_name
from epp.datalayer.objects import GROUP, LEGACY_GROUP, PoolIdentity
from epp.discovery.kube_inference import PLURALS, VERSION
from epp.discovery.kube_objects import VERSIONS
from epp.doctor.catalogue import finding
from epp.doctor.cluster.deployment import authenticates, elects
from epp.doctor.cluster.pool import pool_path
from epp.doctor.cluster.pools_file import pools_of
from epp.doctor.cluster.rights import Answer, Right, Uses, needed
from epp.doctor.cluster.secrets import secrets_of
from epp.doctor.cluster.view import FORBIDDEN, NOT_FOUND, ClusterView, Read, name_of
from epp.doctor.cluster.workload import Workload, picker_workload
from epp.doctor.documents import mapping, mappings
from epp.errors import Finding

_AT_ONCE = 8
_FROM_CACHE = {"resourceVersion": "0"}
"""What the API server has in memory is new enough, and costs etcd nothing."""
_ROUTES = "/apis/gateway.networking.k8s.io/v1"
_REVIEWS = "/apis/authorization.k8s.io/v1"


class ClusterReader:
    """Reads one pool and its picker.

    Args:
        connection: the API server.
        pool: which one.
        account: ``namespace/name`` of the picker's service account; empty = as its Deployment has it.
        timeout_s: of each question.
    """

    def __init__(self, connection: ClusterConnection, pool: PoolIdentity, account: str, timeout_s: float) -> None:
        self._connection = connection
        self._pool = pool
        self._account = account
        self._timeout_s = timeout_s
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._source = f"kubernetes:{pool.namespace}"
        self.notes: list[Finding] = []
        """What could not be read, and why."""

    async def read(self) -> ClusterView | None:
        """All documents; None if the API server does not answer."""
        pool, of_namespace = self._pool, f"/namespaces/{self._pool.namespace}"
        pools = {pool.group: await self._items("InferencePools", pool_path(pool.group, pool.namespace))}
        if not pools[pool.group].status or pools[pool.group].status == 401:
            message = f"the API server cannot be used: {pools[pool.group].problem}"
            fix = "see that --kubeconfig, or the service account here, is good and the way to the API server open"
            self.notes = [finding("DOC001", self._source, "", message, fix)]
            return None
        view = ClusterView(pool.namespace, pool.name, pool.group, pools)
        others = [group for group in VERSIONS if group != pool.group]
        *other_pools, pods, services, deployments, routes = await asyncio.gather(
            *(self._items("InferencePools", pool_path(group, pool.namespace)) for group in others),
            self._items("pods", f"/api/v1{of_namespace}/pods"),
            self._items("Services", f"/api/v1{of_namespace}/services"),
            self._items("Deployments", f"/apis/apps/v1{of_namespace}/deployments"),
            self._http_routes(),
        )
        pools.update(zip(others, other_pools, strict=True))
        view = replace(
            view,
            pods=pods,
            services=services,
            deployments=deployments,
            routes=routes,
            objects=await self._objects(of_namespace),
        )
        if view.pool is None:
            return replace(view, elsewhere=await self._elsewhere())
        return await self._rights(await self._of_picker(view, of_namespace))

    async def _of_picker(self, view: ClusterView, of_namespace: str) -> ClusterView:
        if view.service is not None:
            query = {"labelSelector": f"kubernetes.io/service-name={name_of(view.service)}"}
            path = f"/apis/discovery.k8s.io/v1{of_namespace}/endpointslices"
            view = replace(view, slices=await self._items("EndpointSlices", path, query))
        workload = picker_workload(view)
        if workload is None:
            return view
        if name := workload.config_map(workload.flag("pools-file")):
            path = f"/api/v1{of_namespace}/configmaps/{name}"
            view = replace(view, config_map=await self._one(f"the ConfigMap {name}", path))
        if elects(workload):
            first = next(iter(pools_of(view, workload)), None)  # by which the lease is called
            name = workload.flag("lease-name") or lease_name(view.namespace, first.name if first is not None else view.name)
            path = f"/apis/coordination.k8s.io/v1{of_namespace}/leases/{name}"
            view = replace(view, leases=await self._one(f"the Lease {name}", path))
        names = sorted(set(secrets_of(workload).values()))
        paths = [f"/api/v1{of_namespace}/secrets/{name}" for name in names]
        reads = [await self._one(f"the Secret {name}", path) for name, path in zip(names, paths, strict=True)]
        return replace(view, secrets=dict(zip(names, reads, strict=True)))

    # ── objects ──

    async def _http_routes(self) -> Read:
        """Of all namespaces, as routes may name pools of others; of this one where only that is allowed."""
        read = await self._items("HTTPRoutes", f"{_ROUTES}/httproutes", note=False)
        if read.status == FORBIDDEN:
            read = await self._items("HTTPRoutes", f"{_ROUTES}/namespaces/{self._pool.namespace}/httproutes")
            if read.is_known:
                self._note("HTTPRoutes of other namespaces", "may not be read")
        elif read.is_absent:
            self._note("HTTPRoutes", "are not installed in this cluster", "use a gateway, if you meant to")
        elif not read.is_known:
            self._note("HTTPRoutes", f"could not be read: {read.problem}")
        return read

    async def _objects(self, of_namespace: str) -> Mapping[tuple[str, str], Read]:
        kinds = [(group, plural) for group in (GROUP, LEGACY_GROUP) for plural in PLURALS]
        reads = [self._items(f"{plural}.{group}", f"/apis/{group}/{VERSION}{of_namespace}/{plural}") for group, plural in kinds]
        return dict(zip(kinds, await asyncio.gather(*reads), strict=True))

    async def _elsewhere(self) -> Sequence[str]:
        reads = [await self._items("InferencePools", pool_path(group), note=False) for group in VERSIONS]
        found = [item for read in reads for item in read.items if name_of(item) == self._pool.name]
        return sorted({f"{mapping(item.get('metadata')).get('namespace')}/{name_of(item)}" for item in found})

    # ── rights ──

    async def _rights(self, view: ClusterView) -> ClusterView:
        workload = picker_workload(view)
        uses = Uses(elects(workload), authenticates(workload)) if workload is not None else Uses()
        groups = [
            group for group in (GROUP, LEGACY_GROUP) if any(not view.objects[group, plural].is_absent for plural in PLURALS)
        ]
        rights = needed(view.namespace, view.group, uses, groups)
        account = self._account or _account_of(view, workload)
        try:
            answers = await asyncio.gather(*(self._review(right, account) for right in rights))
        except (ClusterError, TimeoutError) as error:
            who = f"the service account {account}" if account else "the user of this command"
            fix = "allow `create` on subjectaccessreviews to the user of this command, or run it as the picker"
            self._note(f"the rights of {who}", f"could not be asked for: {error}", fix)
            return view
        return replace(view, rights=answers, account=account)

    async def _review(self, right: Right, account: str) -> Answer:
        attributes = {"group": right.group, "resource": right.resource, "verb": right.verb, "namespace": right.namespace}
        spec: dict[str, object] = {"resourceAttributes": attributes}
        kind = "SelfSubjectAccessReview"
        if account:
            kind = "SubjectAccessReview"
            namespace, _, name = account.partition("/")
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
            spec |= {"user": f"system:serviceaccount:{namespace}:{name}", "groups": groups}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        async with self._gate:
            path = f"{_REVIEWS}/{kind.lower()}s"
            answer = await self._connection.send("POST", path, body, timeout_s=self._timeout_s)
        return Answer(right, bool(mapping(answer.get("status")).get("allowed")))

    # ── questions ──

    async def _items(self, what: str, path: str, query: Mapping[str, str] | None = None, *, note: bool = True) -> Read:
        """A collection."""
        read = await self._get(what, path, {**_FROM_CACHE, **(query or {})}, note=note)
        return replace(read, items=mappings(read.items[0].get("items"))) if read.is_known else read

    async def _one(self, what: str, path: str) -> Read:
        return await self._get(what, path, None, note=True)

    async def _get(self, what: str, path: str, query: Mapping[str, str] | None, *, note: bool) -> Read:
        try:
            async with self._gate, asyncio.timeout(self._timeout_s):
                body = await self._connection.get(path, query)
            document = orjson.loads(body)
        except TimeoutError:
            read = Read(status=0, problem=f"GET {path}: no answer within {self._timeout_s:g} s")
        except ClusterError as error:
            read = Read(status=error.status, problem=str(error))
        except ValueError as error:
            read = Read(status=0, problem=f"GET {path}: the answer is no JSON: {error}")
        else:
            return Read([mapping(document)])
        if note and read.status != NOT_FOUND:
            self._note(what, f"could not be read: {read.problem}")
        return read

    def _note(
        self, what: str, why: str, fix: str = "allow `get` and `list` to the user of this command, or use another"
    ) -> None:
        self.notes.append(finding("DOC003", self._source, "", f"{what} {why}", fix))


def _account_of(view: ClusterView, workload: Workload | None) -> str:
    return f"{view.namespace}/{workload.account}" if workload is not None else ""
