# ruff: noqa: INP001 — a package of its own, found by its entry point
"""endpoint-recorder: shows at /debug/plugins/state what plugins were told of the endpoints, change by change."""

from __future__ import annotations

from typing import Any

from epp.framework.interfaces import Role
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


PLUGIN = PluginType(
    type="endpoint-recorder",
    roles=frozenset({Role.PRE_REQUEST}),
    summary="Shows what plugins are told of the endpoints.",
    factory=lambda context, params: EndpointRecorder(),
)
