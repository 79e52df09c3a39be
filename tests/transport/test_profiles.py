"""The pages below /debug/pprof, of a server in this process and of a real picker."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from epp.demo.picker import PickerProcess
from epp.transport.http_server import HttpServer
from epp.transport.profiles import collapsed, sample
from tests.transport.http_client import LOCAL, Client, sources


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    server = HttpServer(sources(), replace(LOCAL, pprof=True))
    yield Client(await server.start())
    await server.stop()


def test_a_profile_shows_where_threads_are() -> None:
    over = threading.Event()

    def busy_in_this_test() -> None:
        over.wait()

    thread = threading.Thread(target=busy_in_this_test, name="the worker")
    thread.start()
    try:
        stacks = sample(0.2)
    finally:
        over.set()
        thread.join()
    [line] = [line for line in collapsed(stacks).splitlines() if line.startswith("the worker;")]
    stack, count = line.rsplit(" ", 1)
    assert "busy_in_this_test;threading.Event.wait;" in stack
    assert 3 <= int(count) <= 25


async def test_the_server_answers_while_a_profile_is_made(client: Client) -> None:
    making = asyncio.create_task(client.ask("/debug/pprof/profile?seconds=0.5"))
    assert (await client.ask("/healthz")).status == 200
    assert not making.done()
    assert b"MainThread;" in (await making).body


async def test_one_profile_is_made_at_a_time(client: Client) -> None:
    asked = [client.ask("/debug/pprof/profile?seconds=0.5") for _ in range(2)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status for answer in answers) == [200, 400]
    assert (await client.ask("/debug/pprof/profile?seconds=0.01")).status == 200


@pytest.mark.parametrize("seconds", ["0", "-1", "1000", "long", "nan"])
async def test_a_time_that_cannot_be_used_is_told(client: Client, seconds: str) -> None:
    answer = await client.ask(f"/debug/pprof/profile?seconds={seconds}")
    assert answer.status == 400
    assert "seconds must be a number above 0" in str(answer.json()["error"])


async def test_memory_that_is_not_traced_is_told(client: Client) -> None:
    answer = await client.ask("/debug/pprof/heap")
    assert answer.status == 400
    assert "PYTHONTRACEMALLOC" in str(answer.json()["error"])


async def test_memory_by_place(client: Client) -> None:
    tracemalloc.start()
    try:
        kept = [bytes(100_000) for _ in range(10)]
        text = (await client.ask("/debug/pprof/heap")).body.decode()
    finally:
        tracemalloc.stop()
    assert text.startswith("traced: ")
    assert "test_profiles.py" in text
    assert len(kept) == 10


async def test_the_pages_of_a_running_picker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONTRACEMALLOC", "1")  # imports take several times as long
    monkeypatch.setenv("NODE_NAME", "node-1")
    flags = ["--endpoint=127.0.0.1:9", "--secure-serving=false", "--enable-pprof"]
    async with (
        PickerProcess(flags, start_timeout_s=100) as picker,
        aiohttp.ClientSession(f"http://127.0.0.1:{picker.metrics_port}") as session,
    ):
        for page, fragment in (("profile?seconds=0.2", "MainThread;"), ("heap", "traced: "), ("goroutine", "tasks: ")):
            async with session.get(f"/debug/pprof/{page}") as response:
                assert response.status == 200
                assert fragment in await response.text()
        assert '"node":"node-1"' in picker.log


async def test_they_are_behind_the_authentication() -> None:
    flags = ["--endpoint=127.0.0.1:9", "--secure-serving=false", "--enable-pprof", "--metrics-endpoint-auth"]
    async with PickerProcess(flags) as picker, aiohttp.ClientSession(f"http://127.0.0.1:{picker.metrics_port}") as session:
        for page in ("profile", "heap", "goroutine"):
            async with session.get(f"/debug/pprof/{page}") as response:
                assert response.status == 401
