"""Chart and manifests: what they make is accepted by the API server, and the picker starts by the command line they give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.commands.flags import parse
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadFlags
from epp.process.options import Options
from epp.process.plugin_types import build_registry
from tests.kube import crds
from tests.kube.api import Api, ApiError
from tests.kube.build import helm
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod
from tests.kube.test_events import A, endpoints

ROOT = Path(__file__).parents[2]
CHART = ROOT / "config/charts/endpoint-picker"
VALUES = Path(__file__).parent / "values"
Object = dict[str, Any]
OTHERS = {
    "HTTPRoute": ("gateway.networking.k8s.io", "v1", "httproutes"),
    "DestinationRule": ("networking.istio.io", "v1", "destinationrules"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "servicemonitors"),
    "PodMonitor": ("monitoring.coreos.com", "v1", "podmonitors"),
}
"""Kinds of other projects, whose definitions the tests do not have: any object is one of them."""


@pytest.fixture(scope="session")
def helm_binary(request: pytest.FixtureRequest) -> Path:
    """Helm; without it the test is skipped, or fails under ``--require=kube``."""
    if not helm().exists():
        problem = f"{helm()} is not there: run `make kube`"
        if "kube" in request.config.getoption("--require").split(","):
            pytest.fail(problem)
        pytest.skip(problem)
    return helm()


class Chart:
    """The chart, rendered."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm."""
        return subprocess.run([self._binary, *arguments], capture_output=True, text=True, check=False)

    def render(self, *arguments: str, release: str = "heimdall", namespace: str = "default") -> list[Object]:
        """The objects of a release."""
        command = ["template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.36", *arguments]
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]


@pytest.fixture
def chart(helm_binary: Path) -> Chart:
    """The chart."""
    return Chart(helm_binary)


def by_kind(objects: list[Object]) -> dict[str, Object]:
    """Kind → object, where there is one of each; of several the last."""
    return {found["kind"]: found for found in objects}


def container(objects: list[Object], name: str = "main") -> Object:
    """A container of the deployment."""
    pod_spec = by_kind(objects)["Deployment"]["spec"]["template"]["spec"]
    (found,) = [each for each in pod_spec["containers"] if each["name"] == name]
    return found


def options_of(arguments: list[str], environ: Mapping[str, str] | None = None) -> Options:
    """The picker's options of a command line, which must be a good one."""
    return parse(arguments, environ or {}).options


def check_config(text: str) -> None:
    """The document can be served."""
    registry, _ = build_registry()
    load_config(ConfigSource.from_text(text), registry, LoadFlags(for_serve=True, strict=False))


def other(kind: str) -> Object:
    """A definition of a kind that takes any object."""
    group, version, plural = OTHERS[kind]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests only"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


async def accept(api: Api, objects: list[Object]) -> None:
    """The API server would take them all: strictly, and without writing any."""
    for kind in OTHERS:
        await api.install(other(kind))
    for found in objects:
        path = api.path(found, collection=True) + "?dryRun=All&fieldValidation=Strict"
        try:
            await api.call("POST", path, found)
        except ApiError as error:
            raise AssertionError(f"{found['kind']} {found['metadata']['name']} is refused: {error}") from error


EVERYTHING = (
    "--set=gateway.name=g,serviceMonitor.enabled=true,poolPodMonitor.enabled=true,networkPolicy.enabled=true,metricsAuth=true",
    "--set=tracing.enabled=true,udsTokenizer.enabled=true,udsTokenizer.image.repository=t,renderSidecar.enabled=true",
    "--set=renderSidecar.model=m,inferenceObjectives[0].name=urgent,inferenceObjectives[0].priority=10,podLabels.team=a",
    "--set=config.plugins[0].type=queue-scorer,featureGates[0]=flowControl,inferencePool.failureMode=FailOpen",
)
CASES = {
    "defaults": (),
    "everything": EVERYTHING,
    "two replicas": ("--set=replicas=2",),
    "two that work": ("--set=replicas=2,leaderElection=false",),
    "hot": ("--set=configReload=hot,config.plugins[0].type=queue-scorer",),
    "standalone": ("--set=mode=standalone,inferencePool.matchLabels.app=vllm,networkPolicy.enabled=true",),
}


def test_the_chart_is_sound(chart: Chart) -> None:
    done = chart.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
