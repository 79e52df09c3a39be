"""Where documents are kept: what a back end can do, and the one in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Protocol

_SWEEP_EVERY_S = 60.0


class StoreError(Exception):
    """A back end cannot be reached, is too slow, or answered with an error; the text says which."""


class Backend(Protocol):
    """Keeps documents by id. Every coroutine raises ``StoreError`` if it cannot do its work."""

    max_entry_bytes: int
    """Larger documents are not to be put."""
    deadline_s: float
    """Longest time that looking up a history may take."""

    async def start(self) -> None:
        """Begin background work; need not be able to reach anything yet."""
        ...

    async def stop(self) -> None:
        """End background work and connections."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The document; None if it is unknown or expired."""
        ...

    async def put(self, key: str, document: bytes, *, lasting: bool) -> None:
        """Keep a document for the time to live.

        Args:
            lasting: it never changes, so that slower and longer tiers may have it too.
        """
        ...

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Put ``new`` if the document is still ``old``; its time to live begins again."""
        ...

    async def delete(self, key: str) -> None:
        """Forget a document, in all tiers."""
        ...

    def debug_state(self) -> dict[str, object]:
        """For the debug page."""
        ...


class MemoryBackend:
    """In this process: the least recently used are forgotten first, all after their time to live.

    Args:
        ttl_s: from the last write.
        max_entries: more are not kept.
        max_entry_bytes: for those who write.
        clock: seconds, monotonic.
    """

    deadline_s = 0.4

    def __init__(self, ttl_s: float, max_entries: int, max_entry_bytes: int, clock: Callable[[], float]) -> None:
        self.max_entry_bytes = max_entry_bytes
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Sweep out what has expired, each minute."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="responses-store sweep")

    async def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])

    async def get(self, key: str) -> bytes | None:
        """The document; it becomes the most recently used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    async def put(self, key: str, document: bytes, *, lasting: bool) -> None:
        """Keep a document; the least recently used one may have to go."""
        self._entries[key] = (self._clock() + self._ttl_s, document)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Compare and set."""
        if await self.get(key) != old:
            return False
        await self.put(key, new, lasting=False)
        return True

    async def delete(self, key: str) -> None:
        """Forget it."""
        self._entries.pop(key, None)

    def sweep(self) -> None:
        """Forget all that has expired."""
        now = self._clock()
        for key in [key for key, (expires_s, _) in self._entries.items() if expires_s <= now]:
            del self._entries[key]

    def debug_state(self) -> dict[str, object]:
        """Counts."""
        return {"backend": "memory", "entries": len(self._entries), "bytes": sum(len(d) for _, d in self._entries.values())}

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            self.sweep()


def import_extra(module: str, extra: str) -> ModuleType:
    """A module of an optional dependency.

    Raises:
        ValueError: it is not installed; the text says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the package {module.partition('.')[0]!r} is not installed ({error}): pip install 'endpoint-picker[{extra}]'"
        ) from error
