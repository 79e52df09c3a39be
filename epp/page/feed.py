"""Server-sent events: what open pages show, looked at once for all of them, and not at all while none is open.

A page that reads slowly gets the latest of each event, not all of them; one that does not read is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from aiohttp import web

from epp.framework import log

EVERY_S = 2.0
"""Between two looks: a person reads no faster."""
MOST_STREAMS = 16
"""Pages open at once."""
LIFETIME_S = 600.0
"""Of one stream; the page then comes again and is let in anew, so that no stream outlives a withdrawn permission."""
WRITE_TIMEOUT_S = 20.0
"""For a page that does not read."""
_RETRY_MS = 3000

_logger = log.get("epp.page.feed")

Offload = Callable[[Callable[[], bytes]], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event."""

    name: str
    read: Callable[[], object]
    """Looks at live state, on the event loop."""
    version: Callable[[], object] | None = None
    """What is sent already is not sent again while this stays equal; None = it always changes."""
    render: Callable[[object], object] | None = None
    """Makes of what was read what is sent, in a thread."""


class Feed:
    """Streams events to all open pages.

    Args:
        events: what is sent, in this order.
        offload: runs a function in a thread.
        every_s: between two looks.
        most: streams at once.
    """

    def __init__(
        self, events: Sequence[Event], offload: Offload, *, every_s: float = EVERY_S, most: int = MOST_STREAMS
    ) -> None:
        self._events = events
        self._offload = offload
        self._every_s = every_s
        self._most = most
        self._listeners: set[_Listener] = set()
        self._latest: dict[str, bytes] = {}
        self._versions: dict[str, object] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """No page is open, and nothing is looked at."""
        return self._task is None

    async def page(self, request: web.BaseRequest) -> web.StreamResponse:
        """The stream of one page, until either side ends it."""
        # A page that was closed is noticed when it is written to; until then it must keep no other out.
        if self._closed or sum(listener.is_there for listener in self._listeners) >= self._most:
            reason = "the picker stops" if self._closed else f"{self._most} pages are open, which is the limit; close one"
            return web.json_response({"error": reason}, status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "30"})
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        listener = _Listener(request)
        self._listeners.add(listener)
        try:
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            self._begin(listener)
            # Whoever closes the page makes a write fail, and nobody has to be told.
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(LIFETIME_S):
                    await _write(request, response, f"retry: {_RETRY_MS}\n\n".encode())
                    while not listener.is_over:
                        await _write(request, response, await listener.next())
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._pause()
        return response

    def close(self) -> None:
        """End all streams, and take no more."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
        self._pause()

    def _begin(self, listener: _Listener) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="page events")
        for name, data in self._latest.items():
            listener.give(name, data)

    def _pause(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        # What is old when the next page opens must not be shown to it.
        self._latest.clear()
        self._versions.clear()

    async def _look(self) -> None:
        while True:
            for event in self._events:
                try:
                    await self._send(event)
                except Exception as error:  # noqa: BLE001 — the other parts of the page go on
                    _logger.error("part of the page failed", exc=error, part=event.name)
            await asyncio.sleep(self._every_s)

    async def _send(self, event: Event) -> None:
        version = event.version() if event.version is not None else None
        if event.version is not None and event.name in self._latest and self._versions[event.name] == version:
            return
        state = event.read()
        data = await self._offload(lambda: _encoded(event, state))
        self._latest[event.name] = data
        self._versions[event.name] = version
        for listener in self._listeners:
            listener.give(event.name, data)


class _Listener:
    """What one page has not been sent yet."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._pending: dict[str, bytes] = {}
        self._given = asyncio.Event()
        self.is_over = False

    @property
    def is_there(self) -> bool:
        """Its connection is."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    def give(self, name: str, data: bytes) -> None:
        self._pending[name] = data
        self._given.set()

    def end(self) -> None:
        self.is_over = True
        self._given.set()

    async def next(self) -> bytes:
        await self._given.wait()
        self._given.clear()
        data = b"".join(self._pending.values())
        self._pending.clear()
        return data


async def _write(request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    """Send, and wait until the connection takes more.

    Raises:
        ConnectionError, TimeoutError: nobody reads.
    """
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise


def _encoded(event: Event, state: object) -> bytes:
    shown = event.render(state) if event.render is not None else state
    document = orjson.dumps(shown, default=str, option=orjson.OPT_NON_STR_KEYS)
    return b"event: %s\ndata: %s\n\n" % (event.name.encode(), document)
