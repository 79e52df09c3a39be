"""Who of a pool's plugins follows objects in the cluster, over all configurations that the pool goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from epp.cluster.connection import ClusterConnection
from epp.config.loaded import Instances
from epp.discovery.kube_notify import ObjectNotifications
from epp.framework import log
from epp.framework.notifications import ObjectKind
from epp.hooks.runner import Spawn
from epp.plugin_calls.defects import Defects
from epp.pool.build import object_followers

_logger = log.get("epp.pool.object_watches")


class _Watch(NamedTuple):
    kind: ObjectKind
    notifications: ObjectNotifications
    task: asyncio.Task[None]


class ObjectWatches:
    """Tells plugins of objects in the cluster, from those that are there on, for as long as a configuration uses them.

    One that serves on under another configuration hears on where it was: nothing is told it twice, and it misses nothing.

    Args:
        cluster: the API server; None = there is none.
        namespace: of the pool.
        defects: told of plugins that raise.
        spawn: starts a task of the process.
    """

    def __init__(self, cluster: ClusterConnection | None, namespace: str, defects: Defects, spawn: Spawn) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._defects = defects
        self._spawn = spawn
        self._watches: list[_Watch] = []
        self._unheard: set[ObjectKind] = set()

    def follow(self, instances: Instances) -> None:
        """Tell those of a configuration that do not hear yet."""
        for kind, followers in object_followers(instances):
            if self._cluster is None:
                if kind not in self._unheard:
                    _logger.warning("objects are not followed, there is no cluster", kind=str(kind))
                self._unheard.add(kind)
                continue
            new = [follower for follower in followers if not self._hears(kind, follower.plugin)]
            if new:
                told = ObjectNotifications(self._cluster, self._namespace, kind, new, self._defects)
                self._watches.append(_Watch(kind, told, self._spawn(told.run(), f"notifications of {kind}")))

    def keep(self, is_used: Callable[[object], bool]) -> None:
        """Tell those no more that no configuration uses; what nobody hears is not watched."""
        for watch in list(self._watches):
            if not watch.notifications.keep(is_used):
                self._watches.remove(watch)
                watch.task.cancel()

    def stop(self) -> None:
        """Watch nothing any more."""
        self.keep(lambda _: False)

    def _hears(self, kind: ObjectKind, plugin: object) -> bool:
        return any(watch.kind == kind and watch.notifications.tells(plugin) for watch in self._watches)
