"""``epp doctor`` on a cluster: real objects, a real picker, rights that the API server judges."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.deploy.objects import Deployment, objects
from epp.doctor.cluster.look import check_view
from epp.errors import Severity
from tests.kube.api import Api, Object
from tests.kube.cluster import ADMIN_TOKEN
from tests.kube.conftest import StartPicker
from tests.kube.manifests import objective, pod, rewrite
from tests.kube.picker import write_kubeconfig
from tests.kube.test_deploy import CASES, Chart, by_kind, chart, helm_binary, manifests, other
from tests.unit.doctor.clusters import NOW, POOL_GROUP, Cluster
from tests.unit.doctor.clusters import pod as running

__all__ = ["chart", "helm_binary"]
CHECKOUT = Path(__file__).resolve().parents[2]
A, B = "10.0.0.1", "10.0.0.2"
NOT_HERE = {"DOC002", "PCK002"}
"""What these tests do not look at, and a machine that is busy."""
CHARTS = {name: arguments for name, arguments in CASES.items() if name != "standalone"}
"""Those with a pool."""
QUIET = {"KUB007"}
"""No gateway runs here that would write the pool's status."""


async def doctor(api: Api, folder: Path, *flags: str, token: str = "", pool: str = "chat") -> dict[str, list[dict[str, Any]]]:
    """Code → findings of the command, run as a user of the cluster; without a token, as the administrator."""
    kubeconfig = write_kubeconfig(folder / "doctor.kubeconfig", api.cluster, token=token or ADMIN_TOKEN)
    command = [
        *(sys.executable, "-m", "epp", "doctor", "--output=json", f"--pool-name={pool}", f"--pool-namespace={api.namespace}"),
        *(f"--kubeconfig={kubeconfig}", "--timeout=20s", *flags),
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(output):
        if each["code"] not in NOT_HERE:
            found.setdefault(each["code"], []).append(each)
    assert process.returncode == int(any(each["severity"] == "error" for every in found.values() for each in every)), found
    return found


@pytest.fixture
async def deployed(api: Api) -> dict[str, Object]:
    """What ``epp manifests`` prints, with the pods and EndpointSlices that controllers would make of it; by kind."""
    await api.install(other("HTTPRoute"))
    made = {each["kind"]: each for each in objects(Deployment("chat", namespace=api.namespace, gateway="g", replicas=2))}
    for each in made.values():
        await api.create(each)
    template = made["Deployment"]["spec"]["template"]
    for name in ("chat-epp-0", "chat-epp-1"):
        picker = pod(name, "10.0.1.1", labels=template["metadata"]["labels"])
        await api.create({**picker, "spec": template["spec"]})
    for name, address in (("a", A), ("b", B)):
        await api.create(pod(name, address, labels={"app": "chat"}))
    await api.create(endpoint_slice("10.0.1.1"))
    await api.create(lease(api.namespace, "chat-epp-0_1"))
    return made


def endpoint_slice(*addresses: str) -> Object:
    """The picker's, as its controller writes it."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "chat-epp-1", "labels": {"kubernetes.io/service-name": "chat-epp"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": list(addresses), "conditions": {"ready": True}}] if addresses else [],
        "ports": [{"port": 9002}],
    }


def lease(namespace: str, holder: str) -> Object:
    """The pickers', held by one that never renews: nobody can tell until its time is over."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 3600, "renewTime": "2099-01-01T00:00:00.000000Z"}
    metadata = {"name": f"epp-{namespace}-chat.llm-d.ai"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


async def test_what_epp_manifests_prints_is_found_right(api: Api, deployed: dict[str, Object], tmp_path: Path) -> None:
    assert (await doctor(api, tmp_path, "--picker=")).keys() == QUIET


async def test_a_set_up_that_is_broken(api: Api, deployed: dict[str, Object], tmp_path: Path) -> None:
    await api.patch(deployed["InferencePool"], {"spec": {"selector": {"matchLabels": {"app": "caht"}}}})
    await api.patch(deployed["Service"], {"spec": {"ports": [{"name": "grpc", "port": 9002, "targetPort": "grcp"}]}})
    await api.patch(deployed["Deployment"], {"spec": {"strategy": {"type": "RollingUpdate"}}})
    await api.patch(deployed["Role"], {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
    route = deployed["HTTPRoute"]["spec"]
    route["rules"][0]["backendRefs"][0]["name"] = "chta"
    await api.patch(deployed["HTTPRoute"], {"spec": route})
    await api.patch(endpoint_slice(), {"endpoints": []})
    await api.create(objective("urgent", 1, pool="chta"))
    await api.create(rewrite("newest", "a", "b"))
    found = await doctor(api, tmp_path, "--picker=")
    assert found.keys() - QUIET == {
        *("KUB015", "KUB016", "KUB031", "KUB050", "KUB051", "KUB054", "KUB071", "RBC001", "RBC002"),
    }
    assert "a has app=chat" in found["KUB031"][0]["message"]
    assert "did you mean 'chat'?" in found["KUB051"][0]["message"]
    assert found["KUB054"][0]["path"] == "InferenceObjective.llm-d.ai urgent"
    pods = next(each for each in found["RBC001"] if each["path"] == "pods")
    assert f"the service account {api.namespace}/chat-epp may not list, watch pods" in pods["message"]
    assert all(each["fix"] for every in found.values() for each in every)


POOLS = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerPools
pools:
- {name: chat, match: {authorities: [chat.example.com]}}
- {name: code, grpcPort: 9102}
- {name: more, endpoints: ["10.0.0.1:8000"], default: true}
"""


async def test_a_picker_of_several_pools(api: Api, tmp_path: Path) -> None:
    """What ``epp manifests`` makes of a pools file is found right for each pool, and a pool that is not in it is told."""
    await api.install(other("HTTPRoute"))
    made = made_of_pools(tmp_path / "pools.yaml", api.namespace)
    for each in made:
        await api.create(each)
    by = by_kind(made)
    template = by["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    for name in ("models-epp-0", "models-epp-1"):
        await api.create({**pod(name, "10.0.1.1", labels=labels), "spec": template["spec"]})
    for name, address in (("chat", A), ("code", B)):
        await api.create(pod(name, address, labels={"app": name}))
    slices = endpoint_slice("10.0.1.1")
    await api.create({**slices, "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "models-epp"}}})
    held = lease(api.namespace, "models-epp-0_1")
    await api.create({**held, "metadata": {"name": f"epp-{api.namespace}-models.llm-d.ai"}})
    quiet = QUIET | {"KUB050"}
    for name in ("chat", "code"):
        assert (await doctor(api, tmp_path, "--picker=", pool=name)).keys() == quiet, name
    shared = {"spec": {"endpointPickerRef": {"name": "models-epp", "port": {"number": 9002}}}}
    for name in ("code", "stray"):
        wrong = {**by["InferencePool"], "metadata": {"name": name}, "spec": {**by["InferencePool"]["spec"], **shared["spec"]}}
        await (api.patch(wrong, shared) if name == "code" else api.create(wrong))
    found = await doctor(api, tmp_path, "--picker=", pool="code")
    assert found.keys() - quiet - {"KUB035"} == {"KUB015"}
    assert "9102 (grpcPort of the pool in its pools file)" in found["KUB015"][0]["message"]
    found = await doctor(api, tmp_path, "--picker=", pool="stray")
    assert found.keys() - quiet - {"KUB035"} == {"KUB079"}
    assert f"{api.namespace}/chat, {api.namespace}/code" in found["KUB079"][0]["message"]
    await api.patch(by["ConfigMap"], {"data": {"pools.yaml": POOLS.replace("authorities", "authority")}})
    found = await doctor(api, tmp_path, "--picker=", pool="chat")
    assert found.keys() - quiet - {"KUB035"} == {"KUB082"}


def made_of_pools(file: Path, namespace: str) -> list[Object]:
    """The objects of a picker of several pools."""
    file.write_text(POOLS)
    done = manifests(f"--pools-file={file}", "--name=models", f"--namespace={namespace}", "--replicas=2")
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("arguments", CHARTS.values(), ids=CHARTS)
def test_what_the_chart_makes_is_found_right(chart: Chart, arguments: tuple[str, ...]) -> None:
    made = by_kind(chart.render(*arguments))
    cluster = Cluster(made["Deployment"]["spec"]["replicas"])
    cluster.pool = made["InferencePool"]
    cluster.pools[POOL_GROUP] = [cluster.pool]
    cluster.service, cluster.deployment = made["Service"], made["Deployment"]
    cluster.routes = [made["HTTPRoute"]] if "HTTPRoute" in made else []
    cluster.servers = [running("a", cluster.pool["spec"]["selector"]["matchLabels"], A)]
    template = cluster.deployment["spec"]["template"]
    cluster.pickers = [{**running("heimdall-0", template["metadata"]["labels"], B), "spec": template["spec"]}]
    cluster.lease = lease("default", "heimdall-0_1")
    cluster.changes["name"] = "heimdall"
    found = check_view(cluster.view(), NOW)
    assert [each for each in found if each.severity is not Severity.INFO] == []


async def test_a_pool_that_is_missing(api: Api, deployed: dict[str, Object], tmp_path: Path) -> None:
    await api.delete(deployed["InferencePool"])
    found = await doctor(api, tmp_path, "--picker=")
    assert found.keys() == {"KUB001", "KUB051"}


async def test_whoever_may_read_little_is_told_what_was_not_looked_at(
    api: Api, deployed: dict[str, Object], tmp_path: Path
) -> None:
    """The picker's own account, as in its pod: it knows its pool, pods and lease, and may ask for its own rights."""
    found = await doctor(api, tmp_path, "--picker=", token=await api.token("chat-epp"))
    assert found.keys() == QUIET | {"DOC003"}
    notes = " ".join(each["message"] for each in found["DOC003"])
    for kind in ("Services", "Deployments", "HTTPRoutes"):
        assert kind in notes
    assert "rights" not in notes
    nobody = await doctor(api, tmp_path, "--picker=", token=await api.token("nobody"))
    assert nobody.keys() == {"DOC003"}


async def test_rights_of_an_account_that_only_others_may_ask_for(api: Api, deployed: dict[str, Object], tmp_path: Path) -> None:
    account = f"--service-account={api.namespace}/nobody"
    assert (await doctor(api, tmp_path, "--picker=", account)).keys() == QUIET | {"RBC001", "RBC002"}
    refused = await doctor(api, tmp_path, "--picker=", account, token=await api.token("chat-epp"))
    assert "RBC001" not in refused
    assert any(f"the rights of the service account {api.namespace}/nobody" in e["message"] for e in refused["DOC003"])


async def test_in_a_pod_of_the_cluster_more_is_looked_at(
    api: Api, deployed: dict[str, Object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endpoints that no picker told of, and the port behind the Service, whose name is known in the cluster only."""
    await api.patch(pod("a"), {"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}, "status")
    await api.delete(pod("b"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "own", api.cluster, token=ADMIN_TOKEN)))
    found = await doctor(api, tmp_path, "--picker=", "--kubeconfig=")
    assert found.keys() == QUIET | {"ENG001", "CRT006"}
    assert found["ENG001"][0]["path"] == f"{api.namespace}/a-rank-0 (127.0.0.1:8000)"
    assert found["CRT006"][0]["file"] == f"chat-epp.{api.namespace}.svc:9002"


async def test_the_endpoints_of_a_running_picker_are_compared(
    api: Api, deployed: dict[str, Object], start: StartPicker, tmp_path: Path
) -> None:
    picker = await start(account="chat-epp")
    await picker.has({"a-rank-0": f"{A}:8000", "b-rank-0": f"{B}:8000"})
    url = f"--picker=http://127.0.0.1:{picker.ports['metrics_port']}"
    assert "KUB040" not in await doctor(api, tmp_path, url)
    [other_pool] = [each for each in objects(Deployment("other", namespace=api.namespace)) if each["kind"] == "InferencePool"]
    await api.create(other_pool)
    found = await doctor(api, tmp_path, url, "--pool-name=other")
    assert "a-rank-0" in found["KUB040"][0]["message"]


async def test_a_cluster_without_the_definitions(own_api: Api, tmp_path: Path) -> None:
    found = await doctor(own_api, tmp_path, "--picker=")
    assert found.keys() == {"KUB002", "DOC003"}
    assert [each["message"] for each in found["DOC003"]] == ["HTTPRoutes are not installed in this cluster"]


async def test_an_api_server_that_is_down(own_api: Api, tmp_path: Path) -> None:
    own_api.cluster.kill_server()
    found = await doctor(own_api, tmp_path, "--picker=")
    assert found.keys() == {"DOC001"}
    assert "the API server cannot be used" in found["DOC001"][0]["message"]
