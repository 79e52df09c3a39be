"""Tells plugins which endpoints came, changed and left: each change of the pool once, to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epp.framework.interfaces import FollowsEndpoints
from epp.framework.types import EndpointChange
from epp.plugin_calls.defects import Defects

EXTENSION_POINT = "FollowsEndpoints"
"""Where a plugin failed, as the log and ``plugin_errors_total`` name it."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A plugin that follows the endpoints, with its names in the configuration."""

    type: str
    name: str
    plugin: FollowsEndpoints


class PluginFollowers:
    """All plugins that follow the endpoints, in declaration order: one listener of the store. Implements ``FollowsEndpoints``.

    Args:
        followers: the plugins.
        defects: told of those that raise, which keeps none of the others from hearing.
    """

    def __init__(self, followers: Sequence[Follower], defects: Defects) -> None:
        self._followers = tuple(followers)
        self._defects = defects

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Pass it on."""
        for follower in self._followers:
            try:
                follower.plugin.endpoints_changed(change)
            except Exception as error:  # noqa: BLE001 — a plugin's bug must not keep others from hearing
                self._defects.plugin_failed(EXTENSION_POINT, follower.type, follower.name, error)
