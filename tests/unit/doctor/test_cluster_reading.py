"""What is asked of the API server, and what becomes of refusals: by a table of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.datalayer.objects import GROUP, LEGACY_GROUP, POOL_GROUP, PoolIdentity
from epp.doctor.cluster.look import check_view
from epp.doctor.cluster.pool import pool_path
from epp.doctor.cluster.reading import ClusterReader
from epp.doctor.cluster.view import ClusterView
from epp.errors import Finding
from tests.unit.doctor.clusters import NOW, Cluster, Object, objective, secret, with_pools, with_secret

OF_NAMESPACE = "/namespaces/default"
ROUTES = "/apis/gateway.networking.k8s.io/v1"


class ApiTable(ClusterConnection):
    """Answers what the table says: objects, or a status. What it does not have is not found."""

    def __init__(self, answers: Mapping[str, Any], allowed: bool | int = True) -> None:
        super().__init__(environ={})
        self._answers = answers
        self._allowed = allowed
        self.reviewed: list[Object] = []

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        answer = self._answers.get(path, 404)
        if isinstance(answer, int):
            raise ClusterError(f"GET {path}: {answer}", answer)
        return orjson.dumps({"items": answer} if isinstance(answer, list) else answer)

    async def send(self, method: str, path: str, body: Any, **more: Any) -> Any:
        self.reviewed.append(body)
        if not isinstance(self._allowed, bool):
            raise ClusterError(f"POST {path}: {self._allowed}", self._allowed)
        return {"status": {"allowed": self._allowed}}


def answers_of(cluster: Cluster) -> dict[str, Any]:
    """What an API server with these objects answers."""
    [tls] = cluster.secrets["tls"].items if "tls" in cluster.secrets else [{}]
    return {
        pool_path(POOL_GROUP, "default"): cluster.pools[POOL_GROUP],
        f"/api/v1{OF_NAMESPACE}/pods": [*cluster.servers, *cluster.pickers],
        f"/api/v1{OF_NAMESPACE}/services": [cluster.service],
        f"/apis/apps/v1{OF_NAMESPACE}/deployments": [cluster.deployment],
        f"/apis/discovery.k8s.io/v1{OF_NAMESPACE}/endpointslices": [cluster.slice],
        f"{ROUTES}/httproutes": cluster.routes,
        f"/apis/{GROUP}/v1alpha2{OF_NAMESPACE}/inferenceobjectives": [objective("urgent")],
        f"/apis/coordination.k8s.io/v1{OF_NAMESPACE}/leases/epp-default-chat.llm-d.ai": cluster.lease,
        f"/api/v1{OF_NAMESPACE}/secrets/tls": tls,
        f"/api/v1{OF_NAMESPACE}/configmaps/pools": cluster.config_map,
    }


async def read(api: ApiTable, account: str = "", group: str = POOL_GROUP) -> tuple[ClusterView | None, list[Finding]]:
    reader = ClusterReader(api, PoolIdentity("chat", "default", group), account, 5.0)
    return await reader.read(), reader.notes


async def test_everything_is_read() -> None:
    cluster = Cluster(replicas=2)
    with_secret(cluster, secret(b"x", b"y"), "--enable-cert-reload")
    view, notes = await read(ApiTable(answers_of(cluster)))
    assert view is not None
    assert notes == []
    assert [found.code for found in check_view(view, NOW)] == ["CRT008"]
    assert view.leases.is_known
    assert [len(read.items) for read in view.objects.values()] == [1, 0, 0, 0]


async def test_of_several_pools_the_lease_is_called_by_the_first() -> None:
    cluster = Cluster(replicas=2)
    with_pools(cluster, {"name": "first", "default": True}, {"name": "chat", "match": {"authorities": ["a.b"]}})
    leases = f"/apis/coordination.k8s.io/v1{OF_NAMESPACE}/leases"
    table = answers_of(cluster)
    table[f"{leases}/epp-default-first.llm-d.ai"] = table.pop(f"{leases}/epp-default-chat.llm-d.ai")
    view, notes = await read(ApiTable(table))
    assert view is not None
    assert (notes, check_view(view, NOW)) == ([], [])
    assert view.leases.is_known


@pytest.mark.parametrize("account", ["", "other/account"])
async def test_rights_are_those_of_the_pickers_account(account: str) -> None:
    api = ApiTable(answers_of(Cluster(replicas=2)), allowed=False)
    view, _ = await read(api, account)
    assert view is not None
    namespace, _, name = (account or "default/chat-epp").partition("/")
    assert {body["kind"] for body in api.reviewed} == {"SubjectAccessReview"}
    assert {body["spec"]["user"] for body in api.reviewed} == {f"system:serviceaccount:{namespace}:{name}"}
    groups = {body["spec"]["resourceAttributes"]["group"] for body in api.reviewed}
    assert groups == {"", POOL_GROUP, GROUP, "coordination.k8s.io"}, "not of groups that are not installed"
    lacking = {found.path: found.code for found in check_view(view, NOW) if found.code.startswith("RBC")}
    assert lacking == {
        "pods": "RBC001",
        f"inferencepools.{POOL_GROUP}": "RBC001",
        f"inferenceobjectives.{GROUP}": "RBC002",
        f"inferencemodelrewrites.{GROUP}": "RBC002",
        "events": "RBC002",
        "leases.coordination.k8s.io": "RBC001",
    }


async def test_where_the_picker_is_not_seen_the_rights_are_our_own() -> None:
    api = ApiTable({**answers_of(Cluster()), f"/api/v1{OF_NAMESPACE}/services": 403}, allowed=False)
    view, notes = await read(api)
    assert view is not None
    assert {body["kind"] for body in api.reviewed} == {"SelfSubjectAccessReview"}
    assert [note.code for note in notes] == ["DOC003"]
    messages = [found.message for found in check_view(view, NOW) if found.code == "RBC001"]
    assert messages[0].startswith("the user of this command, who should be the picker's, may not get, list, watch pods")


async def test_rights_that_may_not_be_asked_for_are_a_note() -> None:
    view, notes = await read(ApiTable(answers_of(Cluster()), allowed=403))
    assert view is not None
    assert view.rights == ()
    assert [note.code for note in notes] == ["DOC003"]
    assert "the rights of the service account default/chat-epp could not be asked for" in notes[0].message


async def test_routes_are_those_of_the_namespace_where_no_others_may_be_read() -> None:
    cluster = Cluster()
    refused = {**answers_of(cluster), f"{ROUTES}/httproutes": 403, f"{ROUTES}{OF_NAMESPACE}/httproutes": cluster.routes}
    view, notes = await read(ApiTable(refused))
    assert view is not None
    assert check_view(view, NOW) == []
    assert [note.message for note in notes] == ["HTTPRoutes of other namespaces may not be read"]
    view, notes = await read(ApiTable({**refused, f"{ROUTES}{OF_NAMESPACE}/httproutes": 403}))
    assert view is not None
    assert not view.routes.is_known
    assert len(notes) == 1
    view, notes = await read(ApiTable({key: value for key, value in refused.items() if not key.startswith(ROUTES)}))
    assert [note.message for note in notes] == ["HTTPRoutes are not installed in this cluster"]


async def test_a_pool_that_is_missing_is_looked_for_elsewhere() -> None:
    other = {"metadata": {"name": "chat", "namespace": "models"}, "spec": {}}
    answers = {pool_path(POOL_GROUP, "default"): [], pool_path(POOL_GROUP): [other], pool_path(LEGACY_GROUP): 403}
    api = ApiTable({**answers, f"{ROUTES}/httproutes": []})
    view, notes = await read(api)
    assert view is not None
    assert [found.code for found in check_view(view, NOW)] == ["KUB001"]
    assert "models/chat" in check_view(view, NOW)[0].message
    assert notes == []
    assert api.reviewed == []


async def test_every_question_that_is_refused_is_a_note() -> None:
    everything = dict.fromkeys(answers_of(Cluster()), 403)
    pools = {pool_path(POOL_GROUP, "default"): [Cluster().pool], pool_path(LEGACY_GROUP, "default"): 403}
    view, notes = await read(ApiTable({**everything, **pools, f"{ROUTES}{OF_NAMESPACE}/httproutes": 403}))
    assert view is not None
    assert {note.code for note in notes} == {"DOC003"}
    assert all(note.fix for note in notes)
    assert [found.code for found in check_view(view, NOW)] == []


@pytest.mark.parametrize("status", [0, 401])
async def test_an_api_server_that_cannot_be_used(status: int) -> None:
    view, notes = await read(ApiTable({pool_path(POOL_GROUP, "default"): status}))
    assert view is None
    assert [note.code for note in notes] == ["DOC001"]
