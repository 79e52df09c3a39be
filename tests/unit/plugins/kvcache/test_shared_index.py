"""An index in a real Valkey: shared with other pickers, older and newer ones, and away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from epp.framework.testing import make_context, make_plugin
from epp.framework.types import EndpointChange
from plugins.kvcache import shared_index
from plugins.kvcache.event_index import IndexSettings, PythonEventIndex
from plugins.kvcache.event_processor import Source
from plugins.kvcache.request_keys import CborFnvChain, token_bytes
from plugins.kvcache.shared_index import IndexUnavailableError, RedisStore, Server, SharedLookup, entry_field, read_field
from plugins.producers import precise_prefix
from tests.unit.plugins.kvcache.payloads import CLEARED, SAMPLES, payload, removed, stored
from tests.unit.plugins.kvcache.test_precise import CANDIDATES, matches, request_with, tokenized
from tests.unit.plugins.kvcache.test_precise import A as ENDPOINT
from tests.unit.plugins.responses_store.valkey import ValkeyServer

A, B = "10.0.0.1:8000", "10.0.0.2:8000"
T = token_bytes(range(1, 49))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a busy machine does not meet by chance."""
    monkeypatch.setattr(shared_index, "DEADLINE_S", 30.0)
    monkeypatch.setattr(shared_index, "SILENCE_S", 30.0)


class Picker:
    """One picker of several on a database."""

    def __init__(self, server: Server) -> None:
        self.index = PythonEventIndex(
            IndexSettings(aliases={"m": "m"}),
            chain=CborFnvChain(),
            make_store=lambda local, tiers: self.made(RedisStore(server, local, tiers)),
        )
        self.lookup = SharedLookup(server, self.index, self.index.tiers, self.store)

    def made(self, store: RedisStore) -> RedisStore:
        self.store = store
        return store

    def feed(self, *payloads: bytes, pod: str = A) -> None:
        for data in payloads:
            self.index.apply(Source(pod, (), "m"), data)

    async def blocks(self, tokens: bytes = T) -> dict[str, int]:
        found = await self.lookup.lookup(self.index.keys("m", tokens), 0.0)
        return {pod: match.blocks for pod, match in found.items()}


@asynccontextmanager
async def pickers(address: str, prefix: str, count: int = 1) -> AsyncIterator[list[Picker]]:
    found = [Picker(Server(address, prefix)) for _ in range(count)]
    try:
        yield found
    finally:
        for picker in found:
            await picker.lookup.stop()


async def test_prefix_95_pickers_see_what_others_were_told(valkey: ValkeyServer) -> None:
    async with pickers(valkey.address, "p95:", 2) as (one, other):
        one.feed(SAMPLES["A"], SAMPLES["B"], pod=A)
        other.feed(SAMPLES["A"], pod=B)
        for picker in (one, other):
            assert await picker.blocks() == {A: 3, B: 2}
        other.feed(SAMPLES["B"], pod=B)
        one.feed(payload(CLEARED), pod=A)
        for picker in (one, other):
            assert await picker.blocks() == {B: 3}


async def test_a_parent_may_be_known_to_another_picker_only(valkey: ValkeyServer) -> None:
    async with pickers(valkey.address, "parent:", 2) as (one, other):
        one.feed(SAMPLES["A"], pod=A)
        other.feed(SAMPLES["B"], pod=A)
        assert await one.blocks() == {A: 3}


async def test_what_is_written(valkey: ValkeyServer) -> None:
    client: Any = redis.Redis(port=valkey.port, decode_responses=True)
    async with pickers(valkey.address, "w:") as (picker,):
        picker.feed(SAMPLES["A"])
        field = '{"PodIdentifier":"10.0.0.1:8000","DeviceTier":"gpu","Speculative":false,"HasGroup":false,"GroupIdx":0}'
        assert client.hgetall("w:18216873062712665045") == {field: ""}
        assert client.zrange("w:engine:7946494704765058032", 0, -1, withscores=True) == [("18216873062712665045", 0.0)]
        assert client.ttl("w:engine:7946494704765058032") > 80_000
        picker.feed(payload(removed([7946494704765058032])))
        assert not client.exists("w:18216873062712665045")
    client.close()


async def test_entries_of_older_pickers_are_read_and_removed(valkey: ValkeyServer) -> None:
    client: Any = redis.Redis(port=valkey.port, decode_responses=True)
    async with pickers(valkey.address, "old:") as (picker,):
        first, second, third = picker.index.keys("m", T)
        client.hset(f"old:{first}", f"{A}@gpu", "")
        client.hset(f"old:{second}", f"{A}@[speculative]", "")
        client.set("old:engine:12205898305926617717", str(second))
        assert await picker.blocks() == {A: 2}
        picker.feed(payload(stored([5], range(33, 49), parent=12205898305926617717, block=16)))
        assert await picker.blocks() == {A: 3}
        assert client.exists(f"old:{third}")
        picker.feed(payload(CLEARED))
        assert await picker.blocks() == {}, "also what others wrote of this pod"
    client.close()


