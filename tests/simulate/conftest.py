"""Fast servers on loopback, and a client that is closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest

from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool

MODEL = "sim-model"
FAST = EngineOptions(time_scale=0.02)
"""A first token after a millisecond, the others 0.2 ms apart."""
OPTIONS = ServerOptions(engine=FAST, models=(MODEL,), lora=("sql",))


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Faults, kills and clients that go away are part of the game, not errors to report."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


@pytest.fixture
async def pool() -> AsyncIterator[SimulatedPool]:
    async with SimulatedPool(1, OPTIONS) as started:
        yield started


@pytest.fixture
def base(pool: SimulatedPool) -> str:
    """URL of the only server."""
    return f"http://{pool.addresses[0]}"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells, five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
