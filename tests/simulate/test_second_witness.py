"""KV events of llm-d-inference-sim, which nobody here wrote, read by our decoder. Opt-in: docs/simulated-servers.md."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import zmq
import zmq.asyncio

from bench.load.process import ServerProcess, free_port

BINARY = "EPP_INFERENCE_SIM"
_WAIT_S = 20.0
_BLOCK = 16

if not os.environ.get(BINARY):
    pytest.skip(f"the environment variable {BINARY} does not name a binary of llm-d-inference-sim", allow_module_level=True)
events = pytest.importorskip("plugins.kvcache.events")


@dataclass
class Witness:
    """A running llm-d-inference-sim and what it publishes."""

    port: int
    client: aiohttp.ClientSession
    socket: zmq.asyncio.Socket

    async def complete(self, prompt: str) -> None:
        """Let it compute a prompt."""
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        async with self.client.post(url, json={"model": "witness", "prompt": prompt, "max_tokens": 1}) as response:
            assert response.status == 200, await response.text()

    async def hear(self) -> tuple[str, int, Any]:
        """Topic, sequence and decoded batch of the next message."""
        topic, sequence, payload = await asyncio.wait_for(self.socket.recv_multipart(), _WAIT_S)
        assert len(sequence) == 8
        batch = events.decode(payload)
        assert batch.errors == []
        return topic.decode(), int.from_bytes(sequence, "big"), batch

    async def is_heard(self) -> None:
        """Wait until it has connected to us: what it publishes before is lost, and only what comes tells."""
        sent = 0
        hearing = asyncio.create_task(self.hear())  # a socket that nobody reads greets nobody
        async with asyncio.timeout(_WAIT_S):
            while not hearing.done():
                await self.complete(words(_BLOCK, start=10_000 * (sent + 1)))
                sent += 1
                await asyncio.wait([hearing], timeout=0.1)
            _, sequence, _ = await hearing
            while sequence < sent:  # a message for each prompt, counted from 1
                _, sequence, _ = await self.hear()


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[Witness]:
    socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
    try:
        socket.subscribe("kv@")
        socket.bind("tcp://127.0.0.1:*")
        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        port = free_port()
        command = [
            "env", "POD_IP=127.0.0.1", os.environ[BINARY], "--model", "witness", "--port", str(port), "--enable-kvcache",
            "--block-size", str(_BLOCK), "--zmq-endpoint", endpoint, "--event-batch-size", "1", "--hash-seed", "12345", *flags,
        ]  # fmt: skip
        async with ServerProcess(command, port=port), aiohttp.ClientSession() as client:
            witness = Witness(port, client, socket)
            await witness.is_heard()
            yield witness
    finally:
        socket.close(linger=0)


def words(count: int, start: int = 0) -> str:
    return " ".join(f"word{number}" for number in range(start, start + count))


@pytest.mark.parametrize("flags", [[], ["--use-vllm-map-event-format=true"]], ids=["arrays", "maps"])
async def test_its_events_are_understood(flags: list[str]) -> None:
    async with running("--kv-cache-size", "64", *flags) as witness:
        await witness.complete(words(100))
        topic, before, batch = await witness.hear()
        assert topic == f"kv@127.0.0.1:{witness.port}@witness"
        assert batch.rank == 0
        (stored,) = batch.events
        assert isinstance(stored, events.BlockStored)
        assert stored.parent is None
        assert stored.block_size == _BLOCK
        assert len(stored.tokens) == len(stored.hashes) * _BLOCK * 4
        await witness.complete(words(100) + " " + words(100, start=1000))
        _, sequence, batch = await witness.hear()
        (longer,) = batch.events
        assert longer.parent in stored.hashes, "it goes on where the first prompt ended"
        assert not {*longer.hashes} & {*stored.hashes}
        assert sequence == before + 1


async def test_evictions_are_understood() -> None:
    async with running("--kv-cache-size", "16") as witness:
        await witness.complete(words(160))
        _, _, batch = await witness.hear()
        held = {value for event in batch.events if isinstance(event, events.BlockStored) for value in event.hashes}
        assert held
        for start in (1000, 2000, 3000):
            await witness.complete(words(160, start))
        gone: set[int] = set()
        while not gone & held:
            _, _, batch = await witness.hear()
            gone |= {value for event in batch.events if isinstance(event, events.BlockRemoved) for value in event.hashes}
        assert gone & held
