"""Objects of one kind in the cluster → plugins that follow them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.cluster.watch import Changed, Collection, Listed, Pace, Watch
from epp.framework import log
from epp.framework.notifications import FollowsObjects, ObjectEvent, ObjectKind
from epp.plugin_calls.defects import Defects

_logger = log.get(__name__)

EXTENSION_POINT = "FollowsObjects"
"""Where a plugin failed, as the log and ``plugin_errors_total`` name it."""


class ObjectFollower(NamedTuple):
    """A plugin that follows objects, with its names in the configuration."""

    type: str
    name: str
    plugin: FollowsObjects


class _Found(NamedTuple):
    key: tuple[str, str]
    """Namespace and name."""
    version: str
    object: Mapping[str, Any]


class ObjectNotifications:
    """Tells plugins of all objects of a kind: first of those that are there, then of changes, as long as it runs.

    Of an object that is gone only the name is told. Objects with a namespace are those of the pool's; one that is told again
    unchanged, as after an outage, is not passed on.

    Args:
        connection: the API server; we must be allowed to list and watch the kind.
        namespace: of the pool.
        kind: what is followed.
        followers: who is told, in declaration order.
        defects: told of those that raise, which keeps none of the others from hearing.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        namespace: str,
        kind: ObjectKind,
        followers: Sequence[ObjectFollower],
        defects: Defects,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._kind = kind
        self._followers = tuple(followers)
        self._defects = defects
        self._versions: dict[tuple[str, str], str] = {}

    def tells(self, plugin: object) -> bool:
        """It is one of the followers."""
        return any(follower.plugin is plugin for follower in self._followers)

    def keep(self, is_used: Callable[[object], bool]) -> bool:
        """Tell only those of the followers from now on that are still used; whether there are any."""
        self._followers = tuple(follower for follower in self._followers if is_used(follower.plugin))
        return bool(self._followers)

    async def run(self) -> None:
        """Follow until cancelled."""
        watch = Watch(self._connection, Collection(await self._path()), _read, optional=True)
        async for event in watch.events():
            if isinstance(event, Listed):
                here = {found.key for found in event.objects}
                for key in [known for known in self._versions if known not in here]:
                    self._gone(key)
                for found in event.objects:
                    self._is_there(found)
            else:
                self._changed(event)

    def _changed(self, event: Changed[_Found]) -> None:
        for found, is_deleted in event.changes:
            if is_deleted:
                self._gone(found.key)
            else:
                self._is_there(found)

    def _is_there(self, found: _Found) -> None:
        if self._versions.get(found.key) != found.version:
            self._versions[found.key] = found.version
            self._tell(ObjectEvent(*found.key, found.object))

    def _gone(self, key: tuple[str, str]) -> None:
        if self._versions.pop(key, None) is not None:
            self._tell(ObjectEvent(*key, None))

    def _tell(self, event: ObjectEvent) -> None:
        for follower in self._followers:
            try:
                follower.plugin.object_changed(event)
            except Exception as error:  # noqa: BLE001 — a plugin's bug must not keep others from hearing
                self._defects.plugin_failed(EXTENSION_POINT, follower.type, follower.name, error)

    async def _path(self) -> str:
        """Where the objects are; asked for until the API server knows the kind."""
        pace = Pace(random.Random(), time.monotonic)
        said = ""
        while True:
            try:
                return await self._ask()
            except ClusterError as error:
                if str(error) != said:
                    said = str(error)
                    _logger.warning("kind cannot be followed yet, trying again", kind=str(self._kind), problem=said)
                await asyncio.sleep(pace.after(error))

    async def _ask(self) -> str:
        group, version, kind = self._kind
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        for resource in orjson.loads(await self._connection.get(root)).get("resources") or ():
            if resource.get("kind") == kind and "/" not in resource["name"]:
                within = f"/namespaces/{self._namespace}" if resource["namespaced"] else ""
                return f"{root}{within}/{resource['name']}"
        raise ClusterError(f"GET {root}: there is no kind {kind}", 404)


def _read(item: Mapping[str, Any]) -> _Found:
    metadata = item["metadata"]
    return _Found((metadata.get("namespace") or "", metadata["name"]), metadata["resourceVersion"], item)