def test_fields_of_both_forms() -> None:
    assert read_field(entry_field(A, "cpu")) == (A, "cpu")
    assert read_field(entry_field(A, "cpu").replace('"Speculative":false', '"Speculative":true')) == (A, "speculative")
    assert read_field(f"{A}@GPU") == (A, "gpu")
    assert read_field("{") == read_field('{"PodIdentifier":7}') == ("", "")


async def test_what_was_just_sent_is_assumed_here_too(valkey: ValkeyServer) -> None:
    async with pickers(valkey.address, "assume:") as (picker,):
        picker.feed(payload(stored([1], range(1, 17), block=16)))
        picker.index.admit(B)
        keys = picker.index.keys("m", T)
        picker.index.assume(keys, A, 10.0)
        picker.index.assume(keys[:1], B, 10.0)
        found = await picker.lookup.lookup(keys, 0.0)
        assert {pod: (match.blocks, match.weighted) for pod, match in found.items()} == {A: (3, 3.0), B: (1, 1.0)}
        assert found[A].by_tier == {"gpu": 1, "speculative": 3}


async def test_long_prompts_are_asked_for_in_pieces(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_index, "CHUNK", 2)
    async with pickers(valkey.address, "chunk:") as (picker,):
        tokens = range(1, 16 * 7 + 1)
        picker.feed(payload(stored(range(1, 8), tokens, block=16)))
        picker.feed(payload(stored(range(1, 4), range(1, 49), block=16, medium="CPU")), pod=B)
        keys = picker.index.keys("m", token_bytes(tokens))
        found = await picker.lookup.lookup(keys, 0.0)
        assert {pod: (match.blocks, round(match.weighted, 6)) for pod, match in found.items()} == {A: (7, 7.0), B: (3, 2.4)}


# ── away ──

AWAY = "127.0.0.1:1"


def make(address: str) -> Any:
    """A producer whose index is there."""
    parameters = {
        "tokenProcessorConfig": {"blockSize": 4},
        "kvEventsConfig": {"discoverPods": False, "zmqEndpoint": "tcp://127.0.0.1:0"},
        "indexerConfig": {"kvBlockIndexConfig": {"valkeyConfig": {"address": address}}},
    }
    plugin = make_plugin(precise_prefix.PLUGIN, parameters, make_context("mine"))
    plugin.endpoints_changed(EndpointChange(added=tuple(CANDIDATES.endpoints)))
    return plugin


async def test_prefix_94_an_index_that_is_away_at_the_start_is_an_error() -> None:
    plugin = make(AWAY)
    with pytest.raises(OSError, match=r"the block index at 127\.0\.0\.1:1 cannot be reached"):
        await plugin.start()


async def test_prefix_94_an_index_that_goes_away_costs_only_the_match(caplog: pytest.LogCaptureFixture) -> None:
    plugin = make(AWAY)
    request = request_with(tokenized())
    await plugin.produce(request, CANDIDATES)
    assert matches(request) is None
    assert plugin.debug_state()["failures"] == {"index": 1}
    plugin._parts.index.apply(Source(ENDPOINT.host_port), payload(stored([1], range(1, 5))))
    assert "the shared index is not written" in caplog.text
    assert plugin._parts.shared.write_errors == 1
    await plugin._parts.shared.stop()


async def test_no_lookup_takes_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_index, "DEADLINE_S", 0.01)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with silent, pickers(f"127.0.0.1:{silent.sockets[0].getsockname()[1]}", "") as (picker,):
        # The client library tells of its reader's cancellation in its own words if that comes first.
        with pytest.raises(IndexUnavailableError, match=r"no answer within 0\.01 s|Timeout reading from"):
            await picker.blocks()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("", "redis://127.0.0.1:6379"),
        ("host:1", "redis://host:1"),
        ("valkey://host:1", "redis://host:1"),
        ("valkeys://host:1", "rediss://host:1"),
        ("unix:///x", "unix:///x"),
        ("rediss://host:1/2", "rediss://host:1/2"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert Server(address).url == url


async def test_a_plugin_with_its_index_in_valkey(valkey: ValkeyServer) -> None:
    plugin = make(valkey.address)
    await plugin.start()
    try:
        plugin._parts.index.apply(Source(ENDPOINT.host_port), payload(stored(range(1, 5), range(1, 17))))
        request = request_with(tokenized())
        await plugin.produce(request, CANDIDATES)
        found = matches(request)
        assert found is not None
        assert found[ENDPOINT.id].match_blocks == 4
    finally:
        await plugin.stop()
