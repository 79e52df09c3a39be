"""The page that Prometheus scrapes, rendered and compressed in a thread, at most once for several scrapers."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from aiohttp import web

from epp.telemetry.exposition import CONTENT_TYPE

_GZIP_LEVEL = 1
"""Text this repetitive shrinks tenfold at the cheapest level."""


class Exposed(Protocol):
    """Metrics as they can be shown."""

    def snapshot(self) -> Any:
        """What a scrape made now exposes; on the event loop, and cheap."""
        ...

    def render(self, snapshot: Any) -> bytes:
        """It as text; in any thread."""
        ...


class MetricsPage:
    """/metrics, rendered in a thread at most once per ``cache_s``, whoever asks.

    Args:
        metrics: what is exposed.
        executor: where it is rendered.
        cache_s: seconds for which a page counts as new, from when its numbers were taken.
        clock: monotonic seconds.
    """

    def __init__(
        self, metrics: Exposed, executor: ThreadPoolExecutor, cache_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._executor = executor
        self._cache_s = cache_s
        self._clock = clock
        self._made_s = float("-inf")
        self._rendering: asyncio.Task[tuple[bytes, bytes]] | None = None

    async def page(self, request: web.BaseRequest) -> web.Response:
        """The page as text, compressed if the client accepts gzip."""
        plain, compressed = await self.rendered()
        headers = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        if not _accepts_gzip(request.headers.get("Accept-Encoding", "")):
            return web.Response(body=plain, headers=headers)
        return web.Response(body=compressed, headers={**headers, "Content-Encoding": "gzip"})

    async def rendered(self) -> tuple[bytes, bytes]:
        """The page as it is, and compressed."""
        task = self._rendering
        if task is None or (task.done() and (self._clock() - self._made_s >= self._cache_s or _failed(task))):
            self._made_s = self._clock()
            task = self._rendering = asyncio.create_task(self._render())
        # One client that leaves must not cancel what others wait for.
        return await asyncio.shield(task)

    async def _render(self) -> tuple[bytes, bytes]:
        snapshot = self._metrics.snapshot()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: _rendered_both(self._metrics.render(snapshot)))


def _rendered_both(plain: bytes) -> tuple[bytes, bytes]:
    return plain, gzip.compress(plain, _GZIP_LEVEL)


def _failed(task: asyncio.Task[tuple[bytes, bytes]]) -> bool:
    return task.cancelled() or task.exception() is not None


def _accepts_gzip(accept_encoding: str) -> bool:
    """RFC 9110 12.5.3: a coding named without ``q=0`` is acceptable."""
    for entry in accept_encoding.split(","):
        coding, _, weight = entry.replace(" ", "").lower().partition(";")
        if coding == "gzip":
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
