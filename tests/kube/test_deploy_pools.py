"""The chart with several pools: what it makes, and the picker started as it starts it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.load.process import free_port
from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool
from tests.kube.pool_deployments import Values, folder, grant, of_kind, rights, serve, text_of, values, write_files
from tests.kube.pools import add_namespace, within
from tests.kube.test_deploy import CHART, Chart, accept, by_kind, chart, container, helm_binary, options_of, template
from tests.kube.test_events import A, B, C, endpoints
from tests.kube.test_many_pools import targets

__all__ = ["chart", "folder", "helm_binary", "values"]
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
