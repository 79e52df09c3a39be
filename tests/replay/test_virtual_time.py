"""The event loop of a replay: time jumps, in order; nothing leaves it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from epp.replay.virtual_time import START_S, NothingLeftError, VirtualTimeLoop


def virtually(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work())


def test_a_day_passes_at_once() -> None:
    async def work() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    begun_s = time.monotonic()
    assert virtually(work) == pytest.approx(START_S + 86_400)
    assert time.monotonic() - begun_s < 10


def test_what_waits_is_woken_in_the_order_of_its_times() -> None:
    async def work() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, round(loop.time() - START_S, 6)))

        await asyncio.gather(sleeper("late", 3), sleeper("early", 1), sleeper("at once", 0), sleeper("also early", 1))
        return seen

    assert virtually(work) == [("at once", 0), ("early", 1), ("also early", 1), ("late", 3)]


def test_timeouts_expire() -> None:
    async def work() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time() - START_S

    assert virtually(work) == pytest.approx(5)


def test_work_for_threads_takes_no_time() -> None:
    def fail() -> None:
        raise ValueError("as it does")

    async def work() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, divmod, 7, 3) == (2, 1)
        with pytest.raises(ValueError, match="as it does"):
            await asyncio.to_thread(fail)
        return await asyncio.to_thread(abs, -3), loop.time() - START_S

    assert virtually(work) == (3, 0.0)


def test_there_is_no_network() -> None:
    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            for url in ("http://127.0.0.1:1/", "http://localhost:1/"):
                with pytest.raises(OSError, match="no network"):
                    await session.get(url)
        for opening in (
            asyncio.open_connection("127.0.0.1", 1),
            asyncio.open_unix_connection("/nowhere"),
            asyncio.start_server(lambda *_: None, "127.0.0.1", 0),
            asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0)),
        ):
            with pytest.raises(OSError, match="no network"):
                await opening

    virtually(work)


def test_waiting_for_ever_is_an_error_and_no_standstill() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftError):
        virtually(work)
