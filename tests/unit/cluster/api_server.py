"""An API server that answers as a test says: what a real one does only in bad moments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import yaml
from aiohttp import web

from epp.cluster.connection import ClusterConnection


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    document: object = None
    """Of a list, or of a refusal."""
    events: Sequence[object] = ()
    """Of a watch."""
    headers: Mapping[str, str] = field(default_factory=dict)
    aborts: bool = False
    """It breaks off, and does not end."""
    stays: bool = False
    """It goes on for ever."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    query: Mapping[str, str]
    token: str


class ApiServer:
    """Gives its replies in order, then keeps silent; an async context manager.

    Args:
        replies: the answers.
    """

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self._server: web.ServerRunner | None = None
        self._closed = asyncio.Event()
        self.asked: list[Asked] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._server.setup()
        site = web.TCPSite(self._server, "127.0.0.1", 0)
        await site.start()
        self.port = self._server.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._closed.set()
        await self._server.cleanup()

    def connection(self, folder: Path, token: str = "secret") -> ClusterConnection:
        """How a picker reaches it; ``folder`` for a kubeconfig."""
        token_file = folder / "token"
        token_file.write_text(token)
        document = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"tokenFile": str(token_file)}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return ClusterConnection(str(path))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(Asked(request.path, dict(request.query), request.headers.get("Authorization", "")))
        if not self._replies:
            await self._closed.wait()
            return web.Response()
        reply = self._replies.pop(0)
        if reply.document is not None or reply.status != 200:
            body = reply.document if isinstance(reply.document, bytes) else orjson.dumps(reply.document)
            return web.Response(status=reply.status, body=body, headers=reply.headers)
        return await self._stream(request, reply)

    async def _stream(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in reply.events:
            line = event if isinstance(event, bytes) else orjson.dumps(event) + b"\n"
            # In two pieces, since a network cuts where it likes.
            await response.write(line[: len(line) // 2])
            await asyncio.sleep(0)
            await response.write(line[len(line) // 2 :])
        if reply.stays:
            await self._closed.wait()
        if reply.aborts:
            assert request.transport is not None
            request.transport.abort()
        return response


def listed(*names: str, version: str = "1", token: str = "") -> Reply:
    """A list, or a page of one."""
    metadata = {"resourceVersion": version, **({"continue": token} if token else {})}
    return Reply(document={"metadata": metadata, "items": [item(name, version) for name in names]})


def refused(status: int, reason: str = "", message: str = "no", cause: str = "", **headers: str) -> Reply:
    """A Status object with an HTTP error."""
    return Reply(status, status_object(status, reason, message, cause), headers=headers)


def status_object(status: int, reason: str = "", message: str = "no", cause: str = "") -> dict[str, Any]:
    """A failure, as the API server describes it."""
    details = {"details": {"causes": [{"reason": cause}]}} if cause else {}
    return {"kind": "Status", "code": status, "reason": reason, "message": message, **details}


def item(name: str, version: str) -> dict[str, Any]:
    """An object."""
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": version}}


def event(kind: str, name: str, version: str) -> dict[str, Any]:
    """A line of a watch."""
    return {"type": kind, "object": item(name, version)}


def bookmark(version: str) -> dict[str, Any]:
    """A line that only tells the version."""
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}


def error(status: int, reason: str = "", cause: str = "") -> dict[str, Any]:
    """A line that ends a watch."""
    return {"type": "ERROR", "object": status_object(status, reason, "gone", cause)}
