"""Precise prefixes through a real Envoy: the servers' KV events, not what was sent where, decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
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
from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, EventLayout, KvEventOptions, ReplayLayout, ServerOptions
from epp.simulate.server import SimulatedPool
from epp.transport.choose import NATIVE_MODULE

pytestmark = pytest.mark.envoy

TIMEOUT = aiohttp.ClientTimeout(total=30)
TRANSPORTS = ["grpcio", "native"] if find_spec(NATIVE_MODULE) else ["grpcio"]
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
"""Pods have addresses of their own and the same port for events."""
ADMISSIONS = "llm_d_epp_kv_cache_index_admissions_total"
CACHED = ("sim-2", "sim-0")
PROMPT = "Where is the station? " * 64
BLOCKS = len(PROMPT) // 4 // 16


def configuration(renderer: str, events: KvEventOptions) -> dict[str, Any]:
    """Events from all pods, tokens from a server that renders."""
    ports = {"socketPort": events.port} | ({"replaySocketPort": events.replay_port} if events.has_replay else {})
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
                    "kvEventsConfig": {"discoverPods": True, "podDiscoveryConfig": ports},
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


async def ask(url: str, prompt: str) -> tuple[str, int]:
    """Who served it, and how many of its tokens were cached there."""
    body = {"model": DEFAULT_MODEL, "prompt": prompt, "max_tokens": 1}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as client, client.post(f"{url}/v1/completions", json=body) as response:
        document = await response.json()
        assert response.status == 200, document
        return response.headers["x-served-by-name"], document["usage"]["prompt_tokens_details"]["cached_tokens"]


@dataclass
class Pods:
    """Three servers, and what is between them and a client once it is started."""

    pool: SimulatedPool
    config: Path
    binary: Path
    exits: AsyncExitStack

    async def front(self, transport: str) -> tuple[str, int]:
        """Start a picker that hears all servers, and Envoy; Envoy's URL and the picker's port for metrics."""
        endpoints = [f"--endpoint={address}" for address in self.pool.addresses]
        flags = [f"--config-file={self.config}", f"--transport={transport}", "--hold-back-unscraped", *endpoints]
        picker = await self.exits.enter_async_context(PickerProcess(flags))
        async with asyncio.timeout(20):
            for server in self.pool.servers:
                assert server.kv_events is not None
                await server.kv_events.subscribed()
        bootstrap = render("full-duplex", epp_port=picker.grpc_port)
        envoy = await self.exits.enter_async_context(EnvoyProcess(bootstrap, binary=self.binary))
        return envoy.url, picker.metrics_port

    async def compute(self) -> None:
        """Let two of the servers compute a prompt each, past the picker."""
        for name in CACHED:
            assert await ask(f"http://{self.pool[name].address}", f"{name} {PROMPT}") == (name, 0)


async def admitted(metrics_port: int, blocks: int) -> None:
    """Wait until the picker has indexed so many; its page can only be polled."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"http://127.0.0.1:{metrics_port}/metrics") as response:
                families = text_string_to_metric_families(await response.text())
            values = [sample.value for family in families for sample in family.samples if sample.name == ADMISSIONS]
            if sum(values) >= blocks:
                return
            await asyncio.sleep(0.05)


StartPods = Callable[[KvEventOptions], Awaitable[Pods]]


@pytest.fixture
async def start(tmp_path: Path, envoy_binary: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[StartPods]:
    """Factory of servers that publish so, each on an address of its own."""
    async with AsyncExitStack() as exits:

        async def start(events: KvEventOptions) -> Pods:
            fast = EngineOptions(time_scale=0.0)
            renderer = await exits.enter_async_context(SimulatedPool(1, ServerOptions(engine=fast)))
            config = tmp_path / "precise.yaml"
            config.write_text(yaml.safe_dump(configuration(f"http://{renderer.addresses[0]}", events)), encoding="utf-8")
            assert check.main(["--for-serve", str(config)]) == 0, capsys.readouterr().err
            pool = SimulatedPool(len(HOSTS), ServerOptions(engine=fast, kv_events=events), hosts=HOSTS)
            return Pods(await exits.enter_async_context(pool), config, envoy_binary, exits)

        yield start


async def goes_where_it_is_cached(url: str) -> None:
    for name in CACHED:
        served_by, cached = await ask(url, f"{name} {PROMPT}")
        assert served_by == name
        assert cached > len(PROMPT) // 4 - 32


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("layout", EventLayout)
async def test_a_prompt_goes_where_it_is_cached_though_it_was_never_sent_there(
    start: StartPods, layout: EventLayout, transport: str
) -> None:
    pods = await start(KvEventOptions(port=free_port(), layout=layout))
    url, metrics_port = await pods.front(transport)
    await pods.compute()
    await admitted(metrics_port, 2 * BLOCKS)
    await goes_where_it_is_cached(url)


@pytest.mark.parametrize("layout", ReplayLayout)
async def test_a_picker_that_comes_late_asks_for_what_it_missed(start: StartPods, layout: ReplayLayout) -> None:
    events = KvEventOptions(port=free_port(), has_replay=True, replay_port=free_port(), replay_layout=layout)
    pods = await start(events)
    await pods.compute()
    url, metrics_port = await pods.front("auto")
    await admitted(metrics_port, 2 * BLOCKS)
    await goes_where_it_is_cached(url)
