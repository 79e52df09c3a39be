"""Redis in front of MongoDB, as one back end."""

from __future__ import annotations

from plugins.stores.backend import StoreError
from plugins.stores.copier import Copier
from plugins.stores.mongo_tier import MongoTier
from plugins.stores.parameters import SyncStream, TieredStore
from plugins.stores.redis_tier import DEADLINE_S, RedisTier


def make_tiers(params: TieredStore) -> TieredBackend:
    """The back end of ``tieredConfig``.

    Raises:
        ValueError: a client library is missing, or an address is wrong.
    """
    redis = RedisTier(params.redis)
    if params.mongo is None:
        return TieredBackend(redis, params.stream)
    mongo = MongoTier(params.mongo)
    return TieredBackend(redis, params.stream, mongo, Copier(params.redis, params.stream, mongo))


class TieredBackend:
    """Writes go to Redis, and over its stream to MongoDB; reads ask Redis, then MongoDB.

    Args:
        redis: the first tier.
        stream: between the tiers.
        mongo: the second tier, if there is one.
        copier: fills the second tier.
    """

    def __init__(
        self, redis: RedisTier, stream: SyncStream, mongo: MongoTier | None = None, copier: Copier | None = None
    ) -> None:
        self.max_entry_bytes = redis.max_entry_bytes
        self.deadline_s = DEADLINE_S + (mongo.timeout_s if mongo is not None else 0.0)
        self._redis = redis
        self._stream = stream
        self._mongo = mongo
        self._copier = copier

    async def start(self) -> None:
        """Begin to copy."""
        if self._copier is not None:
            self._copier.start()

    async def stop(self) -> None:
        """Stop copying, close connections."""
        if self._copier is not None:
            await self._copier.stop()
        await self._redis.stop()
        if self._mongo is not None:
            await self._mongo.stop()

    async def get(self, key: str) -> bytes | None:
        """From Redis; from MongoDB what Redis does not have, or cannot say."""
        if self._mongo is None:
            return await self._redis.get(key)
        failed: StoreError | None = None
        try:
            found = await self._redis.get(key)
        except StoreError as error:
            found, failed = None, error
        if found is not None:
            return found
        found = await self._mongo.get(key)
        if found is None and failed is not None:
            raise failed
        return found

    async def put(self, key: str, document: bytes, *, lasting: bool) -> None:
        """To Redis; what does not change to the stream, too."""
        await self._redis.put(key, document)
        if lasting and self._mongo is not None:
            await self._redis.announce(self._stream.key, key, document, self._stream.max_len)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """In Redis."""
        return await self._redis.replace(key, old, new)

    async def delete(self, key: str) -> None:
        """In both tiers, and in what is still to be copied."""
        await self._redis.delete(key)
        if self._mongo is not None:
            await self._redis.announce(self._stream.key, key, b"", self._stream.max_len)
            await self._mongo.delete(key)

    def debug_state(self) -> dict[str, object]:
        """Which tiers there are."""
        if self._copier is None:
            return {"backend": "redis"}
        return {"backend": "redis, mongodb", "copied": self._copier.copied}
