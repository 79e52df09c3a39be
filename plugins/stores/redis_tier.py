"""Documents in Redis or Valkey: one server, Sentinel or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from plugins.stores.backend import StoreError, import_extra
from plugins.stores.parameters import RedisStore

PREFIX = "heimdall:responses:"
"""Of the keys of documents."""
DEADLINE_S = 0.4
"""Of reading a document; a request waits for it."""
SILENCE_S = 5.0
"""Longest silence of a server; requests have tighter deadlines, writes need none."""
_REPLACE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0"
)


class RedisClient(Protocol):
    """What is used of the client library, the same for all three kinds of servers."""

    async def get(self, name: str) -> bytes | None: ...
    async def set(self, name: str, value: bytes, *, px: int) -> object: ...
    async def delete(self, *names: str) -> int: ...
    async def eval(self, script: str, numkeys: int, *keys_and_args: object) -> object: ...
    async def xadd(self, name: str, fields: dict[str, bytes], *, maxlen: int, approximate: bool) -> object: ...
    async def xgroup_create(self, name: str, groupname: str, **options: object) -> object: ...
    async def xreadgroup(
        self, groupname: str, consumername: str, streams: dict[str, str], *, count: int, block: int
    ) -> Any: ...
    async def xautoclaim(
        self, name: str, groupname: str, consumername: str, min_idle_time: int, start_id: str, *, count: int
    ) -> Any: ...
    async def xack(self, name: str, groupname: str, *ids: bytes) -> object: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Connections:
    """A client, and what it asks where its server is."""

    client: RedisClient
    sentinels: Sequence[RedisClient] = ()

    async def close(self) -> None:
        """Close all of them."""
        for client in (self.client, *self.sentinels):
            await client.aclose()


class RedisTier:
    """The first tier, or the only one.

    Args:
        params: servers, time to live, largest entry.

    Raises:
        ValueError: the client library is missing, or the address is wrong.
    """

    def __init__(self, params: RedisStore) -> None:
        self.max_entry_bytes = params.max_entry_bytes
        self._params = params
        self._ttl_ms = max(1, round(params.ttl * 1000))
        self._errors = client_errors()
        self._connections = connect(params)
        self._client = self._connections.client

    async def stop(self) -> None:
        """Close connections."""
        async with self._guarded():
            await self._connections.close()

    async def get(self, key: str) -> bytes | None:
        """A document, within ``DEADLINE_S``."""
        try:
            async with self._guarded(), asyncio.timeout(DEADLINE_S):
                return await self._client.get(PREFIX + key)
        except TimeoutError as error:
            raise StoreError(f"Redis took longer than {DEADLINE_S:g} s") from error

    async def put(self, key: str, document: bytes) -> None:
        """Keep a document for the time to live."""
        async with self._guarded():
            await self._client.set(PREFIX + key, document, px=self._ttl_ms)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Compare and set, in one step of the server."""
        async with self._guarded():
            return await self._client.eval(_REPLACE, 1, PREFIX + key, old, new, self._ttl_ms) == 1

    async def delete(self, key: str) -> None:
        """Forget a document."""
        async with self._guarded():
            await self._client.delete(PREFIX + key)

    async def announce(self, stream: str, key: str, document: bytes, max_len: int) -> None:
        """Write a document to a stream; an empty one says that it is gone."""
        async with self._guarded():
            await self._client.xadd(stream, {"id": key.encode(), "doc": document}, maxlen=max_len, approximate=True)

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            yield
        except TimeoutError:  # an OSError, but not the server's
            raise
        except self._errors as error:
            raise StoreError(f"Redis: {error}") from error


def client_errors() -> tuple[type[Exception], ...]:
    """What the client library raises when a server cannot do what it is asked.

    Raises:
        ValueError: the library is missing.
    """
    exceptions = import_extra("redis.exceptions", "redis")
    return (exceptions.RedisError, OSError)


def connect(params: RedisStore, silence_s: float = SILENCE_S) -> Connections:
    """A client for one server, for the master that Sentinel names, or for a cluster; it connects when it is used first.

    Args:
        silence_s: longest silence of a server.

    Raises:
        ValueError: the client library is missing, or the address is wrong.
    """
    library = import_extra("redis.asyncio", "redis")
    backoff = import_extra("redis.backoff", "redis")
    retry = import_extra("redis.asyncio.retry", "redis")
    options: dict[str, Any] = {
        "socket_timeout": silence_s,
        "socket_connect_timeout": SILENCE_S,
        "retry": retry.Retry(backoff.NoBackoff(), 1),
    }
    if params.username:
        options["username"] = params.username
    if params.password:
        options["password"] = params.password
    if params.address:
        if params.db:
            options["db"] = params.db
        return Connections(library.Redis.from_url(_url(params.address), **options))
    servers = [_host_port(address) for address in params.addresses]
    if params.master_name:
        sentinel = library.Sentinel(servers, sentinel_kwargs={"socket_timeout": SILENCE_S}, db=params.db, **options)
        return Connections(sentinel.master_for(params.master_name), tuple(sentinel.sentinels))
    if len(servers) == 1:
        host, port = servers[0]
        return Connections(library.Redis(host=host, port=port, db=params.db, **options))
    if params.db:
        raise ValueError("db must be 0: a cluster has one database")
    nodes = import_extra("redis.asyncio.cluster", "redis")
    startup: Sequence[object] = [nodes.ClusterNode(host, port) for host, port in servers]
    return Connections(library.RedisCluster(startup_nodes=startup, **options))


def _url(address: str) -> str:
    for scheme, plain in (("valkey://", "redis://"), ("valkeys://", "rediss://")):
        if address.startswith(scheme):
            return plain + address.removeprefix(scheme)
    if not address.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(
            f"address {address.partition('@')[2] or address!r} must begin with redis://, rediss://, valkey:// or valkeys://"
        )
    return address


def _host_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"addresses: {address!r} is not host:port")
    return host.strip("[]"), int(port)
