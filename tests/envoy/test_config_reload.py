"""Reloads of the configuration under load through the real Envoy; the proof with rates and times is ``bench.reload``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.reload import documents, replace_file, results
from epp.demo.load import Load
from epp.demo.stack import Stack, StackOptions
from epp.simulate.options import EngineOptions, ServerOptions

pytestmark = pytest.mark.envoy

FAST = ServerOptions(engine=EngineOptions(ttft_ms=1.0, tpot_ms=0.5))


async def test_no_request_fails_while_the_configuration_is_reloaded(envoy_binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    replace_file(file, documents(6)[0])
    options = StackOptions(servers=3, server=FAST, config=str(file), picker_flags=["--watch-config-file"])
    async with Stack(options) as stack:
        load = Load([stack.url], concurrency=8)
        running = asyncio.create_task(load.run(None))
        for number, document in enumerate(documents(6)[1:], 1):
            replace_file(file, document)
            async with asyncio.timeout(20):
                while sum((await results(stack.picker.metrics_port)).values()) < number:  # noqa: ASYNC110 — another process
                    await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await results(stack.picker.metrics_port) == {"success": 4, "failure": 1}
    [result] = load.results
    assert result.failures == []
    assert result.succeeded > 50
