"""Turns and conversations in a back end: who may read them, their histories, writes in the background.

A write is begun when a response is over and nobody waits for it, except a reader of the same document in this process: who
answers at once to what it just got finds it. A back end that fails is logged when that begins and when it is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TypeVar

from epp.framework import log
from plugins.stores.backend import Backend, StoreError
from plugins.stores.items import Item
from plugins.stores.turns import Conversation, Turn

T = TypeVar("T")

_logger = log.get(__name__)

MAX_TURNS = 256
"""Longest history; older turns are left out."""
MAX_HISTORY_BYTES = 64 * 1024 * 1024
"""Of all documents of a history: the default limit of a request body."""
MAX_WRITES = 1000
"""Writes that may wait for a slow back end; further responses are not kept."""
WRITE_DEADLINE_S = 5.0
_TRIES = 8
"""Of a change that others may precede."""


class TooLargeError(Exception):
    """A document, or a history, would be larger than is allowed."""


class Repository:
    """Reads and writes for tenants.

    Args:
        backend: where documents are kept.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._is_down = False
        self.counts: Counter[str] = Counter()
        """What happened so far, for the debug page."""

    async def start(self) -> None:
        """Begin background work."""
        await self._backend.start()

    async def stop(self) -> None:
        """Let writes end, then the back end."""
        if self._writing:
            await asyncio.wait(list(self._writing.values()), timeout=WRITE_DEADLINE_S)
        await self._backend.stop()

    def debug_state(self) -> dict[str, object]:
        """Counts, and what the back end says."""
        return {**self._backend.debug_state(), "is_down": self._is_down, "writing": len(self._writing), **self.counts}

    # ── turns ──

    async def turn(self, key: str, tenant: str) -> Turn | None:
        """A turn that this tenant may read; None if there is none.

        Raises:
            StoreError: it cannot be looked up.
        """
        return await self._reaching(self._turn(key, tenant))

    async def history(self, key: str, tenant: str) -> list[Turn] | None:
        """A turn and all before it, oldest first; None if one of them is unknown.

        Raises:
            StoreError: they cannot be looked up.
            TooLargeError: they are more than ``MAX_HISTORY_BYTES``.
        """
        return await self._reaching(self._history(key, tenant))

    def save(self, turn: Turn) -> None:
        """Keep a turn, in the background; one that is too large is not kept."""
        document = turn.encode()
        if len(document) > self._backend.max_entry_bytes:
            self.counts["too_large"] += 1
            return
        self._write(turn.id, lambda: self._backend.put(turn.id, document, lasting=True))

    async def delete_turn(self, key: str, tenant: str) -> bool:
        """Forget a turn; False if this tenant knows none.

        Raises:
            StoreError: it cannot be done.
        """
        if await self.turn(key, tenant) is None:
            return False
        await self._reaching(self._backend.delete(key))
        return True

    # ── conversations ──

    async def conversation(self, key: str, tenant: str) -> Conversation | None:
        """A conversation that this tenant may read; None if there is none.

        Raises:
            StoreError: it cannot be looked up.
        """

        async def look() -> tuple[bytes, Conversation] | None:
            await self._settled(key)
            return await self._conversation(key, tenant)

        found = await self._reaching(look())
        return None if found is None else found[1]

    async def create(self, conversation: Conversation) -> None:
        """Keep a conversation.

        Raises:
            StoreError: it cannot be done.
            TooLargeError: it is larger than an entry may be.
        """
        await self._reaching(self._backend.put(conversation.id, self._encoded(conversation), lasting=False))

    async def change(self, key: str, tenant: str, change: Callable[[Conversation], Conversation]) -> Conversation | None:
        """The conversation as it is now; None if this tenant knows none.

        Args:
            change: what to make of it; called again if somebody else changed it meanwhile.

        Raises:
            StoreError: it cannot be done.
            TooLargeError: it would be larger than an entry may be.
        """

        async def settle_and_change() -> Conversation | None:
            await self._settled(key)
            return await self._change(key, tenant, change)

        return await self._reaching(settle_and_change())

    def append(self, key: str, tenant: str, items: list[Item]) -> None:
        """Add items to a conversation, in the background; one that would be too large stays as it is."""

        async def add() -> None:
            changed = await self._change(key, tenant, lambda known: replace(known, items=[*known.items, *items]))
            if changed is None:
                self.counts["missed"] += 1

        self._write(key, add)

    async def delete_conversation(self, key: str, tenant: str) -> bool:
        """Forget a conversation; False if this tenant knows none.

        Raises:
            StoreError: it cannot be done.
        """
        if await self.conversation(key, tenant) is None:
            return False
        await self._reaching(self._backend.delete(key))
        return True

    # ── inside ──

    async def _turn(self, key: str, tenant: str) -> Turn | None:
        await self._settled(key)
        document = await self._backend.get(key)
        turn = Turn.decode(document) if document is not None else None
        return turn if turn is not None and _may_read(tenant, turn.tenant) else None

    async def _history(self, key: str, tenant: str) -> list[Turn] | None:
        turns: list[Turn] = []
        seen: set[str] = set()
        size = 0
        while key and key not in seen and len(turns) < MAX_TURNS:
            seen.add(key)
            await self._settled(key)
            document = await self._backend.get(key)
            turn = Turn.decode(document) if document is not None else None
            if turn is None or document is None or not _may_read(tenant, turn.tenant):
                return None
            size += len(document)
            if size > MAX_HISTORY_BYTES:
                raise TooLargeError(f"the history of response {turn.id!r} is larger than {MAX_HISTORY_BYTES} bytes")
            turns.append(turn)
            key = turn.previous_response_id
        return turns[::-1]

    async def _conversation(self, key: str, tenant: str) -> tuple[bytes, Conversation] | None:
        document = await self._backend.get(key)
        found = Conversation.decode(document) if document is not None else None
        if document is None or found is None or not _may_read(tenant, found.tenant):
            return None
        return document, found

    async def _change(self, key: str, tenant: str, change: Callable[[Conversation], Conversation]) -> Conversation | None:
        for _ in range(_TRIES):
            found = await self._conversation(key, tenant)
            if found is None:
                return None
            changed = change(found[1])
            if await self._backend.replace(key, found[0], self._encoded(changed)):
                return changed
        raise StoreError(f"conversation {key!r} was changed by others {_TRIES} times in a row")

    def _encoded(self, conversation: Conversation) -> bytes:
        document = conversation.encode()
        limit = self._backend.max_entry_bytes
        if len(document) > limit:
            raise TooLargeError(f"conversation {conversation.id!r} would be larger than {limit} bytes")
        return document

    async def _settled(self, key: str) -> None:
        """Wait for writes of this document that are under way; never called by a write."""
        task = self._writing.get(key)
        if task is not None:
            await asyncio.wait([task])

    async def _reaching(self, work: Awaitable[T]) -> T:
        """The result, within the back end's deadline.

        Raises:
            StoreError: also if it takes too long.
        """
        deadline_s = self._backend.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                result = await work
        except TimeoutError as error:
            late = StoreError(f"took longer than {deadline_s:g} s")
            self._failed(late)
            raise late from error
        except StoreError as error:
            self._failed(error)
            raise
        self._worked()
        return result

    def _write(self, key: str, work: Callable[[], Coroutine[object, object, None]]) -> None:
        if len(self._writing) >= MAX_WRITES:
            self.counts["dropped"] += 1
            return
        before = self._writing.get(key)
        task = asyncio.create_task(self._written(work, before), name=f"responses-store write {key}")
        self._writing[key] = task
        task.add_done_callback(lambda done: self._writing.pop(key) if self._writing.get(key) is done else None)

    async def _written(self, work: Callable[[], Coroutine[object, object, None]], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await work()
        except TooLargeError:
            self.counts["too_large"] += 1
        except (StoreError, TimeoutError) as error:
            self.counts["lost"] += 1
            self._failed(error)
        else:
            self.counts["written"] += 1
            self._worked()

    def _failed(self, error: Exception) -> None:
        self.counts["failed"] += 1
        if not self._is_down:
            _logger.warning("responses store cannot be used", error=str(error) or type(error).__name__)
        self._is_down = True

    def _worked(self) -> None:
        if self._is_down:
            _logger.info("responses store can be used again")
        self._is_down = False


def _may_read(tenant: str, owner: str) -> bool:
    """Who names no tenant may read everything, and everybody may read what has no owner."""
    return not tenant or not owner or tenant == owner
