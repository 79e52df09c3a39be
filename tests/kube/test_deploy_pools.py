"""Chart and manifests of a picker of several pools: what they make, and the picker started as they start it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.load.process import free_port
from epp.commands.check_pools import check_pools
from epp.config.loaded import ConfigSource, LoadFlags
from epp.pools.load import PoolsFile, load_pools
from epp.process.plugin_types import build_registry
from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool
from tests.kube.picker import Picker
from tests.kube.pools import add_namespace, asks_for, within
from tests.kube.test_deploy import (
    CHART,
    Chart,
    accept,
    by_kind,
    chart,
    container,
    helm_binary,
    manifests,
    options_of,
    template,
)  # fmt: skip
from tests.kube.test_events import A, B, C, endpoints
from tests.kube.test_many_pools import targets

__all__ = ["chart", "helm_binary"]
Object = dict[str, Any]
QUEUE = {"plugins": [{"type": "queue-scorer"}]}
CHAT = {
    "name": "chat", "config": QUEUE, "match": {"authorities": ["chat.example.com"]}, "maxBufferedBytes": "256Mi",
    "inferenceObjectives": [{"name": "urgent", "priority": 10}],
}  # fmt: skip
CODE = {
    "name": "code", "grpcPort": 9102, "inferencePool": {"matchLabels": {"app": "code"}, "targetPorts": [{"number": 9000}]},
    "route": {"models": ["a", "b"]},
}  # fmt: skip
FIXED = {"name": "fixed", "endpoints": ["10.0.0.1:8000"], "default": True}
BY_LABELS = {"name": "labels", "namespace": "elsewhere", "endpointSelector": "app=l", "targetPorts": [8000], "grpcPort": 9103}
READS = {"get", "list", "watch"}


@pytest.fixture
def values(tmp_path: Path) -> Values:
    """Values files."""
    return Values(tmp_path)


class Values:
    """Writes values files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *pools: Object, **more: object) -> str:
        """The argument that names a file with these pools."""
        file = self._folder / "values.yaml"
        file.write_text(yaml.safe_dump({"pools": list(pools), **more}))
        return f"--values={file}"


def write_files(objects: list[Object], folder: Path) -> PoolsFile:
    """The ConfigMap as a kubelet shows it: ``..data`` leads to the folder in use, and is exchanged at once."""
    (data,) = [found["data"] for found in objects if found["kind"] == "ConfigMap" and "pools.yaml" in found["data"]]
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir(parents=True)
    for key, text in data.items():
        (version / key).write_text(text)
        link = folder / key
        if not link.is_symlink():
            link.symlink_to(f"..data/{key}")
    unfinished = folder / "..unfinished"
    unfinished.symlink_to(version.name)
    unfinished.rename(folder / "..data")
    return checked(folder / "pools.yaml")


