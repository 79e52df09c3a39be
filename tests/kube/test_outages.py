"""The API server refuses, breaks off, is away, or has forgotten: what a picker makes of it. Cases K of datalayer.md."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from epp.simulate.options import ServerOptions
from epp.simulate.server import SimulatedPool
from tests.kube import crds
from tests.kube.api import Api, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import objective, pod, pool, role
from tests.kube.picker import Way
from tests.kube.test_events import A, B, C, added, endpoints


def requests(api: Api, verb: str, resource: str) -> list[str]:
    """What pickers of the namespace asked for, oldest first."""
    path = f"/{api.namespace}/{resource}"
    return [found.uri for found in api.cluster.audited() if found.verb == verb and path in found.uri]


async def test_k25_the_pods_of_the_new_selector_cannot_be_listed_at_first(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels={"app": "n"}))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    rights = role()
    await api.patch(rights, {"rules": [rule for rule in rights["rules"] if "pods" not in rule["resources"]]})
    await api.patch(pool(), {"spec": {"selector": {"matchLabels": {"app": "n"}}}})
    await picker.says("watch failed, trying again")
    assert "cannot list resource" in picker.log
    assert await picker.endpoints() == endpoints(("a", A))
    assert await picker.health() == "SERVING"
    await api.patch(rights, {"rules": rights["rules"]})
    await picker.has(endpoints(("b", B)))


async def test_k31_k32_the_api_server_is_away_for_a_while(api: Api, start: StartPicker, way: Way) -> None:
    await api.create(pool())
    async with SimulatedPool(1, lambda index: ServerOptions(), A) as servers:
        (server,) = servers.servers
        await api.patch(pool(), {"spec": {"targetPorts": [{"number": server.port}]}})
        await api.create(pod("a", A))
        await api.create(pod("b", B))
        picker = await start()
        both = {"a-rank-0": f"{A}:{server.port}", "b-rank-0": f"{B}:{server.port}"}
        await picker.has(both)
        lists = requests(api, "list", "pods")
        watches = len(requests(api, "watch", "pods"))
        await way.cut()
        await picker.says("watch failed, trying again")
        await api.delete(pod("b"))
        await api.create(pod("c", C))
        assert await picker.endpoints() == both
        assert await picker.health() == "SERVING"
        age = (await picker.entries())["a-rank-0"]["ageSeconds"]
        assert age < 1, "scraping goes on"
        await way.mend()
        await picker.has({"a-rank-0": f"{A}:{server.port}", "c-rank-0": f"{C}:{server.port}"})
        await picker.says("watch works again")
        assert requests(api, "list", "pods") == lists, "K31: no list"
        assert len(requests(api, "watch", "pods")) > watches
        assert "a-rank-0" not in [
            name for change in (await picker.changes())[1:] for name in (*change["added"], *change["removed"])
        ]


async def test_k30_the_api_server_has_forgotten_where_we_were(own_api: Api, own_start: StartPicker) -> None:
    api = own_api
    await api.install(crds.pool())
    await api.create(pool())
    await api.create(pod("a", A))
    await api.create(pod("b", B))
    async with Way(api.cluster.port) as way:
        picker = await own_start(port=way.port)
        await picker.has(endpoints(("a", A), ("b", B)))
        await way.cut()
        await api.delete(pod("b"))
        await api.create(pod("c", C))
        # A new API server knows no versions from before it read etcd.
        api.cluster.kill_server()
        await asyncio.to_thread(api.cluster.start_server)
        await way.mend()
        await picker.says("watch cannot go on, listing again")
        await picker.has(endpoints(("a", A), ("c", C)))
    assert await picker.changes() == [
        added("a-rank-0", "b-rank-0"),
        {"added": ["c-rank-0"], "updated": [], "removed": ["b-rank-0"]},
    ]


async def test_k33_the_api_server_is_away_at_the_start(api: Api, start: StartPicker, way: Way) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    await way.cut()
    picker = await start()
    await picker.says("watch failed, trying again")
    assert await picker.health("liveness") == "SERVING"
    assert await picker.health() == "NOT_SERVING"
    assert any("cannot be read" in reason and "connect" in reason for reason in await picker.reasons())
    await way.mend()
    await picker.is_ready()
    await picker.has(endpoints(("a", A)))


async def test_k33_k34_resources_that_are_installed_later(own_api: Api, own_start: StartPicker) -> None:
    picker = await own_start()
    await picker.says("resource is not installed, looked for again now and then", times=4)
    await picker.says("watch failed, trying again")
    assert (await picker.health("liveness"), await picker.health()) == ("SERVING", "NOT_SERVING")
    await own_api.install(crds.pool())
    await own_api.install(crds.objective(crds.GROUP))
    await own_api.create(pool())
    await own_api.create(pod("a", A))
    await own_api.create(objective("urgent", 7))
    await picker.is_ready(timeout_s=60)
    await picker.has(endpoints(("a", A)))
    await picker.says("objects read from the cluster", timeout_s=90)


@pytest.mark.parametrize("way_in", ["tokenFile", "exec"])
async def test_k35_a_token_that_is_replaced(api: Api, start: StartPicker, tmp_path: Path, way_in: str) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    token_file = tmp_path / "token"
    token_file.write_text("expired")
    picker = await start(user=_user(way_in, token_file))
    await picker.says("Unauthorized")
    assert await picker.health() == "NOT_SERVING"
    token_file.write_text(await api.token("epp"))
    await picker.has(endpoints(("a", A)))


def _user(way_in: str, token_file: Path) -> Any:
    """How a kubeconfig tells the token."""
    if way_in == "tokenFile":
        return {"tokenFile": str(token_file)}
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    script = f"""printf '%s' '{{"apiVersion":"{credential["apiVersion"]}","kind":"ExecCredential","status":{{"token":"'"""
    script += f"""; cat {token_file}; printf '%s' '"}}}}'"""
    return {
        "exec": {"apiVersion": credential["apiVersion"], "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
    }


async def test_k38_a_pool_that_selects_nothing(own_api: Api, own_start: StartPicker) -> None:
    lax = crds.pool()
    lax["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    await own_api.install(lax)
    empty = pool()
    empty["spec"]["selector"] = {"matchLabels": {}}
    await own_api.create(empty)
    await own_api.create(pod("a", A))
    picker = await own_start()
    await picker.says("pool selects no pod, its selector is empty")
    assert '"level":"error"' in picker.log
    assert await picker.endpoints() == {}
    await picker.is_ready()
    await own_api.patch(empty, {"spec": {"selector": {"matchLabels": {"app": "m"}}}})
    await picker.has(endpoints(("a", A)))


async def test_optional_resources_that_may_not_be_read(api: Api, start: StartPicker) -> None:
    rights = role()
    await api.patch(rights, {"rules": role(objects=False)["rules"]})
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await picker.is_ready()
    await picker.says("resource may not be read, going on without it", times=4)


async def test_warnings_are_written_into_the_cluster(api: Api, start: StartPicker) -> None:
    created = await api.create(pool())
    await start()

    async def events() -> list[Any]:
        return (await api.call("GET", f"/api/v1/namespaces/{api.namespace}/events"))["items"]

    (event,) = await until(events, "an event is written")
    assert (event["type"], event["reason"]) == ("Warning", "NoMatchingPods")
    assert "app=m" in event["message"]
    assert event["involvedObject"]["uid"] == created["metadata"]["uid"]
