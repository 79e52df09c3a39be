"""Pods and pools come, change and go: the endpoints that a picker makes of them. Cases K of datalayer.md, section 10.1.

The addresses are those of this machine, where nothing listens: no kubelet is there to give others.
"""

from __future__ import annotations

from typing import Any

from tests.kube.api import Api, several, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool
from tests.kube.picker import Picker, Way

A, B, C = "127.1.0.1", "127.1.0.2", "127.1.0.3"
READY: dict[str, Any] = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def ready(status: str) -> dict[str, Any]:
    """A change of a pod's status."""
    return {"status": {"conditions": [{"type": "Ready", "status": status}]}}


def added(*names: str) -> dict[str, list[str]]:
    """A change that plugins are told."""
    return {"added": list(names), "updated": [], "removed": []}


def removed(*names: str) -> dict[str, list[str]]:
    """A change that plugins are told."""
    return {"added": [], "updated": [], "removed": list(names)}


def replaced(*names: str) -> dict[str, list[str]]:
    """Other servers have taken the names."""
    return {"added": list(names), "updated": [], "removed": list(names)}


def updated(*names: str) -> dict[str, list[str]]:
    """A change that plugins are told."""
    return {"added": [], "updated": list(names), "removed": []}


async def passed(api: Api, picker: Picker) -> None:
    """Wait until the picker has seen all that was done to pods so far: it sees a new one."""
    before = await picker.endpoints()
    await api.create(pod("last", "127.1.9.9"))
    await until(lambda: _has(picker, "last"), "the last pod is seen")
    await api.delete(pod("last"))
    await picker.has(before)


async def _has(picker: Picker, pod_name: str) -> bool:
    return any(name.startswith(f"{pod_name}-rank-") for name in await picker.endpoints())


def endpoints(*pods: tuple[str, str], port: int = 8000) -> dict[str, str]:
    """The endpoints of pods, by name and address, with one target port."""
    return {f"{name}-rank-0": f"{address}:{port}" for name, address in pods}


async def test_k1_pods_that_were_ready_before_the_pool(api: Api, start: StartPicker) -> None:
    await api.create(pod("a", A))
    await api.create(pod("b", B))
    picker = await start()
    await picker.says("does not exist")
    await api.create(pool())
    await picker.has(endpoints(("a", A), ("b", B)))
    assert await picker.changes() == [added("a-rank-0", "b-rank-0")]


async def test_k2_pods_without_a_pool(api: Api, start: StartPicker) -> None:
    picker = await start()
    await picker.says("does not exist")
    await api.create(pod("a", A))
    await api.create(pool("other"))
    assert await picker.endpoints() == {}
    assert any("does not exist" in reason for reason in await picker.reasons())
    assert '"level":"error"' not in picker.log


async def test_k3_k4_k5_readiness_of_a_pod(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A, ready=None))
    picker = await start()
    await picker.is_ready()
    assert await picker.endpoints() == {}, "K3"
    await api.patch(pod("a"), ready("False"), "status")
    await api.patch(pod("a"), READY, "status")
    await picker.has(endpoints(("a", A)))
    assert await picker.changes() == [added("a-rank-0")], "K4: one event"
    await api.patch(pod("a"), ready("Unknown"), "status")
    await picker.has({})
    assert await picker.changes() == [added("a-rank-0"), removed("a-rank-0")], "K5"