def checked(file: Path) -> PoolsFile:
    """The pools file, which can be served with all that it names."""
    found = check_pools(ConfigSource.from_file(str(file)), build_registry()[0], LoadFlags(for_serve=True))
    assert found.is_valid, found.all_findings
    return load_pools(ConfigSource.from_file(str(file)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the ConfigMap is mounted."""
    made = tmp_path / "config"
    made.mkdir()
    return made


def text_of(file: str | Path) -> str:
    """What is in a file."""
    return Path(file).read_text()


def replace_in(file: Path, old: str, new: str) -> None:
    """Change a file."""
    file.write_text(file.read_text().replace(old, new))


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Name → object."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def rights(role: Object) -> set[tuple[str, str]]:
    """Resources and verbs."""
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


async def test_the_api_server_takes_a_chart_of_several_pools(api: Api, chart: Chart, values: Values, folder: Path) -> None:
    other = f"{api.namespace}-other"
    await add_namespace(api, other, api.namespace, has_rights=False)
    pools = (CHAT, CODE, FIXED, {**BY_LABELS, "namespace": other})
    more = {"networkPolicy": {"enabled": True}, "serviceMonitor": {"enabled": True}, "poolPodMonitor": {"enabled": True}}
    objects = chart.render(values(*pools, gateway={"name": "g"}, replicas=2, **more), namespace=api.namespace)
    await accept(api, objects)
    options = options_of(container(objects)["args"])
    assert options.pools_file == "/config/pools.yaml"
    assert options.watch_config_file
    assert (options.config_file, options.pool_name) == ("", "")
    assert options.lease_name == f"epp-{api.namespace}-heimdall.llm-d.ai"
    file = write_files(objects, folder)
    assert [entry.name for entry in file.pools] == ["chat", "code", "fixed", "labels"]
    chat, code, _, labels = file.pools
    assert (text_of(chat.config_file).count("queue-scorer"), chat.max_buffered_bytes) == (1, 256 << 20)
    assert (code.grpc_port, labels.namespace, labels.target_ports) == (9102, other, (8000,))
    made = of_kind(objects, "InferencePool")
    assert made.keys() == {"chat", "code"}
    assert made["chat"]["spec"]["endpointPickerRef"] == {"name": "heimdall", "port": {"number": 9002}}
    assert made["code"]["spec"]["endpointPickerRef"] == {"name": "heimdall", "port": {"number": 9102}}
    assert made["chat"]["spec"]["selector"] == {"matchLabels": {"mif.moreh.io/pool": "chat"}}
    assert of_kind(objects, "InferenceObjective")["urgent"]["spec"]["poolRef"]["name"] == "chat"
    routes = of_kind(objects, "HTTPRoute")
    assert routes["heimdall-chat"]["spec"]["hostnames"] == ["chat.example.com"]
    matches = routes["heimdall-code"]["spec"]["rules"][0]["matches"]
    assert [match["headers"][0]["value"] for match in matches] == ["a", "b"]
    assert routes.keys() == {"heimdall-chat", "heimdall-code"}


def test_ports_of_pools_are_open(chart: Chart, values: Values) -> None:
    objects = chart.render(values(CHAT, CODE, FIXED, BY_LABELS, networkPolicy={"enabled": True}))
    service = {port["port"]: port["targetPort"] for port in by_kind(objects)["Service"]["spec"]["ports"]}
    declared = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    allowed = {port["port"] for rule in by_kind(objects)["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]}
    for port in (9102, 9103):
        assert declared[service[port]] == port
        assert service[port] in allowed
    assert all(target in declared for target in service.values())


def test_rights_are_given_where_pods_are_followed(chart: Chart, values: Values) -> None:
    other = {"name": "embeddings", "namespace": "other", "grpcPort": 9104}
    roles = {
        (role["metadata"]["namespace"], role["metadata"]["name"]): rights(role)
        for role in chart.render(values(CHAT, CODE, FIXED, BY_LABELS, other, replicas=2))
        if role["kind"] == "Role"
    }
    assert roles.keys() == {("default", "heimdall"), ("elsewhere", "default-heimdall"), ("other", "default-heimdall")}
    reads = roles["default", "heimdall"]
    assert ("leases", "update") in reads
    assert ("inferencepools", "watch") in reads
    assert roles["elsewhere", "default-heimdall"] == {
        *(("pods", verb) for verb in READS), ("events", "create"), ("events", "patch"),
    }  # fmt: skip
    assert ("inferencepools", "watch") in roles["other", "default-heimdall"]
    assert not {pair for pair in roles["other", "default-heimdall"] if pair[0] == "leases"}
    only_fixed = chart.render(values(FIXED))
    assert not of_kind(only_fixed, "Role"), "nothing of the cluster is read"
    bound = of_kind(chart.render(values(BY_LABELS)), "RoleBinding")
    assert [(name, found["metadata"]["namespace"]) for name, found in bound.items()] == [("default-heimdall", "elsewhere")]
    assert bound["default-heimdall"]["subjects"] == [{"kind": "ServiceAccount", "name": "heimdall", "namespace": "default"}]


def test_what_a_change_of_pools_does(chart: Chart, values: Values) -> None:
    """Hot is the default: one document would restart all. What is bound once takes a restart nevertheless."""

    def made(*pools: Object, **more: object) -> tuple[Object, Object]:
        objects = chart.render(values(*pools, **more))
        return template(objects), by_kind(objects)["ConfigMap"]["data"]

    changed = {**CHAT, "config": {"plugins": [{"type": "kv-cache-utilization-scorer"}]}}
    wider = {**CODE, "maxBufferedBytes": "1Gi"}
    assert made(CHAT, CODE)[0] == made(changed, CODE)[0]
    assert made(CHAT, CODE)[1] != made(changed, CODE)[1]
    assert made(CHAT, CODE)[0] != made(CHAT, {**CODE, "grpcPort": 9109})[0]
    assert made(CHAT, CODE)[0] != made(CHAT, wider)[0]
    assert made(CHAT, CODE)[0] == made(CHAT | {"maxBufferedBytes": "1Gi"}, CODE)[0]
    assert "annotations" not in made(CHAT)[0]["metadata"]
    restart = {"configReload": "restart"}
    assert made(CHAT, CODE, **restart)[0] != made(changed, CODE, **restart)[0]
    words = made(CHAT, CODE, **restart)[0]["spec"]["containers"][0]["args"]
    assert not options_of(words).watch_config_file


def test_series_of_pools_keep_their_label(chart: Chart, values: Values) -> None:
    """The picker says of which pool a series is: a label of the target would hide that."""
    objects = chart.render(values(CHAT, CODE, serviceMonitor={"enabled": True}, poolPodMonitor={"enabled": True}))
    (scraped,) = by_kind(objects)["ServiceMonitor"]["spec"]["endpoints"]
    assert {entry["targetLabel"] for entry in scraped["relabelings"]} == {"job"}
    pods = of_kind(objects, "PodMonitor")
    assert pods.keys() == {"heimdall-chat", "heimdall-code"}
    (code,) = pods["heimdall-code"]["spec"]["podMetricsEndpoints"]
    assert code["portNumber"] == 9000
    assert {entry.get("targetLabel"): entry.get("replacement") for entry in code["relabelings"]}["pool"] == "code"
    assert pods["heimdall-code"]["spec"]["selector"] == {"matchLabels": {"app": "code"}}


def test_several_pools_beside_an_envoy(chart: Chart, values: Values, folder: Path) -> None:
    by_team = {
        "name": "team",
        "match": {"headers": {"x-team": "a"}},
        "inferencePool": {"matchLabels": {"app": "t", "tier": "b"}},
    }
    objects = chart.render(values(CHAT, by_team, FIXED, mode="standalone"))
    assert not options_of(container(objects)["args"]).secure_serving
    chat, team, fixed = write_files(objects, folder).pools
    assert (chat.endpoint_selector, chat.target_ports) == ("mif.moreh.io/pool=chat", (8000,))
    assert (team.endpoint_selector, team.match.headers) == ("app=t,tier=b", (("x-team", "a"),))
    assert fixed.endpoint_selector == ""
    assert not of_kind(objects, "InferencePool")
    assert ("inferencepools", "get") not in rights(by_kind(objects)["Role"])


@pytest.mark.parametrize(
    ("pools", "more", "problem"),
    [
        ([CHAT, CHAT], {}, "the name chat is given twice"),
        ([{**CODE, "grpcPort": 9003}], {}, "grpcPort 9003 is that of containerPorts.grpcHealth"),
        ([{**CODE, "grpcPort": 9002}], {}, "grpcPort 9002 is that of"),
        ([CODE, {**CODE, "name": "b"}], {}, "grpcPort 9102 is that of the pool code"),
        ([CODE], {"mode": "standalone"}, "choose by match"),
        ([CHAT], {"config": QUEUE}, "config concerns one pool"),
        ([CHAT], {"featureGates": ["flowControl"]}, "featureGates concerns one pool"),
        ([CHAT], {"inferenceObjectives": [{"name": "a", "priority": 1}]}, "inferenceObjectives concerns one pool"),
        ([CHAT], {"args": ["--pools-file=/config/pools.yaml"]}, "give --watch-config-file there"),
        ([{**CHAT, "namespace": "other", "inferencePool": {"create": True}}], {}, "a Service of its own namespace"),
        (
            [{"name": "a", "grpcPort": 9102}, {"name": "b", "grpcPort": 9103}],
            {"gateway": {"name": "g"}},
            "would both take all requests",
        ),
        ([{**CODE, "default": True}], {}, "match and default are never asked"),
        ([CHAT, {"name": "b"}], {}, "no request would reach it"),
        ([FIXED, {**FIXED, "name": "b"}], {}, "the pool fixed is the default already"),
        ([{**CHAT, "configFile": "x"}], {}, "configFile"),
        ([{"match": {}}], {}, "name"),
        ([{"name": "readiness"}], {}, "name"),
        ([{"name": "Chat"}], {}, "name"),
        ([{**CODE, "grpcPort": 0}], {}, "grpcPort"),
        ([{**CHAT, "match": {"authority": "a"}}], {}, "authority"),
    ],
)
def test_pools_are_checked(chart: Chart, values: Values, pools: list[Object], more: Mapping[str, object], problem: str) -> None:
    done = chart.run("template", "r", str(CHART), "--kube-version", "1.36", values(*pools, **more))
    assert done.returncode != 0
    assert problem in done.stderr


def test_what_the_chart_tells_of_pools(chart: Chart, values: Values, tmp_path: Path) -> None:
    """NOTES are shown at an installation only: a copy of the chart has them in an object."""
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    text = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/_notes.tpl").write_text(f'{{{{- define "notes" }}}}{text}{{{{- end }}}}')
    (copy / "templates/notes.yaml").write_text('kind: Notes\ntext: {{ include "notes" . | quote }}\n')

    def notes(*pools: Object, **more: object) -> str:
        done = chart.run("template", "r", str(copy), "--kube-version", "1.36", values(*pools, **more))
        assert done.returncode == 0, done.stderr
        (found,) = [each["text"] for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "Notes"]
        return str(found)

    told = notes(CHAT, CODE, FIXED, {"name": "embeddings", "namespace": "other", "grpcPort": 9104})
    assert told.startswith("r serves 4 pools:\n"), told
    assert "  chat: chat.example.com at port 9002\n" in told
    assert "  code: all that comes to port 9102\n" in told
    assert "  fixed: at port 9002, and what no pool is meant by\n" in told
    assert "  embeddings of other: all that comes to port 9104\n" in told
    assert "cannot name a Service of another namespace" in told
    assert "taken over by the pods that run" in told
    assert "taken over" not in notes(CHAT, configReload="restart")
    assert notes().startswith("r picks among the pods with the labels\n  mif.moreh.io/pool: r\n")


# ── the picker, as they start it ──


async def grant(api: Api, objects: list[Object]) -> None:
    """The rights and the pools of a chart or of manifests, and nothing else."""
    await api.delete({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "epp"}})
    for found in objects:
        if found["kind"] in ("Role", "RoleBinding", "InferencePool", "ServiceAccount"):
            await api.create(found)


async def serve(api: Api, start: StartPicker, objects: list[Object], folder: Path, account: str, name: str = "main") -> Picker:
    """A picker by the command line of the objects, on ports that the system chooses."""
    ours = ("--grpc-port", "--grpc-health-port", "--metrics-port", "--pools-file")
    arguments = [word for word in container(objects, name)["args"] if not word.startswith(ours)]
    environ = {"NAMESPACE": api.namespace}
    return await start(*arguments, pool="", pools_file=folder / "pools.yaml", account=account, environ=environ)


async def test_the_picker_starts_as_the_chart_starts_it(
    api: Api, chart: Chart, values: Values, start: StartPicker, folder: Path
) -> None:
    """Pools of two namespaces, by the rights of the chart and its lease; and a ConfigMap that is exchanged below it."""
    other = f"{api.namespace}-other"
    await add_namespace(api, other, api.namespace, has_rights=False)
    own = {**CODE, "grpcPort": free_port()}
    far = {"name": "embeddings", "namespace": other, "match": {"authorities": ["embeddings.example.com"]}}
    options = {"fullnameOverride": "models", "replicas": 2}
    objects = chart.render(values(CHAT, own, far, **options), namespace=api.namespace)
    await grant(api, objects)
    await api.create(within(other, pool("embeddings")))
    await api.create(within(other, pod("c", C)))
    await api.create(pod("a", A, labels={"mif.moreh.io/pool": "chat"}))
    await api.create(pod("b", B, labels={"app": "code"}))
    write_files(objects, folder)
    picker = await serve(api, start, objects, folder, "models")
    await picker.has(endpoints(("a", A)), pool="chat")
    await picker.has(endpoints(("b", B), port=9000), pool="code")
    await picker.has(endpoints(("c", C)), pool="embeddings")
    for name in ("readiness", "chat", "code", "embeddings"):
        await picker.is_ready(service=name)
    assert picker.ports["grpc_port/code"] == own["grpcPort"]
    assert await targets(picker, "code", own["grpcPort"]) == f"{B}:9000"
    leases = (await api.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"))["items"]
    assert [lease["metadata"]["name"] for lease in leases] == [f"epp-{api.namespace}-models.llm-d.ai"]
    # another document of one pool, and a new pool with its document, in one exchange
    changed = {**CHAT, "config": {"plugins": [{"type": "kv-cache-utilization-scorer"}]}}
    more = {"name": "more", "config": QUEUE, "match": {"authorities": ["more.example.com"]}}
    later = chart.render(values(changed, own, far, more, **options), namespace=api.namespace)
    await api.create(of_kind(later, "InferencePool")["more"])
    await api.create(pod("m", A, labels={"mif.moreh.io/pool": "more"}))
    write_files(later, folder)
    await picker.says("pools file reloaded")
    await picker.says("configuration reloaded")
    await picker.has(endpoints(("m", A)), pool="more")
    _, page = await picker.page("/pools/chat/debug/config")
    assert b"kv-cache-utilization-scorer" in page
    assert await targets(picker, "more") == f"{A}:8000"
    assert '"level":"error"' not in picker.log
    assert "forbidden" not in picker.log


# ── manifests ──

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
