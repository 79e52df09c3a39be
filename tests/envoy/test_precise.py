"""Precise prefixes through a real Envoy: the servers' KV events, not what was sent where, decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.load.process import free_port
from epp.commands import check
from epp.demo.stack import Stack, StackOptions
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, EventLayout, KvEventOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from epp.transport.choose import NATIVE_MODULE

pytestmark = pytest.mark.envoy

TRANSPORTS = ["grpcio", "native"] if find_spec(NATIVE_MODULE) else ["grpcio"]
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
"""Pods have addresses of their own and the same port for events."""
ADMISSIONS = "llm_d_epp_kv_cache_index_admissions_total"
PROMPT = "Where is the station? " * 64
BLOCKS = len(PROMPT) // 4 // 16


def configuration(renderer: str, event_port: int) -> dict[str, Any]:
    """Events from all pods, tokens from a server that renders."""
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "token-producer", "parameters": {"modelName": DEFAULT_MODEL, "vllm": {"url": renderer}}},
            {
                "type": "precise-prefix-cache-scorer",
                "parameters": {
                    "tokenProcessorConfig": {"blockSize": 16},
                    "indexerConfig": {
                        "tokenizersPoolConfig": {"modelName": DEFAULT_MODEL},
                        "kvBlockIndexConfig": {"enableMetrics": True},
                    },
                    "kvEventsConfig": {"discoverPods": True, "podDiscoveryConfig": {"socketPort": event_port}},
                },
            },
            {"type": "max-score-picker"},
        ],
        "schedulingProfiles": [
            {
                "name": "default",
                "plugins": [{"pluginRef": "precise-prefix-cache-scorer"}, {"pluginRef": "max-score-picker"}],
            }
        ],
    }


@dataclass
class Pods:
    """Three servers behind Envoy, and a client."""

    stack: Stack
    client: aiohttp.ClientSession

    async def ask(self, url: str, prompt: str = PROMPT) -> tuple[str, int]:
        """Who served it, and how many of its tokens were cached there."""
        body = {"model": DEFAULT_MODEL, "prompt": prompt, "max_tokens": 1}
        async with self.client.post(f"{url}/v1/completions", json=body) as response:
            document = await response.json()
            assert response.status == 200, document
            return response.headers["x-served-by-name"], document["usage"]["prompt_tokens_details"]["cached_tokens"]

    async def admitted(self, blocks: int) -> None:
        """Wait until the picker has indexed so many; its page can only be polled."""
        url = f"http://127.0.0.1:{self.stack.picker.metrics_port}/metrics"
        async with asyncio.timeout(20):
            while True:
                async with self.client.get(url) as response:
                    families = text_string_to_metric_families(await response.text())
                values = [sample.value for family in families for sample in family.samples if sample.name == ADMISSIONS]
                if sum(values) >= blocks:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture(params=[(transport, layout) for transport in TRANSPORTS for layout in EventLayout], ids="-".join)
async def pods(
    request: pytest.FixtureRequest, tmp_path: Path, envoy_binary: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Pods]:
    transport, layout = request.param
    async with AsyncExitStack() as exits:
        fast = EngineOptions(time_scale=0.0)
        renderer = await exits.enter_async_context(SimulatedPool(1, ServerOptions(engine=fast)))
        port = free_port()
        config = tmp_path / "precise.yaml"
        config.write_text(yaml.safe_dump(configuration(f"http://{renderer.addresses[0]}", port)), encoding="utf-8")
        if check.main(["--for-serve", str(config)]) and "is not built yet" in capsys.readouterr().err:
            pytest.skip("plugin type precise-prefix-cache-scorer is not built yet")
        server = ServerOptions(engine=fast, kv_events=KvEventOptions(port=port, layout=layout))
        options = StackOptions(
            servers=3, server=server, hosts=HOSTS, config=str(config), picker_flags=[f"--transport={transport}"]
        )
        stack = await exits.enter_async_context(Stack(options))
        client = await exits.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        async with asyncio.timeout(20):
            for each in stack.pool.servers:
                assert each.kv_events is not None
                await each.kv_events.subscribed()
        yield Pods(stack, client)


async def test_a_prompt_goes_where_it_is_cached_though_it_was_never_sent_there(pods: Pods) -> None:
    for name in ("sim-2", "sim-0"):
        prompt = f"{name} {PROMPT}"
        address = pods.stack.pool[name].address
        assert await pods.ask(f"http://{address}", prompt) == (name, 0), "past the picker"
    await pods.admitted(2 * BLOCKS)
    for name in ("sim-2", "sim-0"):
        served_by, cached = await pods.ask(pods.stack.url, f"{name} {PROMPT}")
        assert served_by == name
        assert cached > len(PROMPT) // 4 - 32