async def test_k6_the_first_ready_condition_counts(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    picker = await start()
    await picker.is_ready()
    conditions = [{"type": "Ready", "status": "False"}, {"type": "Ready", "status": "True"}]
    await api.create(pod("a", A) | {"status": {"podIP": A, "podIPs": [{"ip": A}], "conditions": conditions}})
    await passed(api, picker)
    assert await picker.endpoints() == {}


async def test_k7_a_pod_that_is_being_deleted(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    # A finalizer keeps the pod there, as a kubelet does while its containers end; it stays Ready.
    manifest = pod("a", A)
    manifest["metadata"]["finalizers"] = ["tests/kept"]
    await api.create(manifest)
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.delete(pod("a"))
    await picker.has({})
    assert (await api.get(pod("a")))["status"]["conditions"][0]["status"] == "True"
    await api.patch(pod("a"), {"metadata": {"finalizers": None}})


async def test_k8_a_pod_without_an_address(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", ""))
    picker = await start()
    await picker.is_ready()
    assert await picker.endpoints() == {}
    await api.patch(pod("a"), {"status": {"podIP": A, "podIPs": [{"ip": A}]}}, "status")
    await picker.has(endpoints(("a", A)))


async def test_k9_k10_k11_k12_labels_of_a_pod(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.patch(pod("a"), {"metadata": {"labels": {"app": "x"}}})
    await picker.has({})
    await api.patch(pod("a"), {"metadata": {"labels": {"app": "m"}}})
    await picker.has(endpoints(("a", A)))
    told = [added("a-rank-0"), removed("a-rank-0"), added("a-rank-0")]
    assert await picker.changes() == told, "K9, K10"
    await api.patch(pod("a"), {"metadata": {"labels": {"color": "red"}}})
    await until(lambda: _label(picker, "color"), "the label is seen")
    told.append(updated("a-rank-0"))
    assert await picker.changes() == told, "K11"
    await api.patch(pod("a"), {"metadata": {"annotations": {"some": "text"}}})
    await passed(api, picker)
    assert await picker.changes() == [*told, added("last-rank-0"), removed("last-rank-0")], "K12"


async def _label(picker: Picker, key: str) -> str:
    value: str = (await picker.entries())["a-rank-0"]["labels"].get(key, "")
    return value


async def test_k13_a_pod_is_made_again_while_nobody_looks(api: Api, start: StartPicker, way: Way) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await way.cut()
    await api.delete(pod("a"))
    await api.create(pod("a", B))
    await way.mend()
    await picker.has(endpoints(("a", B)))
    assert (await picker.changes())[-1]["added"] == ["a-rank-0"]
    # The same address again, which only the UID tells apart.
    before = len(await picker.changes())
    await way.cut()
    await api.delete(pod("a"))
    await api.create(pod("a", B))
    await way.mend()
    await until(lambda: _more_changes(picker, before), "the other pod is seen")
    flat = [name for change in (await picker.changes())[before:] for name in (*change["removed"], *change["added"])]
    assert flat == ["a-rank-0", "a-rank-0"]


async def _more_changes(picker: Picker, before: int) -> bool:
    told = (await picker.changes())[before:]
    return any(change["added"] for change in told)


async def test_k14_k15_k16_k17_target_ports(api: Api, start: StartPicker) -> None:
    await api.create(pool(ports=(8000, 8001)))
    await api.create(pod("a", A))
    picker = await start()
    await picker.has({"a-rank-0": f"{A}:8000", "a-rank-1": f"{A}:8001"})
    told = [added("a-rank-0", "a-rank-1")]
    assert await picker.changes() == told, "K14"
    await api.patch(pool(), {"spec": {"targetPorts": [{"number": 8001}, {"number": 8000}]}})
    await picker.has({"a-rank-0": f"{A}:8001", "a-rank-1": f"{A}:8000"})
    told.append(replaced("a-rank-0", "a-rank-1"))
    assert await picker.changes() == told, "K17"
    await api.patch(pool(), {"spec": {"targetPorts": [{"number": 8001}, {"number": 8000}, {"number": 8002}]}})
    await picker.has({"a-rank-0": f"{A}:8001", "a-rank-1": f"{A}:8000", "a-rank-2": f"{A}:8002"})
    told.append(added("a-rank-2"))
    assert await picker.changes() == told, "K16"
    await api.patch(pool(), {"spec": {"targetPorts": [{"number": 8001}]}})
    await picker.has({"a-rank-0": f"{A}:8001"})
    told.append(removed("a-rank-1", "a-rank-2"))
    assert await picker.changes() == told, "K15"


async def test_k18_k19_k20_k21_k22_ports_that_a_pod_restricts(api: Api, start: StartPicker) -> None:
    key, legacy = "llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"
    await api.create(pool(ports=(8000, 8001)))
    for name, restricted in {
        "k18": {key: "8001"},
        "k19": {key: "8000, x, -1, 9999"},
        "k20": {key: ""},
        "k21": {legacy: "8001"},
        "k21both": {key: "8000", legacy: "8001"},
    }.items():
        await api.create(pod(name, A, annotations=restricted))
    picker = await start("-v=3")
    expected = {
        "k18-rank-1": f"{A}:8001",
        "k19-rank-0": f"{A}:8000",
        "k21-rank-1": f"{A}:8001",
        "k21both-rank-0": f"{A}:8000",
    }
    await picker.has(expected)
    await picker.says("annotation names no port of the pool")
    await api.patch(pod("k18"), {"metadata": {"annotations": {key: None}}})
    await picker.has(expected | {"k18-rank-0": f"{A}:8000"})


async def test_k23_another_selector(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels={"app": "n"}))
    await api.create(pod("c", C, labels={"app": "n"}, ready="False"))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.patch(pool(), {"spec": {"selector": {"matchLabels": {"app": "n"}}}})
    await picker.has(endpoints(("b", B)))
    assert (await picker.changes())[-1] == {"added": ["b-rank-0"], "updated": [], "removed": ["a-rank-0"]}
    await api.patch(pod("a"), {"metadata": {"labels": {"color": "red"}}})
    await api.patch(pod("c"), READY, "status")
    await picker.has(endpoints(("b", B), ("c", C)))


async def test_k24_a_gateway_writes_the_status_of_the_pool_often(api: Api, start: StartPicker) -> None:
    manifest = await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    lists = _lists(api)
    for number in range(1000):  # one after the other: those at once would only wait for each other
        await api.patch(manifest, {"status": {"parents": [{"number": number}]}}, "status")
    await passed(api, picker)
    assert _lists(api) == lists
    assert (await picker.changes())[:-2] == [added("a-rank-0")]


def _lists(api: Api) -> list[str]:
    """What pickers of the namespace have listed."""
    return [request.uri for request in api.cluster.audited() if request.verb == "list" and f"/{api.namespace}/" in request.uri]


async def test_k26_k27_the_pool_is_deleted_and_made_again(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.delete(pool())
    await picker.has({})
    await picker.is_ready(ready=False)
    assert await picker.health("liveness") == "SERVING"
    await api.create(pool())
    await picker.has(endpoints(("a", A)))
    await picker.is_ready()
    assert await picker.changes() == [added("a-rank-0"), removed("a-rank-0"), added("a-rank-0")]


async def test_k28_k29_other_pools_and_other_namespaces(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pool("other", labels={"app": "n"}, ports=(9000,)))
    await api.create(pod("a", A))
    await api.create(pod("b", B, labels={"app": "n"}))
    elsewhere = pod("c", C)
    elsewhere["metadata"]["namespace"] = "default"
    await api.create(elsewhere)
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.delete(elsewhere)


async def test_k36_pods_in_the_network_of_their_node(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A, host=A))
    await api.create(pod("b", A, host=A))
    picker = await start()
    await picker.has(endpoints(("a", A), ("b", A)))


async def test_k37_a_pod_with_an_ipv6_address(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", "::1"))
    picker = await start()
    await picker.has({"a-rank-0": "[::1]:8000"})


async def test_k39_many_pods_with_many_ports_come_as_one(api: Api, start: StartPicker) -> None:
    ports = tuple(range(8000, 8008))
    await several(api.create(pod(f"p{n}", f"127.1.{n // 250}.{n % 250 + 1}")) for n in range(500))
    await api.create(pool(ports=ports))
    picker = await start("--refresh-metrics-interval=1h")
    sizes = set()

    async def all_there() -> bool:
        sizes.add(len(await picker.endpoints()))
        return 4000 in sizes

    await until(all_there, "all endpoints are there")
    assert sizes <= {0, 4000}
    assert await picker.changes() == [{"added": ["4000"], "updated": [], "removed": []}]


async def test_a_container_that_is_started_anew_is_another_server(api: Api, start: StartPicker) -> None:
    def status(container: str, restarts: int, ready: str = "True") -> dict[str, Any]:
        """What the kubelet writes of the only container."""
        told = {"name": "vllm", "image": "none", "imageID": "", "containerID": f"containerd://{container}"}
        told |= {"ready": ready == "True", "restartCount": restarts}
        return {"status": {"containerStatuses": [told], "conditions": [{"type": "Ready", "status": ready}]}}

    await api.create(pool())
    first = pod("a", A)
    first["status"] |= status("x", 0)["status"]
    await api.create(first)
    await api.create(pod("b", B))
    picker = await start()
    await picker.has(endpoints(("a", A), ("b", B)))
    told = await picker.changes()

    async def tells(*more: dict[str, list[str]]) -> None:
        told.extend(more)
        await until(lambda: has_told(picker, told), f"plugins are told of {told}")

    await api.patch(pod("a", A), status("y", 1), "status")
    await tells(replaced("a-rank-0"))
    await api.patch(pod("a", A), status("y", 1, "False"), "status")
    await tells(removed("a-rank-0"))
    await api.patch(pod("a", A), status("z", 2, "False"), "status")
    await api.patch(pod("a", A), status("z", 2), "status")
    await tells(added("a-rank-0"))
    assert "model server was restarted" in picker.log


async def has_told(picker: Picker, changes: list[dict[str, list[str]]]) -> bool:
    return await picker.changes() == changes
