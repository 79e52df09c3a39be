"""What a running picker's own pages tell ``epp doctor``: queues, KV events, reloads, the shadow."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.load.process import free_port
from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.envoy.test_doctor import codes, doctor, scraped


def document(port: int, **more: Any) -> str:
    """Flow control, and a prefix cache by KV events that would come over this port."""
    plugins = [
        {
            "type": "precise-prefix-cache-scorer",
            "parameters": {"kvEventsConfig": {"podDiscoveryConfig": {"socketPort": port}}},
        },
        {"type": "max-score-picker"},
    ]
    written = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "featureGates": ["flowControl"],
        "flowControl": {"defaultRequestTTL": "60s"},
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": plugin["type"]} for plugin in plugins]}],
    }
    return yaml.safe_dump({**written, **more})


async def reloaded(picker: PickerProcess, result: str) -> None:
    """Have the file read again, and wait until that has this result."""
    picker.process.send_signal(signal.SIGHUP)
    url = f"http://127.0.0.1:{picker.metrics_port}/debug/config"
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        while True:
            async with http.get(url) as response:
                reload = (await response.json())["reload"]
            if reload is not None and reload["result"] == result:
                return
            await asyncio.sleep(0.05)


async def test_each_page_tells_what_is_wrong(tmp_path: Path) -> None:
    port, config, shadow = free_port(), tmp_path / "config.yaml", tmp_path / "shadow.yaml"
    config.write_text(document(port))
    shadow.write_text(document(port, saturationDetector={"queueDepthThreshold": 3}))
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(SimulatedPool(2, ServerOptions(engine=EngineOptions(time_scale=0.0))))
        flags = [f"--endpoint={address}" for address in servers.addresses]
        flags += [f"--config-file={config}", f"--shadow-config-file={shadow}"]
        picker = await stack.enter_async_context(PickerProcess(flags))
        await scraped(picker, 2)

        async def found() -> list[dict[str, Any]]:
            status, findings = await doctor(f"--picker=http://127.0.0.1:{picker.metrics_port}")
            assert status == int(bool(codes(findings, "error")))
            return [each for each in findings if each["code"] != "PCK002"]

        findings = await found()
        assert codes(findings, "error") == {"ENG010"}, "nothing publishes on that port"
        assert codes(findings, "warning") == {"KVE003", "PCK007"}, findings
        config.write_text(document(port, plugins=[{"type": "no-such-plugin"}]))
        await reloaded(picker, "failure")
        [failed] = [each for each in await found() if each["code"] == "PCK006"]
        assert "no-such-plugin" in failed["message"]
        config.write_text(document(port, featureGates=[]))
        await reloaded(picker, "restart_required")
        findings = await found()
        assert "PCK006" not in codes(findings, "error")
        assert "PCK013" in codes(findings, "warning")
