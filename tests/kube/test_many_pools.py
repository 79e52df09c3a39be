"""Several pools in one picker: InferencePools of two namespaces, that come and go each for itself."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from epp.doctor.documents import mapping
from tests.kube.api import Api, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import objective, pod, pool, role
from tests.kube.picker import Picker, Way
from tests.kube.pools import PoolsFolder, add_namespace, asks_for, entry, start_pools, within
from tests.kube.test_access import granted
from tests.kube.test_election import FAST
from tests.kube.test_events import A, B, C, endpoints

D = "127.1.0.4"
CODE = {"app": "code"}


@pytest.fixture
def files(tmp_path: Path) -> PoolsFolder:
    """The pools file."""
    folder = tmp_path / "pools"
    folder.mkdir()
    return PoolsFolder(folder)


@pytest.fixture
async def other(api: Api) -> str:
    """A second namespace, where the picker has the same rights."""
    name = f"{api.namespace}-other"
    await add_namespace(api, name, api.namespace)
    return name


async def pools_of(picker: Picker) -> dict[str, dict[str, Any]]:
    """Name → what ``/debug/pools`` tells of it."""
    _, page = await picker.page("/debug/pools")
    return {each["name"]: each for each in json.loads(page)["pools"]}


async def targets(picker: Picker, name: str, port: int = 0) -> str:
    """Where a request for a pool goes."""
    headers = {} if port else asks_for(name)
    return (await picker.pick(headers=headers, port=port)).target


async def test_endpoints_of_pools_never_mix(api: Api, other: str, files: PoolsFolder, start: StartPicker) -> None:
    """Two pools of one namespace, and one of another whose pods have the same names and labels."""
    await api.create(pool("chat"))
    await api.create(pool("code", labels=CODE, ports=(9000,)))
    await api.create(within(other, pool("embeddings")))
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels=CODE))
    await api.create(within(other, pod("a", C)))
    file = files.write(entry("chat"), entry("code"), entry("embeddings", namespace=other, grpcPort=0))
    picker = await start_pools(start, api, file)
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B), port=9000), pool="code")
    await picker.has(endpoints(("a", C)), pool="embeddings")
    for name in ("readiness", "chat", "code", "embeddings"):
        await picker.is_ready(service=name)
    own = picker.ports["grpc_port/embeddings"]
    assert await targets(picker, "chat") == f"{A}:8000"
    assert await targets(picker, "code") == f"{B}:9000"
    assert await targets(picker, "embeddings", own) == f"{C}:8000"
    assert (await picker.refusal(asks_for("embeddings"))).status == 404, "it has a port of its own"
    assert {name: each["namespace"] for name, each in (await pools_of(picker)).items()} == {
        "chat": api.namespace, "code": api.namespace, "embeddings": other,
    }  # fmt: skip
    # a pod that changes its labels changes its pool
    await api.patch(pod("a"), {"metadata": {"labels": CODE}})
    await picker.has(endpoints(("a", A), ("b", B), port=9000), pool="code")
    await picker.has({}, pool="chat")
    assert await picker.endpoints("embeddings") == endpoints(("a", C))
    await api.create(within(other, pod("d", D, labels=CODE)))
    await api.create(within(other, pod("d2", D)))
    await picker.has(endpoints(("a", C), ("d2", D)), pool="embeddings")
    assert await picker.endpoints("code") == endpoints(("a", A), ("b", B), port=9000)
    assert '"level":"error"' not in picker.log


async def test_what_is_told_to_plugins_is_of_their_pool(api: Api, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pool("code", labels=CODE))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code")))
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels=CODE))
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B)), pool="code")
    for name, its in (("chat", "a-rank-0"), ("code", "b-rank-0")):
        _, page = await picker.page(f"/pools/{name}/debug/plugins/state")
        changes = json.loads(page)["plugins"]["endpoint-recorder"]["state"]
        assert [change["added"] for change in changes if change["added"]] == [[its]], name


async def test_objectives_are_those_of_their_pool(api: Api, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pool("code", labels=CODE))
    await api.create(objective("urgent", 7))
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels=CODE))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code")))
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B)), pool="code")

    async def priorities() -> dict[str, str]:
        for name in ("chat", "code"):
            await picker.pick("asked", {**asks_for(name), "x-llm-d-inference-objective": "urgent"})
        counted = [labels for labels, _ in await picker.samples("llm_d_epp_request_total")]
        return {labels["pool"]: labels["priority"] for labels in counted if labels["model_name"] == "asked"}

    async def holds() -> bool:
        return await priorities() == {"chat": "7", "code": "0"}

    await until(holds, "the objective holds for one pool")


async def test_a_pool_that_is_deleted_is_alone_in_it(api: Api, other: str, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(other, pool("code", labels=CODE)))
    await api.create(within(other, pod("b", B, labels=CODE)))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code", namespace=other)))
    for name in ("chat", "code"):
        await picker.is_ready(service=name)
    assert await targets(picker, "chat") == f"{A}:8000"
    await api.delete(pool("chat"))
    await picker.is_ready(ready=False, service="chat")
    assert any("does not exist" in reason or "deleted" in reason for reason in await picker.reasons("chat"))
    assert (await picker.refusal(asks_for("chat"))).status == 503
    assert await picker.reasons() == []
    assert await picker.reasons("code") == []
    assert (await picker.health(), await picker.health("code")) == ("SERVING", "SERVING")
    assert await targets(picker, "code") == f"{B}:8000"
    ready = {labels["pool"]: value for labels, value in await picker.samples("llm_d_epp_pool_ready")}
    assert ready == {"chat": 0, "code": 1}
    await api.delete(within(other, pool("code")))
    await picker.is_ready(ready=False)
    assert {reason.partition(": ")[0] for reason in (await picker.reasons())[0].removeprefix("pools: ").split("; ")} == {
        "chat", "code",
    }  # fmt: skip
    await api.create(pool("chat"))
    await picker.is_ready(service="chat")
    await picker.is_ready()
    assert await targets(picker, "chat") == f"{A}:8000"
    assert await picker.health("code") == "NOT_SERVING"


async def test_a_pool_that_appears_later_is_served_then(api: Api, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels=CODE))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code")))
    await picker.is_ready()
    assert await targets(picker, "chat") == f"{A}:8000"
    assert await picker.health("code") == "NOT_SERVING"
    assert any("does not exist" in reason for reason in await picker.reasons("code"))
    assert (await picker.refusal(asks_for("code"))).status == 503
    await api.create(pool("code", labels=CODE))
    await picker.is_ready(service="code")
    assert await targets(picker, "code") == f"{B}:8000"
    assert '"level":"error"' not in picker.log


async def test_pools_that_come_into_the_file_and_leave_it(api: Api, other: str, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(other, pool("code", labels=CODE)))
    await api.create(within(other, pod("b", B, labels=CODE)))
    picker = await start_pools(start, api, files.write(entry("chat")), "--watch-config-file")
    await picker.is_ready(service="chat")
    assert (await picker.refusal(asks_for("code"))).status == 404
    files.write(entry("chat"), entry("code", namespace=other))
    await picker.says("pools file reloaded")
    await picker.is_ready(service="code")
    assert await targets(picker, "code") == f"{B}:8000"
    files.write(entry("code", namespace=other))
    await picker.says("pools file reloaded", times=2)
    assert (await picker.refusal(asks_for("chat"))).status == 404
    assert await targets(picker, "code") == f"{B}:8000"


async def test_one_lease_for_all_pools(api: Api, other: str, files: PoolsFolder, start: StartPicker) -> None:
    await api.patch(role(), {"rules": role(leases=True)["rules"]})
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(other, pool("code", labels=CODE)))
    await api.create(within(other, pod("b", B, labels=CODE)))
    file = files.write(entry("chat"), entry("code", namespace=other))
    first = await start_pools(start, api, file, *FAST, name="first")
    for name in ("readiness", "chat", "code"):
        await first.is_ready(service=name)
    second = await start_pools(start, api, file, *FAST, name="second")
    await second.has(endpoints(("a", A)), pool="chat")
    await second.has(endpoints(("b", B)), pool="code")
    assert {await second.health(name) for name in ("readiness", "chat", "code")} == {"NOT_SERVING"}
    assert "not the leader" in (await second.reasons())[0]
    found = {
        each["metadata"]["name"]
        for namespace in (api.namespace, other)
        for each in (await api.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"))["items"]
    }
    assert found == {f"epp-{api.namespace}-chat.llm-d.ai"}
    await second.says("leader seen")
    first.process.send_signal(signal.SIGTERM)
    for name in ("readiness", "chat", "code"):
        await second.is_ready(service=name)
    assert await first.ends() == 0
    assert await targets(second, "code") == f"{B}:8000"


async def test_rights_that_are_missing_in_one_namespace(api: Api, files: PoolsFolder, start: StartPicker) -> None:
    locked = f"{api.namespace}-locked"
    await add_namespace(api, locked, api.namespace, has_rights=False)
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(locked, pool("code", labels=CODE)))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code", namespace=locked)))
    await picker.is_ready()
    assert await targets(picker, "chat") == f"{A}:8000"
    assert (await picker.refusal(asks_for("code"))).status == 503
    assert await picker.reasons("code") != []
    assert "cannot list resource" in picker.log
    assert await picker.reasons("chat") == []


async def test_a_way_that_breaks_is_that_of_all(api: Api, other: str, way: Way, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(other, pool("code", labels=CODE)))
    await api.create(within(other, pod("b", B, labels=CODE)))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code", namespace=other)))
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B)), pool="code")
    await way.cut()
    for name, address in (("chat", A), ("code", B)):
        assert await targets(picker, name) == f"{address}:8000"
    await api.create(pod("c", C))
    await api.create(within(other, pod("d", D, labels=CODE)))
    await way.mend()
    await picker.has(endpoints(("a", A), ("c", C)), pool="chat")
    await picker.has(endpoints(("b", B), ("d", D)), pool="code")
    assert await picker.reasons() == []


async def test_an_api_server_that_is_away_at_the_start(api: Api, way: Way, files: PoolsFolder, start: StartPicker) -> None:
    """A pool that needs none is served meanwhile; the others wait, and the process lives."""
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    fixed = {"name": "fixed", "endpoints": [f"{B}:8000"], "default": True}
    file = files.write(entry("chat"), entry("code"), fixed)
    await way.cut()
    picker = await start_pools(start, api, file)
    await picker.is_ready()
    assert await picker.health("liveness") == "SERVING"
    assert await targets(picker, "any") == f"{B}:8000"
    assert await picker.health("chat") == "NOT_SERVING"
    assert (await picker.refusal(asks_for("chat"))).status == 503
    await way.mend()
    await picker.is_ready(service="chat")
    assert await targets(picker, "chat") == f"{A}:8000"
    assert await picker.health("code") == "NOT_SERVING"


async def test_events_are_written_about_the_pool_that_they_concern(
    api: Api, other: str, files: PoolsFolder, start: StartPicker
) -> None:
    await api.create(pool("chat"))
    await api.create(pod("a", A))
    await api.create(within(other, pool("code", labels=CODE)))
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code", namespace=other)))
    await picker.is_ready(service="code")

    async def told() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await api.call("GET", f"/api/v1/namespaces/{other}/events"))["items"]
        return found

    events = await until(told, "the pool without pods has an event")
    assert {(each["reason"], mapping(each["involvedObject"])["name"]) for each in events} == {("NoMatchingPods", "code")}
    assert (await api.call("GET", f"/api/v1/namespaces/{api.namespace}/events"))["items"] == []


async def test_the_api_server_decides_about_the_pages_of_each_pool(api: Api, files: PoolsFolder, start: StartPicker) -> None:
    await api.create(pool("chat"))
    await api.create(pool("code", labels=CODE))
    reviews = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    pages = [{"nonResourceURLs": ["/pools/chat/metrics"], "verbs": ["get"]}]
    for manifest in (
        *granted(f"{api.namespace}-reviews", "epp", api.namespace, reviews),
        *granted(f"{api.namespace}-pages", "scraper", api.namespace, pages),
    ):
        await api.create(manifest)
    picker = await start_pools(start, api, files.write(entry("chat"), entry("code")), "--metrics-endpoint-auth=true")
    token = {"Authorization": f"Bearer {await api.token('scraper')}"}
    assert (await picker.page("/pools/chat/metrics"))[0] == 401
    assert (await picker.page("/metrics"))[0] == 401
    assert (await picker.page("/pools/chat/metrics", token))[0] == 200
    assert (await picker.page("/pools/code/metrics", token))[0] == 403
    assert (await picker.page("/metrics", token))[0] == 403
