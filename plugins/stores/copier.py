"""Copy responses from the Redis stream to MongoDB: every picker is a consumer of one group, so that each entry is copied once.

An entry is acknowledged when MongoDB has it. What a picker took and did not acknowledge, because it ended or MongoDB was
away, is taken over by another after ``claimAge``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from uuid import uuid4

from epp.framework import log
from plugins.stores.backend import StoreError
from plugins.stores.mongo_tier import MongoTier
from plugins.stores.parameters import RedisStore, SyncStream
from plugins.stores.redis_tier import SILENCE_S, RedisClient, client_errors, connect

_logger = log.get(__name__)

_PAUSE_S = 1.0
"""After a failure."""
_GRACE_S = 1.0
_CANCEL_AGAIN_S = 0.1

Entries = Sequence[tuple[bytes, dict[bytes, bytes] | None]]
"""Ids of the stream with their fields; None for one that was trimmed."""


class Copier:
    """The background work of a picker that has a MongoDB.

    Args:
        redis: its servers; it gets a connection of its own, because reads wait.
        stream: the stream and its group.
        mongo: where responses go.
    """

    def __init__(self, redis: RedisStore, stream: SyncStream, mongo: MongoTier) -> None:
        self._redis = redis
        self._stream = stream
        self._mongo = mongo
        self._errors: tuple[type[Exception], ...] = (*client_errors(), StoreError, TimeoutError)
        self._consumer = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.copied = 0
        """Entries that are in MongoDB."""

    def start(self) -> None:
        """Begin to copy."""
        self._task = asyncio.create_task(self._run(), name="responses-store copy")

    async def stop(self) -> None:
        """Finish what was read, or leave it to others if that takes longer than a read and a second."""
        self._stopping.set()
        task = self._task
        if task is None:
            return
        await asyncio.wait([task], timeout=self._stream.block_timeout + _GRACE_S)
        while not task.done():
            # Again, if it must be: a client that waits with asyncio.wait_for loses a cancellation in Python 3.11 when the
            # answer comes at the same time.
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)

    async def _run(self) -> None:
        connections = connect(self._redis, self._stream.block_timeout + SILENCE_S)
        client = connections.client
        stopping = asyncio.create_task(self._stopping.wait())
        is_down = False
        try:
            while not self._stopping.is_set():
                try:
                    await self._prepare(client)
                    if is_down:
                        _logger.info("responses are copied to MongoDB again")
                    is_down = False
                    await self._copy_until_stopped(client)
                except self._errors as error:
                    if not is_down:
                        _logger.warning("responses cannot be copied to MongoDB", error=str(error) or type(error).__name__)
                    is_down = True
                    await asyncio.wait([stopping], timeout=_PAUSE_S)
        finally:
            stopping.cancel()
            await connections.close()

    async def _prepare(self, client: RedisClient) -> None:
        await self._mongo.prepare()
        try:
            await client.xgroup_create(self._stream.key, self._stream.consumer_group, id="0", mkstream=True)
        except self._errors as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _copy_until_stopped(self, client: RedisClient) -> None:
        stream = self._stream
        loop = asyncio.get_running_loop()
        claim_at_s = loop.time()
        while not self._stopping.is_set():
            if loop.time() >= claim_at_s:
                await self._claim(client)
                claim_at_s = loop.time() + stream.claim_age
            block_ms = max(1, round(stream.block_timeout * 1000))
            found = await client.xreadgroup(
                stream.consumer_group, self._consumer, {stream.key: ">"}, count=stream.batch_size, block=block_ms
            )
            for entries in _entries_of(found):
                await self._copy(client, entries)

    async def _claim(self, client: RedisClient) -> None:
        """Take over what has been idle for too long, this picker's own included."""
        stream = self._stream
        idle_ms = max(1, round(stream.claim_age * 1000))
        cursor = "0-0"
        while True:
            answer = await client.xautoclaim(
                stream.key, stream.consumer_group, self._consumer, idle_ms, cursor, count=stream.batch_size
            )
            next_cursor, entries = answer[0], answer[1]
            await self._copy(client, entries)
            cursor = next_cursor.decode() if isinstance(next_cursor, bytes) else str(next_cursor)
            if cursor == "0-0":
                return

    async def _copy(self, client: RedisClient, entries: Entries) -> None:
        if not entries:
            return
        documents = {fields[b"id"].decode(): fields[b"doc"] for _, fields in entries if fields and b"id" in fields}
        if documents:
            await self._mongo.write(documents)
        await client.xack(self._stream.key, self._stream.consumer_group, *[entry for entry, _ in entries])
        self.copied += len(entries)


def _entries_of(found: object) -> list[Entries]:
    """The entries of one read, whichever protocol version the connection speaks."""
    if not found:
        return []
    if isinstance(found, dict):
        return [entries for batches in found.values() for entries in batches]
    return [entries for _, entries in found]  # type: ignore[attr-defined]
