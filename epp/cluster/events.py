"""Kubernetes Events about the pool: what its operator must see without reading our log."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import uuid
from typing import Any, NamedTuple

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.framework import log

_logger = log.get(__name__)

COMPONENT = "endpoint-picker"
_WAITING = 16
"""Events that are not sent yet; more are dropped, they are in the log too."""
_MESSAGE_CHARS = 1000
"""The API server takes 1,024."""


class Subject(NamedTuple):
    """The object that an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class _Told(NamedTuple):
    name: str
    times: int


class EventRecorder:
    """Writes warnings about an object, each once; one that is told again is counted.

    What cannot be written is logged, once for each reason: no picker depends on it.

    Args:
        connection: the API server.
    """

    def __init__(self, connection: ClusterConnection) -> None:
        self._connection = connection
        self._queue: asyncio.Queue[tuple[Subject, str, str]] = asyncio.Queue(_WAITING)
        self._told: dict[tuple[Subject, str, str], _Told] = {}
        self._refused: set[int] = set()

    def warn(self, subject: Subject, reason: str, message: str) -> None:
        """Tell of something; returns at once.

        Args:
            reason: one word in CamelCase.
            message: what is wrong, and what to do.
        """
        try:
            self._queue.put_nowait((subject, reason, message[:_MESSAGE_CHARS]))
        except asyncio.QueueFull:
            _logger.warning("event not written, too many wait", reason=reason)

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(*event)
            except ClusterError as error:
                if error.status not in self._refused:
                    self._refused.add(error.status)
                    _logger.warning("event not written", reason=event[1], problem=str(error))

    async def _write(self, subject: Subject, reason: str, message: str) -> None:
        path = f"/api/v1/namespaces/{subject.namespace}/events"
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = self._told.get((subject, reason, message))
        if told is not None:
            change = {"count": told.times + 1, "lastTimestamp": now}
            try:
                await self._connection.send("PATCH", f"{path}/{told.name}", change, content_type="application/merge-patch+json")
            except ClusterError as error:
                if error.status != 404:  # events live for an hour
                    raise
            else:
                self._told[subject, reason, message] = told._replace(times=told.times + 1)
                return
        event = _event(subject, reason, message, now)
        await self._connection.send("POST", path, event)
        self._told[subject, reason, message] = _Told(event["metadata"]["name"], 1)


def _event(subject: Subject, reason: str, message: str, now: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": subject.namespace},
        "involvedObject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": COMPONENT, "host": socket.gethostname()},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "reportingComponent": COMPONENT,
        "reportingInstance": socket.gethostname(),
    }
