"""Precise prefix caching on the wire: engines publish over ZMQ, and requests go where their blocks are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml
from grpc import aio

from bench.load.process import free_port
from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers
from tests.unit.plugins.kvcache.payloads import payload, removed, stored
from tests.unit.plugins.kvcache.publishers import Publisher
from tests.unit.plugins.tokenization.models import write_model

SERVERS = 3
PROMPT = list(range(1, 65))


def document(plugins: list[dict[str, Any]]) -> str:
    refs = [{"pluginRef": plugin["type"]} for plugin in plugins if plugin["type"].endswith(("scorer", "picker"))]
    return yaml.safe_dump(
        {
            "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
            "kind": "EndpointPickerConfig",
            "plugins": plugins,
            "schedulingProfiles": [{"name": "default", "plugins": refs}],
        }
    )


class Served:
    """A picker, its servers, and an engine's publisher for each."""

    def __init__(self, channel: aio.Channel, addresses: list[str], engines: list[Publisher], metrics_port: int) -> None:
        self._channel = channel
        self.addresses = addresses
        self.engines = engines
        self._metrics_port = metrics_port

    async def target(self, body: Mapping[str, Any]) -> str:
        """Where a request goes."""
        stream = Stream(self._channel)
        await stream.send(request_headers({":path": "/v1/completions"}), request_body(orjson.dumps({"model": "m", **body})))
        routed = await stream.routed()
        await respond(stream, response_headers(), response_body(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'))
        await stream.closes()
        return routed.headers.headers["x-gateway-destination-endpoint"]

    async def goes(self, body: Mapping[str, Any], expected: str) -> None:
        """A request goes there, several times over, once the events have come."""
        for _ in range(1_000):
            if {await self.target(body) for _ in range(6)} == {expected}:
                return
        raise AssertionError(f"it never went to {expected}")

    async def page(self, path: str) -> str:
        """A page of the picker."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._metrics_port}{path}") as answer:
            return await answer.text()


@asynccontextmanager
async def served(tmp_path: Path, plugins: list[dict[str, Any]], port: int) -> AsyncIterator[Served]:
    """A picker whose central socket is bound on this port."""
    config = tmp_path / "config.yaml"
    config.write_text(document(plugins))
    async with AsyncExitStack() as stack:
        options = ServerOptions(engine=EngineOptions(time_scale=0.0), models=("m",))
        servers = await stack.enter_async_context(SimulatedPool(SERVERS, options))
        flags = [f"--endpoint={address}" for address in servers.addresses]
        picker = await stack.enter_async_context(PickerProcess([f"--config-file={config}", "--secure-serving=false", *flags]))
        channel = await stack.enter_async_context(aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}"))
        engines = [Publisher(f"tcp://127.0.0.1:{port}", topic=f"kv@{address}@m") for address in servers.addresses]
        for engine in engines:
            stack.callback(engine.close)
            await asyncio.to_thread(engine.subscribed)
        yield Served(channel, list(servers.addresses), engines, picker.metrics_port)


def precise(port: int, **more: Any) -> dict[str, Any]:
    return {
        "tokenProcessorConfig": {"blockSize": 16},
        "kvEventsConfig": {"zmqEndpoint": f"tcp://127.0.0.1:{port}", "discoverPods": False},
        **more,
    }


PICKER = {"type": "max-score-picker"}


def variants(port: int) -> dict[str, list[dict[str, Any]]]:
    producer = {"type": "precise-prefix-cache-producer", "parameters": precise(port)}
    return {
        "scorer": [{"type": "precise-prefix-cache-scorer", "parameters": precise(port)}, PICKER],
        "scorer beside a producer": [producer, {"type": "precise-prefix-cache-scorer"}, PICKER],
    }


@pytest.mark.parametrize("variant", ["scorer", "scorer beside a producer"])
async def test_a_prompt_goes_where_its_blocks_are(tmp_path: Path, variant: str) -> None:
    port = free_port()
    async with served(tmp_path, variants(port)[variant], port) as picker:
        picker.engines[1].send(payload(stored(range(1, 5), PROMPT, block=16)))
        await picker.goes({"prompt": PROMPT}, picker.addresses[1])
        picker.engines[2].send(payload(stored(range(1, 5), PROMPT, block=16)))
        picker.engines[1].send(payload(removed([4, 3])))
        await picker.goes({"prompt": PROMPT}, picker.addresses[2])
        page = await picker.page("/debug/plugins/state")
        assert '"keys":4' in page.replace(" ", "")
        messages = "llm_d_epp_kv_cache_events_messages_received_total"
        for _ in range(200):  # counts of the other thread are written once a second, and the page is as old as that
            if re.search(rf'{messages}{{pod_identifier="{picker.addresses[1]}"}} 2\b', await picker.page("/metrics")):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the messages are not counted")


async def test_texts_are_tokenized_here(tmp_path: Path) -> None:
    port = free_port()
    write_model(tmp_path / "models" / "m")
    pool = {"modelName": "m", "local": {"autoDiscoveryDir": str(tmp_path / "models")}, "hf": {"enabled": False}}
    parameters = precise(port, indexerConfig={"tokenizersPoolConfig": pool})
    async with served(tmp_path, [{"type": "precise-prefix-cache-scorer", "parameters": parameters}, PICKER], port) as picker:
        picker.engines[0].send(payload(stored([1], [1, *[6] * 15], block=16)))
        await picker.goes({"prompt": "hello " * 15}, picker.addresses[0])


async def test_prefix_84_a_burst_of_equal_prompts_stays_together(tmp_path: Path) -> None:
    port = free_port()
    parameters = precise(port, speculativeIndexing=True, speculativeTTL="60s")
    async with served(tmp_path, [{"type": "precise-prefix-cache-scorer", "parameters": parameters}, PICKER], port) as picker:
        first = await picker.target({"prompt": PROMPT})
        assert {await picker.target({"prompt": PROMPT}) for _ in range(10)} == {first}
