"""What docs/kubernetes.md and config/manifests tell people to apply is what the API server takes."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from epp.commands import simulate
from epp.commands.check_pools import check_pools
from epp.config.loaded import ConfigSource, LoadFlags
from epp.process.plugin_types import build_registry
from tests.kube.api import Api
from tests.kube.test_deploy import CHART, ROOT, Chart, accept, container, helm_binary, manifests, options_of

__all__ = ["helm_binary"]
PAGE = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
YAML = [text for kind, text in BLOCKS if kind == "yaml"]
POOLS_YAML = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/many-pools.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


def commands(start: str) -> list[list[str]]:
    """The words of each command that begins so, without where its output goes."""
    return [shlex.split(line.partition(" > ")[0]) for line in COMMANDS if line.startswith(start)]


@pytest.fixture
def chart(helm_binary: Path) -> Chart:
    """The chart."""
    return Chart(helm_binary)


@pytest.mark.parametrize("text", [text for text in YAML if "kind: InferencePool" in text])
async def test_the_manifests_of_the_page(api: Api, text: str) -> None:
    await accept(api, list(yaml.safe_load_all(text)))


@pytest.mark.parametrize("words", commands("epp manifests"), ids=" ".join)
async def test_the_manifests_that_a_command_of_the_page_prints(api: Api, words: list[str]) -> None:
    done = manifests(*words[2:], f"--namespace={api.namespace}")
    assert done.returncode == 0, done.stderr
    await accept(api, list(yaml.safe_load_all(done.stdout)))


@pytest.mark.parametrize("words", commands("helm upgrade"), ids=" ".join)
async def test_the_chart_as_the_page_installs_it(api: Api, chart: Chart, words: list[str], tmp_path: Path) -> None:
    (values,) = [text for text in YAML if "values of the chart" in text]
    (tmp_path / "values.yaml").write_text(values)
    release, folder, *options = words[3:]
    assert words[:3] == ["helm", "upgrade", "--install"]
    assert ROOT / folder == CHART
    options = [str(tmp_path / word) if word == "values.yaml" else word for word in options]
    objects = chart.render(*options, release=release, namespace=api.namespace)
    await accept(api, objects)
    options_of(container(objects)["args"])


async def test_the_chart_as_the_page_of_several_pools_installs_it(api: Api, chart: Chart, tmp_path: Path) -> None:
    (values,) = [text for text in POOLS_YAML if "values of the chart" in text]
    file = tmp_path / "values.yaml"
    file.write_text(values)
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}})
    objects = chart.render(f"--values={file}", release="models", namespace=api.namespace)
    await accept(api, objects)
    options_of(container(objects)["args"])
    (mounted,) = [found["data"] for found in objects if found["kind"] == "ConfigMap"]
    for key, text in mounted.items():
        (tmp_path / key).write_text(text)
    checked = check_pools(ConfigSource.from_file(str(tmp_path / "pools.yaml")), build_registry()[0], LoadFlags(for_serve=True))
    assert checked.is_valid, checked.all_findings


async def test_the_simulated_servers(api: Api) -> None:
    objects = list(yaml.safe_load_all((ROOT / "config/manifests/simulated.yaml").read_text()))
    await accept(api, objects)
    command, *flags = container(objects, "server")["args"]
    assert command == "simulate"
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    assert parser.parse_args(flags).port == 8000


def test_the_page_has_something_to_test() -> None:
    assert len(commands("epp manifests")) == 1
    assert len(commands("helm upgrade")) == 2
    assert len(YAML) == 2
