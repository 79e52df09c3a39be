"""What else the cluster says of a pool: objectives, rewrites, its protocol, the older API group; pods without a pool."""

from __future__ import annotations

import pytest

from tests.kube import crds
from tests.kube.api import Api, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import legacy_pool, objective, pod, pool, rewrite
from tests.kube.picker import Picker
from tests.kube.test_events import A, B, endpoints


async def has_priority(picker: Picker, name: str, priority: int) -> None:
    """Wait until requests with this objective have this priority."""

    async def holds() -> bool:
        return await picker.priority_of(name) == str(priority)

    await until(holds, f"{name} has priority {priority}")


async def test_k27_objectives_outlive_the_pool(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    await api.create(objective("urgent", 5))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await has_priority(picker, "urgent", 5)
    await api.delete(pool())
    await picker.is_ready(ready=False)
    await api.create(pool())
    await picker.has(endpoints(("a", A)))
    assert await picker.priority_of("urgent") == "5"


async def test_objectives_change_and_go(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.create(objective("mine", 3))
    await has_priority(picker, "mine", 3)
    await api.patch(objective("mine", 3), {"spec": {"priority": 8}})
    await has_priority(picker, "mine", 8)
    await api.patch(objective("mine", 3), {"spec": {"poolRef": {"name": "other"}}})
    await has_priority(picker, "mine", 0)
    await api.patch(objective("mine", 3), {"spec": {"poolRef": {"name": "chat"}}})
    await has_priority(picker, "mine", 8)
    await api.delete(objective("mine", 3))
    await has_priority(picker, "mine", 0)


async def test_objects_of_both_groups(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    await api.create(objective("both", 1, group=crds.LEGACY_GROUP))
    await api.create(objective("old", 2, group=crds.LEGACY_GROUP))
    await api.create(objective("both", 3))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await has_priority(picker, "old", 2)
    await has_priority(picker, "both", 3)
    await picker.says("object of the legacy group ignored")
    await picker.says("object group is deprecated, use llm-d.ai")


@pytest.mark.parametrize("group", [crds.GROUP, crds.LEGACY_GROUP])
async def test_rewrites(api: Api, start: StartPicker, group: str) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start()
    await picker.has(endpoints(("a", A)))
    await api.create(rewrite("r", "llama", "llama-v2", group=group))

    async def rewritten() -> bool:
        model: str = (await picker.pick("llama")).json["model"]
        return model == "llama-v2"

    await until(rewritten, "the model is rewritten")
    assert (await picker.pick("other")).json["model"] == "other"


async def test_the_older_group_of_pools(api: Api, start: StartPicker) -> None:
    await api.create(legacy_pool(port=8100))
    await api.create(pool(ports=(8000,)))
    await api.create(pod("a", A))
    await api.create(objective("old", 2, pool_group=crds.LEGACY_GROUP))
    await api.create(objective("new", 3))
    picker = await start(f"--pool-group={crds.LEGACY_GROUP}")
    await picker.has(endpoints(("a", A), port=8100))
    await has_priority(picker, "old", 2)
    assert await picker.priority_of("new") == "0", "O3: of another group of pools"


async def test_a_selector_in_place_of_a_pool(api: Api, start: StartPicker) -> None:
    await api.create(pod("a", A, labels={"app": "m", "tier": "gold"}))
    await api.create(pod("b", B, labels={"app": "m", "tier": "tin"}))
    picker = await start(
        "--endpoint-selector=app in (m,n),tier!=tin",
        "--endpoint-target-ports=8000,8001",
        pool="",
        environ={"POD_NAME": "chat-epp-6b8f-x2"},
    )
    await picker.has({"a-rank-0": f"{A}:8000", "a-rank-1": f"{A}:8001"})
    assert await picker.health() == "SERVING"
    names = {labels["name"] for labels, _ in await picker.samples("llm_d_epp_ready_endpoints")}
    assert names == {"chat-epp"}


async def test_the_metrics_port_of_pools_with_one_port(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    picker = await start("--model-server-metrics-port=9400")

    async def asked(port: int) -> bool:
        scraping = (await picker.entries()).get("a-rank-0", {}).get("scraping") or {}
        return f":{port}" in (scraping.get("lastError") or "")

    await until(lambda: asked(9400), "the port of the flag is read")
    await api.patch(pool(), {"spec": {"targetPorts": [{"number": 8000}, {"number": 8001}]}})
    await until(lambda: asked(8000), "with two ports, each serves its own metrics")


PARSERS = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: random-picker
- type: endpoint-recorder
- type: {parser}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: random-picker
requestHandler:
  parsers:
  - pluginRef: {parser}
"""


@pytest.mark.parametrize(
    ("case", "parser", "protocol"),
    [("C107", "vllmgrpc-parser", "http"), ("L5", "vertexai-parser", "http")],
)
async def test_a_protocol_that_no_parser_reads(api: Api, start: StartPicker, case: str, parser: str, protocol: str) -> None:
    created = await api.create(pool(app_protocol=protocol))
    await api.create(pod("a", A))
    picker = await start(config=PARSERS.format(parser=parser))
    await picker.says("pool cannot be served")
    assert await picker.health() == "NOT_SERVING"
    assert await picker.health("liveness") == "SERVING"
    assert any(f"appProtocol {protocol}" in reason for reason in await picker.reasons())
    await api.patch(created, {"spec": {"appProtocol": "kubernetes.io/h2c"}})
    await picker.is_ready()


async def test_an_object_that_is_invalid(own_api: Api, own_start: StartPicker) -> None:
    lax = crds.objective(crds.GROUP)
    lax["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    await own_api.install(crds.pool())
    await own_api.install(lax)
    await own_api.create(pool())
    await own_api.create(pod("a", A))
    newer = objective("newer", 4)
    newer["spec"]["fieldOfANewerRelease"] = {"some": 1}
    await own_api.create(newer)
    await own_api.create(objective("mine", 3))
    picker = await own_start()
    await picker.has(endpoints(("a", A)))
    await has_priority(picker, "mine", 3)
    assert await picker.priority_of("newer") == "4"
    await own_api.patch(objective("mine", 3), {"spec": {"priority": "high"}})
    await picker.says("object of the cluster is invalid, its previous version stays")
    assert await picker.priority_of("mine") == "3"
