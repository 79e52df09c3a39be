"""The second tier: responses are copied from a real Valkey server to a stand-in for MongoDB, and read from there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio

from epp.errors import ErrorCode, RequestError
from plugins.stores.backend import StoreError
from plugins.stores.mongo_tier import MongoTier
from plugins.stores.parameters import MongoStore
from tests.unit.plugins.responses_store.fake_mongo import FakeMongo
from tests.unit.plugins.responses_store.rig import Client, make_store, user
from tests.unit.plugins.responses_store.valkey import ValkeyServer


@pytest.fixture
async def mongo() -> AsyncIterator[FakeMongo]:
    async with FakeMongo() as server:
        yield server


@pytest.fixture
async def raw(valkey: ValkeyServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis(port=valkey.port) as client:
        yield client


@pytest.fixture
def parameters(valkey: ValkeyServer, mongo: FakeMongo) -> dict[str, Any]:
    """With a stream of its own for each test."""
    stream = {"key": f"sync:{uuid4().hex}", "blockTimeout": "20ms", "claimAge": "30ms"}
    tiers = {"redis": {"address": valkey.address}, "mongo": {"uri": mongo.uri, "timeout": "2s"}, "stream": stream}
    return {"storeConfig": {"tieredConfig": tiers}}


@pytest.fixture
async def client(parameters: dict[str, Any]) -> AsyncIterator[Client]:
    client = Client(make_store(parameters))
    await client.store.start()
    yield client
    await client.store.stop()


def ids(number: int) -> list[str]:
    return [f"resp_{uuid4().hex}" for _ in range(number)]


async def test_what_redis_has_forgotten(client: Client, mongo: FakeMongo, raw: redis.asyncio.Redis) -> None:
    first, second = ids(2)
    await client.turn(first, "one")
    await client.turn(second, "two", previous_response_id=first)
    await mongo.until(first, second)
    await raw.delete(f"heimdall:responses:{first}", f"heimdall:responses:{second}")
    forwarded = (await client.ask("three", previous_response_id=second)).forwarded
    assert [item["content"] for item in forwarded["input"] if item["role"] == "user"] == ["one", "two", "three"]
    stored = mongo.documents[first]
    days = (stored["expireAt"].replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds() / 86400
    assert days == pytest.approx(30, abs=0.1)
    assert {tuple(index["key"].items()): index["expireAfterSeconds"] for index in mongo.indexes} == {(("expireAt", 1),): 0}


async def test_what_has_expired_but_is_still_there(client: Client, mongo: FakeMongo, raw: redis.asyncio.Redis) -> None:
    (key,) = ids(1)
    await client.turn(key)
    await mongo.until(key)
    await raw.delete(f"heimdall:responses:{key}")
    mongo.documents[key]["expireAt"] = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(RequestError, match="not found"):
        await client.ask(previous_response_id=key)


async def test_deleting_in_both_tiers(client: Client, mongo: FakeMongo) -> None:
    first, second = ids(2)
    await client.turn(first)
    await mongo.until(first)
    await client.turn(second)
    await client.call("DELETE", f"/v1/responses/{second}")
    await client.call("DELETE", f"/v1/responses/{first}")
    (last,) = ids(1)
    await client.turn(last)
    await mongo.until(last)
    with pytest.raises(RequestError, match="not found"):
        await client.ask(previous_response_id=second)


async def test_conversations_are_not_copied(client: Client, mongo: FakeMongo) -> None:
    await client.call("POST", "/v1/conversations", {"items": [user("x")]})
    (key,) = ids(1)
    await client.turn(key)
    await mongo.until(key)


async def test_a_mongodb_that_is_away_costs_nothing_but_its_part(
    parameters: dict[str, Any], mongo: FakeMongo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plugins.stores.copier._PAUSE_S", 0.01)
    caplog.set_level(logging.INFO, "plugins.stores.copier")
    first, second = ids(2)
    mongo.fails = True
    client = Client(make_store(parameters))
    await client.store.start()
    await client.turn(first, "one")
    assert (await client.ask(previous_response_id=first)).forwarded["input"][0] == user("one"), "Redis has it"
    with pytest.raises(RequestError) as caught:
        await client.ask(previous_response_id=second)
    assert caught.value.code is ErrorCode.SERVICE_UNAVAILABLE, "nobody knows whether it exists"
    await mongo.until_refused("createIndexes")
    mongo.fails = False
    await mongo.until(first)
    await client.store.stop()
    said = [record for record in caplog.records if record.name == "plugins.stores.copier"]
    assert [record.getMessage().partition(":")[0] for record in said] == [
        "responses cannot be copied to MongoDB",
        "responses are copied to MongoDB again",
    ]


async def test_a_redis_that_is_away_leaves_what_is_in_mongodb(mongo: FakeMongo) -> None:
    tier = MongoTier(MongoStore(uri=mongo.uri, timeout="2s"))  # type: ignore[arg-type]  # as it is written
    known = Client(make_store())
    await known.turn("r1", "one")
    await known.store._repository.turn("r1", "")
    document = await known.store._repository._backend.get("r1")
    assert document is not None
    await tier.write({"r1": document})
    await tier.stop()
    tiers = {"redis": {"address": "redis://127.0.0.1:1"}, "mongo": {"uri": mongo.uri, "timeout": "2s"}}
    client = Client(make_store({"storeConfig": {"tieredConfig": tiers}}))
    assert (await client.ask("two", previous_response_id="r1")).forwarded["input"][0] == user("one")
    with pytest.raises(RequestError, match="cannot be reached"):
        await client.ask(previous_response_id="r2")
    await client.store.stop()


async def test_entries_that_another_picker_left(parameters: dict[str, Any], mongo: FakeMongo, raw: redis.asyncio.Redis) -> None:
    (key,) = ids(1)
    stream = parameters["storeConfig"]["tieredConfig"]["stream"]["key"]
    await raw.xgroup_create(stream, "mongo-sync", id="0", mkstream=True)
    await raw.xadd(stream, {"id": key, "doc": b"{}"})
    await raw.xadd(stream, {"unknown": "fields"})
    ((_, taken),) = await raw.xreadgroup("mongo-sync", "picker-that-died", {stream: ">"})
    assert len(taken) == 2
    client = Client(make_store(parameters))
    await client.store.start()
    await mongo.until(key)
    (other,) = ids(1)
    await client.turn(other)
    await mongo.until(key, other)
    pending = [entry["message_id"] for entry in await raw.xpending_range(stream, "mongo-sync", "-", "+", 10)]
    assert not {entry for entry, _ in taken} & set(pending), "what was taken over is acknowledged"
    await client.store.stop()


async def test_each_entry_is_copied_by_one_picker(parameters: dict[str, Any], mongo: FakeMongo) -> None:
    parameters["storeConfig"]["tieredConfig"]["stream"]["claimAge"] = "30s"
    pickers = [Client(make_store(parameters)) for _ in range(3)]
    for picker in pickers:
        await picker.store.start()
    keys = ids(20)
    for number, key in enumerate(keys):
        await pickers[number % 3].turn(key)
    await mongo.until(*keys)
    for picker in pickers:
        await picker.store.stop()
    assert sorted(mongo.written) == sorted(keys)


async def test_the_stream_is_trimmed(parameters: dict[str, Any], mongo: FakeMongo, raw: redis.asyncio.Redis) -> None:
    parameters["storeConfig"]["tieredConfig"]["stream"]["maxLen"] = 10
    client = Client(make_store(parameters))
    for key in ids(300):
        await client.turn(key)
    await client.store.stop()
    length = await raw.xlen(parameters["storeConfig"]["tieredConfig"]["stream"]["key"])
    assert 10 <= length < 300, "approximately, as the server finds cheap"


async def test_an_error_of_the_server(mongo: FakeMongo) -> None:
    tier = MongoTier(MongoStore(uri=mongo.uri, timeout="2s"))  # type: ignore[arg-type]
    mongo.fails = True
    with pytest.raises(StoreError, match="MongoDB: out of order"):
        await tier.get("r1")
    await tier.stop()
