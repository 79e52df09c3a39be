"""The clock by which the last minutes are sampled."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from epp.process import operator_page
from epp.process.operator_page import OperatorPage, Shown
from epp.process.options import Options
from epp.process.runtime import TaskRuntime
from epp.telemetry.metrics import Metrics
from epp.telemetry.pool import PoolSnapshot


async def test_a_sample_that_fails_leaves_a_gap_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_page, "EVERY_S", 0.0)
    asked = 0
    enough = asyncio.Event()

    def snapshot() -> PoolSnapshot:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LookupError("gone")
        if asked == 5:
            enough.set()
        return PoolSnapshot("p")

    anything: Any = None
    pool: Any = SimpleNamespace(snapshot=snapshot, ledger=SimpleNamespace(running=0), shadow_page=dict)
    runtime = TaskRuntime()
    page = OperatorPage(Shown(Options(), pool, Metrics(), anything, anything, None), runtime)
    sampling = asyncio.create_task(page.sample())
    async with asyncio.timeout(20):
        await enough.wait()
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    await runtime.stop()
    assert page.samples >= 3
    assert page.feed.is_idle