async def test_the_api_server_takes_the_chart(api: Api, chart: Chart, arguments: tuple[str, ...]) -> None:
    objects = chart.render(*arguments, namespace=api.namespace)
    await accept(api, objects)
    options_of(container(objects)["args"])


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_a_chart_gives_the_least_rights(chart: Chart, arguments: tuple[str, ...]) -> None:
    objects = chart.render(*arguments)
    kinds = {found["kind"] for found in objects}
    assert ("ClusterRole" in kinds) == (arguments is EVERYTHING), "only those who review tokens"
    rights = {
        (resource, verb)
        for rule in by_kind(objects)["Role"]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    reads = {"get", "list", "watch"}
    assert {pair for pair in rights if pair[1] not in reads} <= {
        ("events", "create"), ("events", "patch"), ("leases", "create"), ("leases", "update"),
    }  # fmt: skip
    assert (("leases", "create") in rights) == ("--ha-enable-leader-election" in container(objects)["args"])
    assert (("inferencepools", "watch") in rights) == ("standalone" not in str(arguments))


def test_replicas(chart: Chart) -> None:
    elected = chart.render("--set=replicas=2")
    assert "--ha-enable-leader-election" in container(elected)["args"]
    assert by_kind(elected)["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert "PodDisruptionBudget" not in by_kind(elected), "its follower is never ready"
    working = chart.render("--set=replicas=2,leaderElection=false")
    assert "--ha-enable-leader-election" not in container(working)["args"]
    assert by_kind(working)["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def template(objects: list[Object]) -> Object:
    """What the pods are made of."""
    found: Object = by_kind(objects)["Deployment"]["spec"]["template"]
    return found


def document(scorer: str) -> str:
    """Arguments for a document."""
    return f"--set=config.plugins[0].type={scorer}"


def test_a_changed_document_is_a_new_pod(chart: Chart) -> None:
    before, after = (chart.render(document(scorer)) for scorer in ("queue-scorer", "kv-cache-utilization-scorer"))
    assert template(before) != template(after)
    assert not options_of(container(before)["args"]).watch_config_file


def test_a_changed_document_is_taken_over(chart: Chart) -> None:
    hot = "--set=configReload=hot"
    before, after = (chart.render(hot, document(scorer)) for scorer in ("queue-scorer", "kv-cache-utilization-scorer"))
    assert by_kind(before)["ConfigMap"] != by_kind(after)["ConfigMap"]
    assert template(before) == template(after)
    assert "annotations" not in template(before)["metadata"]
    assert template(chart.render(hot, document("queue-scorer"), "--set=podAnnotations.a=b"))["metadata"]["annotations"] == {
        "a": "b"
    }
    options = options_of(container(before)["args"])
    assert options.watch_config_file
    (mount,) = [mount for mount in container(before)["volumeMounts"] if mount["name"] == "config"]
    assert options.config_file == f"{mount['mountPath']}/config.yaml", "a directory: what is mounted by subPath never changes"
    assert "subPath" not in mount
    built_in = chart.render(hot)
    assert not options_of(container(built_in)["args"]).watch_config_file, "there is no file"


def test_a_command_line_of_its_own_must_follow_the_document(chart: Chart) -> None:
    words = ("template", "r", str(CHART), "--kube-version", "1.36", "--set=configReload=hot", document("queue-scorer"))
    done = chart.run(*words, "--set=args={--pool-name=p}")
    assert done.returncode != 0
    assert "give --watch-config-file there" in done.stderr
    assert chart.run(*words, "--set=args={--config-file=/config/config.yaml,--watch-config-file}").returncode == 0


def test_standalone(chart: Chart) -> None:
    objects = chart.render("--set=mode=standalone,inferencePool.matchLabels.app=vllm,inferencePool.matchLabels.tier=gold")
    options = options_of(container(objects)["args"])
    assert (options.endpoint_selector, options.endpoint_target_ports) == ("app=vllm,tier=gold", (8000,))
    assert not options.secure_serving
    assert not {"InferencePool", "HTTPRoute"} & set(by_kind(objects))
    (bootstrap,) = [found for found in objects if found["metadata"]["name"] == "heimdall-envoy"]
    assert yaml.safe_load(bootstrap["data"]["envoy.yaml"]) == yaml.safe_load(
        (ROOT / "config/envoy/full-duplex-plaintext.yaml").read_text()
    )


def test_the_bootstrap_of_the_chart_is_the_one_that_is_tested() -> None:
    assert (CHART / "files/envoy.yaml").read_text() == (ROOT / "config/envoy/full-duplex-plaintext.yaml").read_text()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("replica=2", "replica"),
        ("mode=proxy", "mode"),
        ("inferencePool.targetPorts[0].number=0", "number"),
        ("inferencePool.failureMode=FailClosed", "failureMode"),
        ("gateway.nam=x", "nam"),
        ("configReload=warm", "configReload"),
    ],
)
def test_values_are_checked(chart: Chart, value: str, problem: str) -> None:
    done = chart.run("template", "r", str(CHART), "--kube-version", "1.36", f"--set={value}")
    assert done.returncode != 0
    assert problem in done.stderr


# ── values of another chart ──


@pytest.mark.parametrize("file", sorted(path.name for path in VALUES.iterdir()))
async def test_values_of_heimdall_work_unchanged(api: Api, chart: Chart, file: str) -> None:
    objects = chart.render(f"--values={VALUES / file}", namespace=api.namespace)
    await accept(api, objects)
    options = options_of(container(objects)["args"])
    assert options.pool_name == "heimdall"
    check_config(by_kind(objects)["ConfigMap"]["data"]["config.yaml"])
    assert by_kind(objects)["InferencePool"]["metadata"]["name"] == "heimdall"


def test_what_the_values_of_heimdall_mean(chart: Chart) -> None:
    objects = chart.render(f"--values={VALUES / 'heimdall-everything.yaml'}")
    found = by_kind(objects)
    spec = found["Deployment"]["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "moreh-registry"}, {"name": "mine"}]
    assert spec["terminationGracePeriodSeconds"] == 200
    main = container(objects)
    assert main["image"] == "registry.example/heimdall:v9"
    environ = {entry["name"]: entry.get("value") for entry in main["env"]}
    assert environ["OTEL_TRACES_SAMPLER"] == "always_on"
    assert environ["OTEL_TRACES_SAMPLER_ARG"] == "1.0"
    assert environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4317"
    assert environ["EPP_GRACEFUL_SHUTDOWN_TIMEOUT"] == "90s"
    assert environ["EXTRA"] == "1"
    options = options_of(main["args"], {name: value for name, value in environ.items() if value})
    assert options.tracing
    assert options.graceful_shutdown_timeout_s == 90
    assert options.metric_specs["kv_usage"] == "vllm:gpu_cache_usage_perc"
    tokenizer, render = container(objects, "tokenizer"), container(objects, "render")
    assert tokenizer["args"] == ["--socket", "/tmp/tokenizer/t.socket"]
    assert tokenizer["resources"] == {"limits": {"cpu": 1}}
    assert render["args"] == ["meta-llama/Llama-3.2-1B-Instruct", "--port=8100", "--max-model-len=4096"]
    shared = {mount["name"] for mount in main["volumeMounts"]} & {mount["name"] for mount in tokenizer["volumeMounts"]}
    assert shared == {"tokenizer"}
    route = found["HTTPRoute"]["spec"]["rules"][0]
    assert [match["headers"][0]["value"] for match in route["matches"]] == ["llama", "qwen"]
    assert route["timeouts"] == {"request": "0s"}
    relabelled = {entry["targetLabel"] for entry in found["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["relabelings"]}
    assert {"role", "pool", "inference_service", "engine"} <= relabelled
    assert found["ServiceMonitor"]["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("reload", ["restart", "hot"])
async def test_the_picker_starts_as_the_chart_starts_it(api: Api, chart: Chart, start: StartPicker, reload: str) -> None:
    """A1: the rights, the pool and the command line of the chart, and nothing else."""
    values = (f"--values={VALUES / 'heimdall-0.7.yaml'}", f"--set=configReload={reload}")
    objects = chart.render("--set-string=fullnameOverride=chat", *values, namespace=api.namespace)
    await api.delete({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "epp"}})
    for found in objects:
        if found["kind"] in ("Role", "RoleBinding", "InferencePool", "ServiceAccount"):
            await api.create(found)
    await api.create(pod("a", A, labels={"mif.moreh.io/pool": "chat"}))
    config = by_kind(objects)["ConfigMap"]["data"]["config.yaml"]
    ours = ("--config-file", "--grpc-port", "--grpc-health-port", "--metrics-port", "--pool-name")
    arguments = [word for word in container(objects)["args"] if not word.startswith(ours)]
    picker = await start(*arguments, config=config, account="chat")
    await picker.has(endpoints(("a", A)))
    await picker.is_ready()
    if reload == "hot":
        picker.write_config(config.replace("queue-scorer", "kv-cache-utilization-scorer"))
        await picker.says("configuration reloaded")
        _, page = await picker.page("/debug/config")
        assert b"kv-cache-utilization-scorer" in page
    assert '"level":"error"' not in picker.log


# ── command lines of other charts ──

OF_LLM_D = """
--pool-name chat --pool-namespace ns --pool-group inference.networking.k8s.io --config-file {config} --grpc-port 9002
--grpc-health-port 9003 --metrics-port 9090 --v 2 --tracing false --zap-encoder json --ha-enable-leader-election
--metrics-endpoint-auth=false
"""
OF_GIE = """
--pool-name chat --pool-namespace ns --pool-group inference.networking.k8s.io --zap-encoder json
--config-file {config} --secure-serving false --v 3
--total-queued-requests-metric "vllm:num_requests_waiting" --kv-cache-usage-percentage-metric "vllm:kv_cache_usage_perc"
--lora-info-metric "" --model-server-metrics-port 8000 --metrics-endpoint-auth false
"""


@pytest.mark.parametrize("line", [OF_LLM_D, OF_GIE], ids=["llm-d", "GIE"])
def test_command_lines_of_other_charts(line: str) -> None:
    options = options_of(line.format(config="/config/default-plugins.yaml").split())
    assert (options.pool_name, options.namespace) == ("chat", "ns")


# ── manifests without helm ──


def manifests(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``epp manifests``."""
    command = [sys.executable, "-m", "epp", "manifests", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    "more",
    [(), ("--replicas=2", "--gateway=g", "--label=a=b", "--port=1", "--port=2", "--config-reload=hot")],
    ids=["few", "all"],
)
async def test_the_api_server_takes_the_manifests(api: Api, more: tuple[str, ...]) -> None:
    done = manifests("--pool=chat", "--config=config/manifests/config.yaml", f"--namespace={api.namespace}", *more)
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    await accept(api, objects)
    options = options_of(container(objects, "epp")["args"])
    assert options.ha_enable_leader_election == options.watch_config_file == bool(more)
    check_config(by_kind(objects)["ConfigMap"]["data"]["config.yaml"])


def test_manifests_whose_document_is_taken_over(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        config = tmp_path / "config.yaml"
        config.write_text((ROOT / "config/manifests/config.yaml").read_text() + f"# change {number}\n")
        done = [manifests("--pool=chat", f"--config={config}", f"--config-reload={way}") for way in ("restart", "hot")]
        found.append([template(list(yaml.safe_load_all(each.stdout))) for each in done])
    (restart, hot), (restart_changed, hot_changed) = found
    assert restart != restart_changed
    assert hot == hot_changed
    (mount,) = [mount for mount in hot["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "config"]
    assert "subPath" not in mount


def test_the_plain_manifests_are_what_the_command_prints() -> None:
    done = manifests("--pool=chat", "--config=config/manifests/config.yaml")
    assert (ROOT / "config/manifests/picker.yaml").read_text() == done.stdout
    kustomization = yaml.safe_load((ROOT / "config/manifests/kustomization.yaml").read_text())
    assert all((ROOT / "config/manifests" / name).exists() for name in kustomization["resources"])


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        ((), 2, "--pool"),
        (("--pool=Chat",), 2, "is no name"),
        (("--pool=llama.3",), 2, "is no name that a Service can begin with"),
        (("--pool=3-llama",), 2, "is no name that a Service can begin with"),
        (("--pool=chat", "--namespace=a.b"), 2, "is no namespace"),
        (("--pool=chat", *(f"--port={port}" for port in range(1, 10))), 2, "at most 8 ports"),
        (("--pool=chat", "--port=1", "--port=1"), 2, "each once"),
        (("--pool=chat", "--port=70000"), 2, "is no port"),
        (("--pool=chat", "--label=x"), 2, "is no label"),
        (("--pool=chat", "--config-reload=warm"), 2, "invalid choice"),
        (("--pool=chat", "--config=nowhere.yaml"), 1, "nowhere.yaml"),
        (("--pool=chat", "--config=tests/config/bad"), 1, "tests/config/bad"),
    ],
)
def test_what_manifests_cannot_be_made_of(arguments: tuple[str, ...], status: int, problem: str) -> None:
    done = manifests(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert problem in done.stderr


def test_the_definitions_of_the_tests_are_those_that_are_served() -> None:
    names = [definition["metadata"]["name"] for definition in crds.everything()]
    assert len(set(names)) == 6
