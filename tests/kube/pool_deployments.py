"""What tests do with a chart and manifests of several pools: write what is mounted, start what is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.commands.check_pools import check_pools
from epp.config.loaded import ConfigSource, LoadFlags
from epp.pools.load import PoolsFile, load_pools
from epp.process.plugin_types import build_registry
from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.picker import Picker
from tests.kube.test_deploy import container

Object = dict[str, Any]


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
