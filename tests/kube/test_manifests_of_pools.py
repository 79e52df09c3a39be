"""``epp manifests --pools-file``: what it prints, and the picker started as that starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.load.process import free_port
from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool
from tests.kube.pool_deployments import checked, folder, grant, of_kind, replace_in, rights, serve, text_of, write_files
from tests.kube.pools import add_namespace, asks_for, within
from tests.kube.test_deploy import CHART, accept, by_kind, container, manifests, options_of, template
from tests.kube.test_events import A, B, C, endpoints
from tests.kube.test_many_pools import targets

__all__ = ["folder"]
Object = dict[str, Any]
FILE = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerPools
pools:
- name: chat
  configFile: chat.yaml
  shadowConfigFile: chat.yaml
  shadowShare: 0.5
  objects: [objects.yaml]
  match: {authorities: ["chat.example.com:8443"], headers: {X-Team: "on"}}
  maxBufferedBytes: 256Mi
- name: code
  grpcPort: 9102
- name: embeddings
  namespace: NAMESPACE
  group: inference.networking.x-k8s.io
  match: {authorities: ["*.embeddings.example.com"]}
- {name: labels, namespace: NAMESPACE-too, endpointSelector: app=l, targetPorts: [1, 2], match: {headers: {x-l: l}}}
- {name: fixed, endpoints: ["10.0.0.1:8000,tier=gold"], default: true}
"""
SAME = ("chat", "chat")
OBJECTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: urgent}
spec: {priority: 7, poolRef: {name: chat}}
"""


@pytest.fixture
def source(api: Api, tmp_path: Path) -> Path:
    """A pools file with everything."""
    made = tmp_path / "source"
    made.mkdir()
    (made / "chat.yaml").write_text((CHART.parents[1] / "manifests/config.yaml").read_text())
    (made / "objects.yaml").write_text(OBJECTS)
    file = made / "models.yaml"
    file.write_text(FILE.replace("NAMESPACE", f"{api.namespace}-other"))
    return file


async def test_manifests_of_several_pools(api: Api, source: Path, folder: Path) -> None:
    other = f"{api.namespace}-other"
    for name in (other, f"{other}-too"):
        await add_namespace(api, name, api.namespace, has_rights=False)
    words = (
        f"--pools-file={source}",
        "--name=models",
        f"--namespace={api.namespace}",
        "--replicas=2",
        "--gateway=g",
        "--port=8001",
    )
    done = manifests(*words)
    assert done.returncode == 0, done.stderr
    assert f"the InferencePool {other}/embeddings of inference.networking.x-k8s.io is not made here" in done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    await accept(api, objects)
    options = options_of(container(objects, "epp")["args"])
    assert (options.pools_file, options.lease_name) == ("/config/pools.yaml", f"epp-{api.namespace}-models.llm-d.ai")
    assert options.watch_config_file
    assert options.ha_enable_leader_election
    before, after = checked(source), write_files(objects, folder)
    unplaced = ("config_file", "shadow_config_file", "objects")
    for was, becomes in zip(before.pools, after.pools, strict=True):
        for name in was.__dataclass_fields__:
            if name not in unplaced:
                assert getattr(was, name) == getattr(becomes, name), (was.name, name)
    chat = after.pools[0]
    for text, file in ((source.parent / "chat.yaml", chat.config_file), (source.parent / "objects.yaml", chat.objects[0])):
        assert text_of(text) == text_of(file)
    assert text_of(chat.shadow_config_file) == text_of(chat.config_file)
    made = of_kind(objects, "InferencePool")
    assert {name: found["spec"]["endpointPickerRef"]["port"]["number"] for name, found in made.items()} == {
        "chat": 9002,
        "code": 9102,
    }
    assert made["code"]["spec"]["selector"] == {"matchLabels": {"app": "code"}}
    assert made["code"]["spec"]["targetPorts"] == [{"number": 8001}]
    service = {port["port"] for port in by_kind(objects)["Service"]["spec"]["ports"]}
    assert service == {9002, 9102, 9090}
    roles = {role["metadata"]["namespace"]: role for role in objects if role["kind"] == "Role"}
    assert roles.keys() == {api.namespace, other, f"{other}-too"}
    assert ("inferencepools", "list") not in rights(roles[f"{other}-too"])
    (named,) = [rule["apiGroups"] for rule in roles[other]["rules"] if rule["resources"] == ["inferencepools"]]
    assert named == ["inference.networking.x-k8s.io"]
    routes = of_kind(objects, "HTTPRoute")
    assert routes["chat"]["spec"]["hostnames"] == ["chat.example.com"]
    assert routes["chat"]["spec"]["rules"][0]["matches"][0]["headers"] == [{"type": "Exact", "name": "x-team", "value": "on"}]
    assert "hostnames" not in routes["code"]["spec"]


def test_what_a_change_of_the_pools_file_does(api: Api, source: Path) -> None:
    def made(*words: str) -> Object:
        done = manifests(f"--pools-file={source}", *words)
        return template(list(yaml.safe_load_all(done.stdout)))

    hot, restart = made(), made("--config-reload=restart")
    assert "--watch-config-file" not in restart["spec"]["containers"][0]["args"]
    replace_in(source, "256Mi", "512Mi")
    assert (made() == hot, made("--config-reload=restart") == restart) == (True, False)
    replace_in(source, "9102", "9109")
    assert made() != hot


async def test_the_picker_starts_as_the_manifests_start_it(api: Api, source: Path, start: StartPicker, folder: Path) -> None:
    other = f"{api.namespace}-other"
    for name in (other, f"{other}-too"):
        await add_namespace(api, name, api.namespace, has_rights=False)
    own = free_port()
    replace_in(source, "9102", str(own))
    replace_in(source, "  group: inference.networking.x-k8s.io\n", "")
    done = manifests(f"--pools-file={source}", "--name=models", f"--namespace={api.namespace}")
    objects = list(yaml.safe_load_all(done.stdout))
    await grant(api, objects)
    await api.create(pod("a", A, labels={"app": "chat"}))
    await api.create(pod("b", B, labels={"app": "code"}))
    await api.create(within(other, pool("embeddings")))
    await api.create(within(other, pod("c", C)))
    await api.create(within(f"{other}-too", pod("l", C, labels={"app": "l"})))
    write_files(objects, folder)
    picker = await serve(api, start, objects, folder, "models-epp", "epp")
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B)), pool="code")
    await picker.has(endpoints(("c", C)), pool="embeddings")
    await picker.has({"l-rank-0": f"{C}:1", "l-rank-1": f"{C}:2"}, pool="labels")
    asked = {":authority": "chat.example.com:8443", "x-team": "on"}
    assert (await picker.pick(headers=asked)).target == f"{A}:8000"
    assert (await picker.pick(headers=asks_for("other"))).target == "10.0.0.1:8000"
    assert await targets(picker, "code", own) == f"{B}:8000"
    assert '"level":"error"' not in picker.log
    assert "forbidden" not in picker.log


@pytest.mark.parametrize(
    ("words", "change", "status", "problem"),
    [
        (("--pool=chat",), SAME, 2, "not allowed with"),
        (("--config=x",), SAME, 2, "each pool of --pools-file names its own"),
        (("--label=a=b",), SAME, 2, "--label"),
        (("--name=Models",), SAME, 2, "is no name that a Service can begin with"),
        ((), ("9102", "9003"), 2, "is one of the picker's"),
        ((), ("9102", "0"), 2, "a Service needs a port that is known"),
        (("--gateway=g",), ("- name: code", "- {name: more, grpcPort: 9107}\n- name: code"), 2, "more and code would all take"),
        ((), ("name: code", "name: Code"), 1, "is no name of a pool"),
        ((), ("chat.yaml", "nowhere.yaml"), 1, "nowhere.yaml"),
        ((), ("objects.yaml", "nowhere.yaml"), 1, "nowhere.yaml"),
    ],
)
def test_what_manifests_of_pools_cannot_be_made_of(
    api: Api, source: Path, words: tuple[str, ...], change: tuple[str, str], status: int, problem: str
) -> None:
    replace_in(source, *change)
    done = manifests(f"--pools-file={source}", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert problem in done.stderr


def test_a_name_needs_a_pools_file() -> None:
    done = manifests("--pool=chat", "--name=models")
    assert done.returncode == 2
    assert "--name" in done.stderr
