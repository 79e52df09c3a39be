# ruff: noqa: INP001 — a package of its own, found by its entry point
"""endpoint-recorder: shows at /debug/plugins/state what plugins were told of the endpoints, change by change."""

from __future__ import annotations

from typing import Any

from epp.framework.interfaces import Role
from epp.framework.notifications import ObjectEvent
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, EndpointChange

_SHOWN = 20
"""Names of one change that are shown; the number is always there."""


class EndpointRecorder:
    """Remembers all changes."""

    def __init__(self) -> None:
        self._changes: list[dict[str, Any]] = []

    def pre_request(self, request: object, result: object, edits: object) -> None:
        """Nothing: some role a plugin must have."""

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Remember it."""
        self._changes.append(
            {"added": _names(change.added), "updated": _names(change.updated), "removed": _names(change.removed)}
        )

    def debug_state(self) -> object:
        """All changes so far."""
        return self._changes


def _names(endpoints: tuple[Endpoint, ...]) -> list[str]:
    names = [endpoint.name for endpoint in endpoints]
    return names if len(names) <= _SHOWN else [str(len(names))]


class ObjectRecorder:
    """Remembers what became of ConfigMaps."""

    input = "kubernetes:v1/ConfigMap"

    def __init__(self) -> None:
        self._events: list[object] = []

    def object_changed(self, event: ObjectEvent) -> None:
        """Remember it; one with the key ``bug`` is more than this plugin can take."""
        if event.object is not None and "bug" in (event.object.get("data") or {}):
            raise ValueError("a bug")
        self._events.append([event.name, event.object.get("data") if event.object is not None else None])

    def debug_state(self) -> object:
        """All events so far."""
        return self._events


OBJECTS = PluginType(
    type="object-recorder",
    roles=frozenset({Role.OBJECT_EXTRACTOR}),
    summary="Shows what plugins are told of ConfigMaps.",
    factory=lambda context, params: ObjectRecorder(),
)

PLUGIN = PluginType(
    type="endpoint-recorder",
    roles=frozenset({Role.PRE_REQUEST}),
    summary="Shows what plugins are told of the endpoints.",
    factory=lambda context, params: EndpointRecorder(),
)
