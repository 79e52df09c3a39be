"""InferenceObjectives and InferenceModelRewrites of the cluster → the store that files feed too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from epp.cluster.connection import ClusterConnection
from epp.cluster.watch import Collection, Listed, Watch
from epp.datalayer.objects import CLUSTER, GROUP, LEGACY_GROUP, InferenceObject, ObjectStore
from epp.discovery.manifests import ManifestError, parse_manifest
from epp.framework import log

_logger = log.get(__name__)

VERSION = "v1alpha2"
PLURALS = ("inferenceobjectives", "inferencemodelrewrites")

_Kept = dict[str, InferenceObject]
"""Name → object, of one resource."""


class _Read(NamedTuple):
    name: str
    object: InferenceObject | None
    """None = it is being deleted, or invalid."""
    problem: str = ""


class InferenceObjects:
    """Follows both kinds in both API groups, as far as they are installed and may be read.

    One that became invalid keeps its previous version, as with files.

    Args:
        connection: the API server.
        store: receives the objects.
        on_invalid: told of each object that cannot be used: a sentence.
    """

    def __init__(self, connection: ClusterConnection, store: ObjectStore, on_invalid: Callable[[str], None]) -> None:
        self._connection = connection
        self._store = store
        self._on_invalid = on_invalid
        self._kept: dict[Collection, _Kept] = {}

    async def run(self) -> None:
        """Follow them until cancelled."""
        namespace = self._store.pool.namespace
        async with asyncio.TaskGroup() as group:
            for api_group in (GROUP, LEGACY_GROUP):
                for plural in PLURALS:
                    collection = Collection(f"/apis/{api_group}/{VERSION}/namespaces/{namespace}/{plural}")
                    group.create_task(self._follow(collection), name=f"watch {plural}.{api_group}")

    async def _follow(self, collection: Collection) -> None:
        watch = Watch(self._connection, collection, self._read, optional=True)
        async for event in watch.events():
            known = self._kept.get(collection, {})
            if isinstance(event, Listed):
                kept: _Kept = {}
                for read in event.objects:
                    self._apply(read, kept, known)
            else:
                kept = dict(known)
                for read, is_deleted in event.changes:
                    self._apply(read._replace(object=None, problem="") if is_deleted else read, kept, kept)
            self._keep(collection, kept)

    def _apply(self, read: _Read, kept: _Kept, known: _Kept) -> None:
        if read.object is not None:
            kept[read.name] = read.object
        elif not read.problem:
            kept.pop(read.name, None)
        else:
            _logger.error("object of the cluster is invalid, its previous version stays", problem=read.problem)
            self._on_invalid(read.problem)
            if read.name in known:
                kept[read.name] = known[read.name]

    def _keep(self, collection: Collection, kept: _Kept) -> None:
        if kept == self._kept.get(collection):
            return
        self._kept[collection] = kept
        self._store.replace_all([obj for each in self._kept.values() for obj in each.values()], CLUSTER)
        _logger.info("objects read from the cluster", path=collection.path, count=len(kept))

    def _read(self, item: Any) -> _Read:
        name = item["metadata"]["name"]
        if "deletionTimestamp" in item["metadata"]:
            return _Read(name, None)
        try:
            return _Read(name, parse_manifest(item, self._store.pool.namespace, from_cluster=True))
        except ManifestError as error:
            return _Read(name, None, f"{item.get('kind', 'object')} {name}: {error}")
