"""What the tests of several pools put into files and namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import binding, role
from tests.kube.picker import CONFIG, Picker

Object = dict[str, Any]
HEADER = {"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerPools"}


def entry(name: str, **more: Any) -> Object:
    """A pool of the file, which is asked for by its name."""
    match = {} if {"grpcPort", "default"} & more.keys() else {"match": {"authorities": [f"{name}.example.com"]}}
    return {"name": name, "configFile": f"{name}.yaml", **match, **more}


def asks_for(pool: str) -> dict[str, str]:
    """Headers of a request that is meant for a pool."""
    return {":authority": f"{pool}.example.com"}


class PoolsFolder:
    """A pools file and the documents of its pools."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "pools.yaml"

    def write(self, *entries: Object, documents: Mapping[str, str] | None = None) -> Path:
        """Write the file, and the document of each pool."""
        for each in entries:
            document = (documents or {}).get(each["name"], CONFIG)
            (self._folder / f"{each['name']}.yaml").write_text(document)
        unfinished = self._folder / "unfinished"
        unfinished.write_text(yaml.safe_dump({**HEADER, "pools": list(entries)}, sort_keys=False))
        return unfinished.replace(self.file)


async def start_pools(start: StartPicker, api: Api, file: Path, *flags: str, **more: Any) -> Picker:
    """A picker of the pools of a file, in the namespace of the test."""
    return await start(*flags, pool="", pools_file=file, environ={"NAMESPACE": api.namespace}, **more)


async def add_namespace(api: Api, name: str, account_of: str, *, has_rights: bool = True) -> None:
    """A namespace, and what the picker of another one may do there."""
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    if has_rights:
        for manifest in (role(), binding(account_of)):
            await api.create(within(name, manifest))


def within(namespace: str, manifest: Object) -> Object:
    """The same object in another namespace."""
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
