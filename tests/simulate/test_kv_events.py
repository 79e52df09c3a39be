"""KV events over real ZeroMQ sockets: who hears what, replays, restarts, the tokens of a prompt."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import zmq
import zmq.asyncio

from epp.errors import UsageError
from epp.simulate.kv_publisher import KvPublisher
from epp.simulate.options import EventLayout, KvEventOptions, ReplayLayout
from epp.simulate.server import SimulatedPool, SimulatedServer
from tests.simulate.conftest import MODEL, OPTIONS
from tests.simulate.subscriber import message, replay, subscriber

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Where is the station? " * 20}], "max_tokens": 1}
END = b"\xff" * 8


@asynccontextmanager
async def serving(**events: Any) -> AsyncIterator[SimulatedServer]:
    options = replace(OPTIONS, kv_events=KvEventOptions(**events))
    async with SimulatedPool(1, options) as pool:
        yield pool.servers[0]


def events_of(server: SimulatedServer) -> KvPublisher:
    assert server.kv_events is not None
    return server.kv_events


async def chat(client: aiohttp.ClientSession, server: SimulatedServer, body: dict[str, Any] = CHAT, path: str = "") -> Any:
    async with client.post(f"http://{server.address}/v1/chat/completions{path}", json=body) as response:
        assert response.status == 200
        return await response.json()


async def test_a_prompt_is_announced_with_the_tokens_that_the_server_renders(client: aiohttp.ClientSession) -> None:
    async with serving() as server, subscriber(events_of(server).address) as heard:
        await events_of(server).subscribed()
        await chat(client, server)
        told = await heard.next()
        rendered = (await chat(client, server, path="/render"))["token_ids"]
        async with client.post(f"http://{server.address}/tokenize", json=CHAT) as response:
            tokenized = await response.json()
    (event,) = told.events
    assert (told.topic, told.sequence) == ("", 0)
    assert event["type"] == "BlockStored"
    assert event["token_ids"] == rendered[: len(rendered) // 16 * 16]
    assert (tokenized["tokens"], tokenized["count"]) == (rendered, len(rendered))


async def test_a_text_and_its_tokens_are_the_same_prompt(client: aiohttp.ClientSession) -> None:
    text = "Once upon a time there was a queue. " * 10
    async with serving() as server:
        async with client.post(f"http://{server.address}/tokenize", json={"prompt": text}) as response:
            tokens = (await response.json())["tokens"]
        usage = []
        for prompt in (text, tokens):
            async with client.post(f"http://{server.address}/v1/completions", json={"prompt": prompt}) as response:
                usage.append((await response.json())["usage"])
        async with client.post(f"http://{server.address}/tokenize", json={"prompt": ["a", "b"]}) as response:
            assert response.status == 400
    assert usage[0]["prompt_tokens"] == usage[1]["prompt_tokens"] == len(tokens)
    assert usage[1]["prompt_tokens_details"]["cached_tokens"] == (len(tokens) - 1) // 16 * 16


async def test_the_topic_names_the_server_and_filters(client: aiohttp.ClientSession) -> None:
    async with serving(topic="kv@{address}@{model}") as server:
        events = events_of(server)
        async with subscriber(events.address, topic="kv@") as heard, subscriber(events.address, topic="other") as deaf:
            await events.subscribed(2)
            await chat(client, server)
            told = await heard.next()
            assert told.topic == f"kv@{server.address}@{MODEL}"
            with pytest.raises(TimeoutError):  # what it would hear was sent with the other
                await asyncio.wait_for(deaf.next(), 0.05)


async def test_servers_connect_to_a_subscriber_that_binds(client: aiohttp.ClientSession) -> None:
    async with subscriber() as heard:
        options = replace(OPTIONS, kv_events=KvEventOptions(endpoint=heard.bind(), topic="kv@{host}:{port}@{model}", rank=1))
        async with SimulatedPool(2, options) as pool:
            for server in pool.servers:
                hearing = asyncio.create_task(heard.next())  # a socket that nobody reads greets nobody
                await events_of(server).subscribed()
                await chat(client, server)
                told = await hearing
                assert told.topic == f"kv@{server.address}@{MODEL}"
                assert told.batch["data_parallel_rank"] == 1


async def test_a_reset_of_the_cache_is_told(client: aiohttp.ClientSession) -> None:
    async with serving(layout=EventLayout.ARRAY) as server, subscriber(events_of(server).address) as heard:
        await events_of(server).subscribed()
        await chat(client, server)
        await heard.next()
        async with client.post(f"http://{server.address}/reset_prefix_cache") as response:
            assert await response.json() == {"reset": True}
        told = await heard.next()
        assert told.sequence == 1
        assert told.batch[1:] == [[["AllBlocksCleared"]], 0]
        usage = (await chat(client, server))["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_restarted_server_counts_from_zero_on_its_port_and_tells_nothing_of_its_end(
    client: aiohttp.ClientSession,
) -> None:
    options = replace(OPTIONS, kv_events=KvEventOptions())
    async with SimulatedPool(1, options) as pool:
        server = pool.servers[0]
        address = events_of(server).address
        async with subscriber(address) as heard:
            await events_of(server).subscribed()
            for size in (1, 2):
                await chat(client, server, {**CHAT, "messages": CHAT["messages"] * size})  # type: ignore[operator]
            assert [(await heard.next()).sequence for _ in range(2)] == [0, 1]
            hearing = asyncio.create_task(heard.next())  # a socket that nobody reads does not greet again
            await pool.kill("sim-0")
            await pool.restart("sim-0")
            assert events_of(server).address == address
            await events_of(server).subscribed()
            await chat(client, server)
            again = await hearing
    assert again.sequence == 0
    assert [event["type"] for event in again.events] == ["BlockStored"]


@pytest.mark.parametrize("layout", ReplayLayout)
async def test_past_batches_can_be_asked_for(client: aiohttp.ClientSession, layout: ReplayLayout) -> None:
    async with serving(has_replay=True, replay_layout=layout, buffer_steps=3, topic="t") as server:
        events = events_of(server)
        async with subscriber(events.address) as heard:
            await events.subscribed()
            for number in range(5):
                await chat(client, server, {**CHAT, "cache_salt": f"{number}"})
            live = [await heard.next() for _ in range(5)]
        head = [b"t"] if layout is ReplayLayout.TOPIC else []
        *old, end = await replay(events.replay_address, 3)
        assert end == [*head, END, b""]
        assert [frames[: len(head)] for frames in old] == [head] * 2
        assert [message([b"t", *frames[-2:]]) for frames in old] == live[3:]
        everything = await replay(events.replay_address, 0)
        assert [int.from_bytes(frames[-2], "big") for frames in everything[:-1]] == [2, 3, 4], "three steps are kept"
        assert await replay(events.replay_address, 5) == [[*head, END, b""]]


async def test_nonsense_at_the_replay_socket_changes_nothing(client: aiohttp.ClientSession) -> None:
    async with serving(has_replay=True) as server:
        await chat(client, server)
        endpoint = events_of(server).replay_address
        socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        socket.connect(endpoint)
        await socket.send_multipart([b"x"])
        assert len(await replay(endpoint, 0)) == 2
        socket.close(linger=0)


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    async with serving() as server:
        taken = events_of(server).port
        other = SimulatedServer("other", replace(OPTIONS, kv_events=KvEventOptions(port=taken)))
        with pytest.raises(OSError, match="KV events"):
            await other.start()
        assert not other.is_up
        again = SimulatedServer("again", OPTIONS, port=other.port)
        await again.start()
        await again.stop(0)


async def test_without_the_extra_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbor2", None)  # as if it were not installed
    server = SimulatedServer("s", replace(OPTIONS, kv_events=KvEventOptions()))
    with pytest.raises(UsageError, match=r"extra 'kv-events', of which cbor2 is missing: pip install"):
        await server.start()
    assert not server.is_up
