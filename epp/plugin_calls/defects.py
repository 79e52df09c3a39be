"""Plugins that misbehave: where that is reported, logged and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from epp.framework import log
from epp.framework.interfaces import Role
from epp.telemetry.metrics import Metrics, PluginLabels

EXTENSION_POINTS: dict[str, str] = {
    Role.FILTER: "Filter",
    Role.SCORER: "Scorer",
    Role.PICKER: "Picker",
    Role.PROFILE_HANDLER: "ProfilePicker",
    Role.REQUEST_HEADER: "RequestHeader",
    Role.DIRECT_RESPONDER: "DirectResponder",
    Role.BODY_REWRITER: "BodyRewriter",
    Role.SCREENER: "Screener",
    Role.DATA_PRODUCER: "DataProducer",
    Role.ADMITTER: "Admission",
    Role.PRE_REQUEST: "PreRequest",
    Role.RESPONSE_RECEIVED: "ResponseReceived",
    Role.RESPONSE_STREAMING: "ResponseStreaming",
    Role.RESPONSE_COMPLETE: "ResponseComplete",
    Role.PARSER: "RequestParsing",
}
"""Role → value of the metrics label ``extension_point``."""
_REPORT_EVERY_S = 10.0
"""A plugin that fails at every request is counted each time and logged this often."""

_logger = log.get("epp.plugins")


class Defects(Protocol):
    """Where plugins that misbehave are reported; logs and counts."""

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None: ...


class PluginDefects:
    """Logs and counts plugins that misbehave."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last_s: dict[tuple[str, str], float] = {}

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        """Count it; log it unless it was logged a moment ago.

        Args:
            role: in which it failed, or the name of a protocol that needs no role.
        """
        point = EXTENSION_POINTS.get(role, str(role))
        self._metrics.plugin_error(PluginLabels(point, type_name, name))
        now = self._clock()
        if now - self._last_s.get((name, role), float("-inf")) < _REPORT_EVERY_S:
            return
        self._last_s[name, role] = now
        error = problem if isinstance(problem, Exception) else None
        _logger.error("plugin failed", exc=error, plugin=name, type=type_name, extension_point=point, problem=str(problem))
