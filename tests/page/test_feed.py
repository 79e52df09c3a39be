"""The stream of events over real HTTP: when it looks, what it sends, and where it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from epp.page.feed import Event, Feed
from epp.transport.http_server import HttpServer, HttpSources
from tests.transport.http_client import LOCAL, sources

QUICK_S = 0.02
PROMPTLY_S = 20.0


class Looks:
    """Counts what is read."""

    def __init__(self) -> None:
        self.count = 0
        self.version = 1
        self.threads: set[int] = set()

    def read(self) -> object:
        self.count += 1
        return {"looks": self.count, "text": "a\nb\u2028</script>"}

    def render(self, state: object) -> object:
        self.threads.add(threading.get_ident())
        return state


class Events:
    """Reads a stream as a browser does."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, name: str) -> Any:
        """The data of the next event of this name."""
        found = ""
        async with asyncio.timeout(PROMPTLY_S):
            async for line in self.response.content:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    found = text.removeprefix("event: ")
                elif text.startswith("data: ") and found == name:
                    return json.loads(text.removeprefix("data: "))
        raise EOFError(name)


@contextlib.asynccontextmanager
async def served(feed: Feed) -> AsyncIterator[Callable[[], Any]]:
    """Opens pages."""
    own = sources()
    server = HttpServer(
        HttpSources(own.metrics, own.not_ready, answers={"/page/events": feed.page}),
        LOCAL,
    )
    port = await server.start()
    async with aiohttp.ClientSession() as session:
        yield lambda: session.get(f"http://127.0.0.1:{port}/page/events")
    feed.close()
    await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PROMPTLY_S):
        while not condition():  # noqa: ASYNC110 — what is waited for is inside the server
            await asyncio.sleep(QUICK_S / 2)


async def offload(function: Callable[[], bytes]) -> bytes:
    return await asyncio.to_thread(function)


async def test_nothing_is_looked_at_while_no_page_is_open() -> None:
    looks = Looks()
    feed = Feed([Event("state", looks.read)], offload, every_s=QUICK_S)
    async with served(feed) as opened:
        await asyncio.sleep(5 * QUICK_S)
        assert (looks.count, feed.is_idle) == (0, True)
        async with opened() as response:
            await Events(response).next("state")
            assert not feed.is_idle
        await until(lambda: feed.is_idle)
        before = looks.count
        await asyncio.sleep(5 * QUICK_S)
        assert looks.count == before


async def test_events_have_the_form_of_the_standard() -> None:
    feed = Feed([Event("state", Looks().read)], offload, every_s=QUICK_S)
    async with served(feed) as opened, opened() as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        lines = [await response.content.readline() for _ in range(5)]
        assert [line.partition(b":")[0].strip() for line in lines] == [b"retry", b"", b"event", b"data", b""]
        assert json.loads(lines[3].partition(b": ")[2]) == {"looks": 1, "text": "a\nb\u2028</script>"}


async def test_one_look_serves_all_pages() -> None:
    looks = Looks()
    feed = Feed([Event("state", looks.read, render=looks.render)], offload, every_s=1000.0)
    async with served(feed) as opened, opened() as one, opened() as other:
        assert [await Events(response).next("state") for response in (one, other)] == [
            {"looks": 1, "text": "a\nb\u2028</script>"}
        ] * 2
        assert looks.count == 1
        assert looks.threads
        assert threading.get_ident() not in looks.threads


async def test_what_has_not_changed_is_sent_once_to_each_page() -> None:
    looks, always = Looks(), Looks()
    events = [Event("config", looks.read, lambda: looks.version), Event("state", always.read)]
    feed = Feed(events, offload, every_s=QUICK_S)
    async with served(feed) as opened, opened() as first:
        assert (await Events(first).next("config"))["looks"] == 1
        await until(lambda: always.count > 3)
        async with opened() as second:
            assert (await Events(second).next("config"))["looks"] == 1
        looks.version = 2
        assert (await Events(first).next("config"))["looks"] == 2


async def test_a_part_that_fails_does_not_stop_the_others() -> None:
    def broken() -> object:
        raise LookupError("nobody home")

    feed = Feed([Event("config", broken), Event("state", Looks().read)], offload, every_s=QUICK_S)
    async with served(feed) as opened, opened() as response:
        assert (await Events(response).next("state"))["looks"] == 1
        assert (await Events(response).next("state"))["looks"] == 2


async def test_pages_are_bounded() -> None:
    feed = Feed([Event("state", Looks().read)], offload, every_s=QUICK_S, most=2)
    async with served(feed) as opened:
        async with opened() as one, opened() as two:
            for response in (one, two):
                await Events(response).next("state")
            async with opened() as third:
                assert (third.status, third.headers["Retry-After"]) == (503, "30")
                assert "2 pages are open" in (await third.json())["error"]
        await until(lambda: feed.is_idle)
        async with opened() as again:
            assert again.status == 200


async def test_a_stop_ends_the_streams() -> None:
    feed = Feed([Event("state", Looks().read)], offload, every_s=1000.0)
    async with served(feed) as opened, opened() as response:
        await Events(response).next("state")
        feed.close()
        async with asyncio.timeout(PROMPTLY_S):
            assert await response.read() == b"\n"
        async with opened() as late:
            assert (late.status, (await late.json())["error"]) == (503, "the picker stops")


async def test_a_stream_lives_so_long_that_no_withdrawn_permission_is_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.page.feed.LIFETIME_S", 10 * QUICK_S)
    feed = Feed([Event("state", Looks().read)], offload, every_s=QUICK_S)
    async with served(feed) as opened, opened() as response, asyncio.timeout(PROMPTLY_S):
        assert b"event: state" in await response.read()
        assert feed.is_idle


async def test_a_page_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.page.feed.WRITE_TIMEOUT_S", 0.3)
    feed = Feed([Event("state", lambda: "x" * 4_000_000)], offload, every_s=QUICK_S)
    async with served(feed) as opened, opened() as response:
        assert response.status == 200
        await until(lambda: not feed.is_idle)
        await until(lambda: feed.is_idle)
