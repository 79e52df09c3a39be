"""Documents in Redis or Valkey: one server, Sentinel or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from plugins.stores.backend import StoreError, import_extra
from plugins.stores.parameters import RedisStore

PREFIX = "heimdall:responses:"
"""Of the keys of documents."""
DEADLINE_S = 0.4
"""Of one operation."""
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
        self.client = connect(params)

    async def stop(self) -> None:
        """Close connections."""
        async with self._guarded():
            await self.client.aclose()

    async def get(self, key: str) -> bytes | None:
        """A document."""
        async with self._guarded():
            return await self.client.get(PREFIX + key)

    async def put(self, key: str, document: bytes) -> None:
        """Keep a document for the time to live."""
        async with self._guarded():
            await self.client.set(PREFIX + key, document, px=self._ttl_ms)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Compare and set, in one step of the server."""
        async with self._guarded():
            return await self.client.eval(_REPLACE, 1, PREFIX + key, old, new, self._ttl_ms) == 1

    async def delete(self, key: str) -> None:
        """Forget a document."""
        async with self._guarded():
            await self.client.delete(PREFIX + key)

    async def announce(self, stream: str, key: str, document: bytes, max_len: int) -> None:
        """Write a document to a stream; an empty one says that it is gone."""
        async with self._guarded():
            await self.client.xadd(stream, {"id": key.encode(), "doc": document}, maxlen=max_len, approximate=True)

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield
        except TimeoutError as error:
            raise StoreError(f"Redis took longer than {DEADLINE_S:g} s") from error
        except self._errors as error:
            raise StoreError(f"Redis: {error}") from error


def client_errors() -> tuple[type[Exception], ...]:
    """What the client library raises when a server cannot do what it is asked.

    Raises:
        ValueError: the library is missing.
    """
    exceptions = import_extra("redis.exceptions", "redis")
    return (exceptions.RedisError, OSError)


def connect(params: RedisStore, socket_timeout_s: float = DEADLINE_S) -> RedisClient:
    """A client; it connects when it is used first.

    Args:
        socket_timeout_s: longest silence of a server.

    Raises:
        ValueError: the client library is missing, or the address is wrong.
    """
    library = import_extra("redis.asyncio", "redis")
    backoff = import_extra("redis.backoff", "redis")
    retry = import_extra("redis.asyncio.retry", "redis")
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": DEADLINE_S,
        "retry": retry.Retry(backoff.NoBackoff(), 1),
    }
    if params.username:
        options["username"] = params.username
    if params.password:
        options["password"] = params.password
    if params.address:
        if params.db:
            options["db"] = params.db
        return cast("RedisClient", library.Redis.from_url(_url(params.address), **options))
    servers = [_host_port(address) for address in params.addresses]
    if params.master_name:
        sentinel = library.Sentinel(servers, sentinel_kwargs={"socket_timeout": DEADLINE_S}, db=params.db, **options)
        return cast("RedisClient", sentinel.master_for(params.master_name))
    if len(servers) == 1:
        host, port = servers[0]
        return cast("RedisClient", library.Redis(host=host, port=port, db=params.db, **options))
    if params.db:
        raise ValueError("db must be 0: a cluster has one database")
    nodes = import_extra("redis.asyncio.cluster", "redis")
    startup: Sequence[object] = [nodes.ClusterNode(host, port) for host, port in servers]
    return cast("RedisClient", library.RedisCluster(startup_nodes=startup, **options))


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
