"""Documents in MongoDB: what Redis has forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

from plugins.stores.backend import StoreError, import_extra
from plugins.stores.parameters import MongoStore


class Collection(Protocol):
    """What is used of the client library."""

    async def create_index(self, keys: str, **options: object) -> str: ...
    async def find_one(self, query: Mapping[str, object]) -> Mapping[str, Any] | None: ...
    async def delete_one(self, query: Mapping[str, object]) -> object: ...
    async def bulk_write(self, requests: list[object], *, ordered: bool) -> object: ...


class MongoTier:
    """The second tier. A document of the collection is ``{_id: response id, doc: JSON text, expireAt: time}``.

    Args:
        params: where, and for how long.

    Raises:
        ValueError: the client library is missing, or the URI is wrong.
    """

    def __init__(self, params: MongoStore) -> None:
        self.timeout_s = params.timeout
        self._params = params
        self._library = import_extra("pymongo", "mongodb")
        self._errors = (import_extra("pymongo.errors", "mongodb").PyMongoError, OSError)
        self._client: Any = None
        if not params.uri.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("mongo.uri must begin with mongodb:// or mongodb+srv://")

    async def stop(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def prepare(self) -> None:
        """Let the server remove what has expired."""
        async with self._guarded():
            await self._collection().create_index("expireAt", expireAfterSeconds=0)

    async def get(self, key: str) -> bytes | None:
        """A document that has not expired; the server removes expired ones with a delay."""
        async with self._guarded():
            found = await self._collection().find_one({"_id": key, "expireAt": {"$gt": datetime.now(UTC)}})
        return None if found is None else str(found["doc"]).encode()

    async def delete(self, key: str) -> None:
        """Forget a document."""
        async with self._guarded():
            await self._collection().delete_one({"_id": key})

    async def write(self, documents: Mapping[str, bytes]) -> None:
        """Keep several documents; an empty one is removed."""
        expires = datetime.now(UTC) + timedelta(seconds=self._params.ttl)
        library = self._library
        requests: list[object] = [
            library.ReplaceOne({"_id": key}, {"_id": key, "doc": document.decode(), "expireAt": expires}, upsert=True)
            if document
            else library.DeleteOne({"_id": key})
            for key, document in documents.items()
        ]
        async with self._guarded():
            await self._collection().bulk_write(requests, ordered=False)

    def _collection(self) -> Collection:
        if self._client is None:
            timeout_ms = max(1, round(self.timeout_s * 1000))
            self._client = self._library.AsyncMongoClient(
                self._params.uri, timeoutMS=timeout_ms, serverSelectionTimeoutMS=timeout_ms, appname="endpoint-picker"
            )
        return cast("Collection", self._client[self._params.database][self._params.collection])

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            yield
        except self._errors as error:
            raise StoreError(f"MongoDB: {error}") from error
