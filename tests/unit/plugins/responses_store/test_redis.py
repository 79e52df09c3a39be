"""Responses in a real Valkey server: alone, behind Sentinel, as a cluster; and when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio

from bench.load.process import free_port
from epp.errors import ErrorCode, RequestError
from plugins.stores.backend import StoreError
from plugins.stores.parameters import RedisStore, TieredStore
from plugins.stores.tiers import TieredBackend, make_tiers
from tests.unit.plugins.responses_store.rig import Client, make_store, user
from tests.unit.plugins.responses_store.valkey import ValkeyServer, run_server


def tiered(redis: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"storeConfig": {"tieredConfig": {"redis": redis, **more}}}


def unique(name: str) -> str:
    return f"resp_{name}_{uuid4().hex}"


@pytest.fixture(params=["alone by URL", "alone by host:port", "with a password", "behind Sentinel", "cluster"])
def servers(request: pytest.FixtureRequest, valkey_binary: str) -> Iterator[dict[str, Any]]:
    """Each kind of installation, with the parameters that lead to it."""
    match request.param:
        case "alone by URL":
            with run_server(valkey_binary) as server:
                yield {"address": server.address, "db": 3}
        case "alone by host:port":
            with run_server(valkey_binary) as server:
                yield {"addresses": [f"127.0.0.1:{server.port}"]}
        case "with a password":
            with run_server(valkey_binary, config="user me on >secret ~* &* +@all\nuser default off\n") as server:
                yield {"address": server.address, "username": "me", "password": "secret"}
        case "behind Sentinel":
            with run_server(valkey_binary) as server:
                config = f"sentinel monitor main 127.0.0.1 {server.port} 1\n"
                with run_server(valkey_binary, "--sentinel", config=config) as sentinel:
                    yield {"addresses": [f"127.0.0.1:{sentinel.port}"], "masterName": "main"}
        case _:
            options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-announce-ip", "127.0.0.1"]
            with run_server(valkey_binary, *options) as server:
                _make_cluster(server)
                yield {"addresses": [f"127.0.0.1:{server.port}", f"localhost:{server.port}"]}


def _make_cluster(server: ValkeyServer) -> None:
    """One node with all slots."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
            pass


async def test_turns_and_conversations_in_every_installation(servers: dict[str, Any]) -> None:
    store = make_store(tiered(servers))
    await store.start()
    client = Client(store)
    await client.turn("r1", "one")
    forwarded = (await client.turn("r2", "two", previous_response_id="r1")).forwarded
    assert forwarded["input"][0] == user("one")
    created = await client.call("POST", "/v1/conversations", {"items": [user("x")]})
    assert created is not None
    assert len((await client.ask(conversation=created["id"])).forwarded["input"]) == 2
    await client.call("POST", f"/v1/conversations/{created['id']}/items", {"items": [user("y")]})
    assert len((await client.ask(conversation=created["id"])).forwarded["input"]) == 3
    assert await client.call("DELETE", "/v1/responses/r1")
    with pytest.raises(RequestError, match="not found"):
        await client.ask(previous_response_id="r1")
    await store.stop()


@pytest.fixture
async def raw(valkey: ValkeyServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis(port=valkey.port) as client:
        yield client


@pytest.fixture
async def backend(valkey: ValkeyServer) -> AsyncIterator[TieredBackend]:
    params = TieredStore(redis=RedisStore(address=valkey.address, ttl="90s", max_entry_bytes=500))  # type: ignore[arg-type]
    backend = make_tiers(params)
    yield backend
    await backend.stop()


async def test_two_pickers_share_what_is_kept(valkey: ValkeyServer) -> None:
    first, second = (
        Client(make_store(tiered({"address": valkey.address}))),
        Client(make_store(tiered({"address": valkey.address}))),
    )
    key = unique("shared")
    await first.turn(key, "one")
    await first.store.stop()
    assert (await second.ask("two", previous_response_id=key)).forwarded["input"][0] == user("one")
    await second.store.stop()


async def test_keys_and_lifetimes(backend: TieredBackend, raw: redis.asyncio.Redis) -> None:
    key = unique("life")
    await backend.put(key, b'{"x":1}', lasting=True)
    assert await raw.get(f"heimdall:responses:{key}") == b'{"x":1}'
    assert 80_000 < await raw.pttl(f"heimdall:responses:{key}") <= 90_000
    await raw.pexpire(f"heimdall:responses:{key}", 1000)
    assert not await backend.replace(key, b"other", b"new")
    assert await backend.replace(key, b'{"x":1}', b"new")
    assert await raw.pttl(f"heimdall:responses:{key}") > 80_000
    await backend.delete(key)
    assert await raw.exists(f"heimdall:responses:{key}") == 0
    assert not await raw.exists("heimdall:responses:mongo_sync"), "nothing is announced when nobody copies"


async def test_entries_that_are_too_large(valkey: ValkeyServer) -> None:
    client = Client(make_store(tiered({"address": valkey.address, "maxEntryBytes": 900})))
    await client.turn(unique("large"), "x" * 900)
    assert client.count("too_large") == 1
    await client.store.stop()


async def test_changes_by_many_pickers_at_once(valkey: ValkeyServer) -> None:
    pickers = [Client(make_store(tiered({"address": valkey.address}))) for _ in range(4)]
    created = await pickers[0].call("POST", "/v1/conversations")
    assert created is not None
    path = f"/v1/conversations/{created['id']}/items"
    await asyncio.gather(*[picker.call("POST", path, {"items": [user("x")]}) for picker in pickers])
    found = await pickers[0].call("GET", path)
    assert found is not None
    assert len(found["data"]) == 4
    for picker in pickers:
        await picker.store.stop()


async def test_a_server_that_is_not_there() -> None:
    client = Client(make_store(tiered({"address": "redis://127.0.0.1:1"})))
    await client.store.start()
    await client.turn("r1")
    with pytest.raises(RequestError) as caught:
        await client.ask(previous_response_id="r1")
    assert caught.value.code is ErrorCode.SERVICE_UNAVAILABLE
    await client.store.stop()
    assert client.count("lost") == 1


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.redis_tier.DEADLINE_S", 0.05)
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = make_tiers(TieredStore(redis=RedisStore(address=f"redis://127.0.0.1:{port}")))
    with pytest.raises(StoreError, match=r"took longer than 0\.05 s"):
        await backend.get("r1")
    await backend.stop()
    await gone.wait()
    server.close()


async def test_a_server_that_comes_back(valkey_binary: str) -> None:
    with run_server(valkey_binary) as server:
        port = server.port
        client = Client(make_store(tiered({"address": f"redis://127.0.0.1:{port}"})))
        await client.turn("r1")
        await client.ask(previous_response_id="r1")
    with pytest.raises(RequestError, match="cannot be reached"):
        await client.ask(previous_response_id="r1")
    with run_server(valkey_binary, port=port):
        with pytest.raises(RequestError, match="not found"):
            await client.ask(previous_response_id="r1")
        await client.turn("r2")
        await client.ask(previous_response_id="r2")
        await client.store.stop()


async def test_a_key_of_another_kind(valkey: ValkeyServer, raw: redis.asyncio.Redis, backend: TieredBackend) -> None:
    key = unique("list")
    await raw.lpush(f"heimdall:responses:{key}", "x")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await backend.get(key)
