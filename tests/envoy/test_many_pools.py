"""One picker process with three pools behind the real Envoy: two by the authority that clients ask for, one by its port."""

from __future__ import annotations

import asyncio
import copy
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from epp.demo.envoy import PICKER_CLUSTER, Bootstrap, EnvoyProcess, cluster, listener, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool

pytestmark = pytest.mark.envoy

HEADER = {"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig"}
PLAIN = {
    **HEADER,
    "plugins": [{"type": "queue-scorer"}],
    "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scorer"}]}],
}
ONE_AT_A_TIME = {
    **HEADER,
    "featureGates": ["flowControl"],
    "plugins": [
        {"type": "inflight-load-producer"},
        {"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}},
        {"type": "max-score-picker"},
    ],
    "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "max-score-picker"}]}],
    "flowControl": {
        "saturationDetector": {"pluginRef": "concurrency-detector"},
        "defaultRequestTTL": "60s",
        "defaultPriorityBand": {"maxRequests": 1},
    },
}
CHAT, CODE = "chat.example.com", "api.code.example.com"
LONG = 100_000
"""Tokens of a response that does not end by itself within a test."""
PROMPTLY_S = 20.0


def with_own_port(bootstrap: Bootstrap, port: int) -> Bootstrap:
    """A second listener, whose requests are shown to the picker on another port."""
    own = copy.deepcopy(listener(bootstrap))
    own["name"] = own["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = "own"
    for part in own["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]:
        if part["name"] == "envoy.filters.http.ext_proc":
            part["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "own"
    picker = copy.deepcopy(cluster(bootstrap, PICKER_CLUSTER))
    picker["name"] = picker["load_assignment"]["cluster_name"] = "own"
    [endpoint] = picker["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    bootstrap["static_resources"]["listeners"].append(own)
    bootstrap["static_resources"]["clusters"].append(picker)
    return bootstrap


class Gateway:
    """Envoy before the picker, whose pools have a model server each."""

    def __init__(self, envoy: EnvoyProcess, picker: PickerProcess, client: aiohttp.ClientSession, folder: Path) -> None:
        self._envoy = envoy
        self._picker = picker
        self._client = client
        self._folder = folder

    def write(self, name: str, document: dict[str, Any]) -> None:
        (self._folder / f".{name}").write_text(yaml.safe_dump(document))
        (self._folder / f".{name}").replace(self._folder / name)

    async def post(
        self, authority: str, model: str, *, port: str = "inference", tokens: int = 2, text: str = "p"
    ) -> tuple[int, Any]:
        """A whole request: status, and the body as JSON."""
        async with await self.begun(authority, model, port=port) as response:
            return response.status, await response.json()

    async def begun(
        self, authority: str, model: str, *, port: str = "inference", tokens: int = 2, stream: bool = False
    ) -> aiohttp.ClientResponse:
        url = f"http://127.0.0.1:{self._envoy.ports[port]}/v1/chat/completions"
        messages = [{"role": "user", "content": "p"}]
        body = {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}
        return await self._client.post(url, json=body, headers={"host": authority})

    async def models(self, authority: str) -> list[str]:
        url = f"http://127.0.0.1:{self._envoy.port}/v1/models"
        async with self._client.get(url, headers={"host": authority}) as response:
            assert response.status == 200, await response.text()
            return [model["id"] for model in (await response.json())["data"]]

    async def pools(self) -> dict[str, Any]:
        async with self._client.get(f"http://127.0.0.1:{self._picker.metrics_port}/debug/pools") as response:
            return {pool["name"]: pool for pool in (await response.json())["pools"]}


@pytest.fixture
async def gateway(envoy_binary: Path, cleanup: AsyncExitStack, tmp_path: Path) -> Gateway:
    """Pools ``chat``, ``code`` and, by port, ``own``: each serves the model of its name. The document of ``code`` is broken."""
    servers = {}
    for name in ("chat", "code", "own"):
        options = ServerOptions(engine=EngineOptions(ttft_ms=1.0, tpot_ms=0.5), models=(name,))
        servers[name] = (await cleanup.enter_async_context(SimulatedPool(1, options))).addresses
    match = {"chat": {"authorities": [CHAT]}, "code": {"authorities": ["*.code.example.com"]}}
    pools: list[dict[str, Any]] = [
        {"name": name, "configFile": f"{name}.yaml", "endpoints": servers[name], "match": match[name]} for name in match
    ]
    pools.append({"name": "own", "endpoints": servers["own"], "grpcPort": 0})
    file = tmp_path / "pools.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": HEADER["apiVersion"], "kind": "EndpointPickerPools", "pools": pools}))
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(PLAIN))
    (tmp_path / "code.yaml").write_text("kind: [")
    flags = [f"--pools-file={file}", "--watch-config-file", "--secure-serving=false", "--drain-timeout=0s"]
    picker = await cleanup.enter_async_context(PickerProcess(flags))
    client = await cleanup.enter_async_context(aiohttp.ClientSession())
    async with client.get(f"http://127.0.0.1:{picker.metrics_port}/debug/pools") as response:
        port = next(pool["grpcPort"] for pool in (await response.json())["pools"] if pool["name"] == "own")
    document = with_own_port(render("full-duplex-plaintext", epp_port=picker.grpc_port), port)
    envoy = await cleanup.enter_async_context(EnvoyProcess(document, binary=envoy_binary))
    return Gateway(envoy, picker, client, tmp_path)


async def test_each_pool_serves_its_clients_whatever_becomes_of_another(gateway: Gateway) -> None:
    status, answer = await gateway.post(CHAT, "chat")
    assert (status, answer["model"]) == (200, "chat")
    status, answer = await gateway.post(CHAT, "own", port="own")
    assert (status, answer["model"]) == (200, "own"), "the port decides, not the authority"
    status, answer = await gateway.post(CODE, "code")
    assert (status, "the pool 'code' is not loaded" in answer["error"]["message"]) == (503, True)
    status, answer = await gateway.post("nobody.example.com", "chat")
    assert (status, "'nobody.example.com" in answer["error"]["message"]) == (404, True)
    gateway.write("code.yaml", PLAIN)
    async with asyncio.timeout(PROMPTLY_S):
        while (await gateway.pools())["code"]["state"] != "served":  # noqa: ASYNC110 — another process
            await asyncio.sleep(0.05)
    status, answer = await gateway.post(CODE, "code")
    assert (status, answer["model"]) == (200, "code")
    assert await gateway.models("nobody.example.com") == ["chat", "code", "own"]
    assert await gateway.models(CHAT) == ["chat"]


async def test_a_pool_whose_queue_is_full_refuses_alone(gateway: Gateway) -> None:
    gateway.write("code.yaml", ONE_AT_A_TIME)
    async with asyncio.timeout(PROMPTLY_S):
        while (await gateway.pools())["code"]["state"] != "served":  # noqa: ASYNC110 — another process
            await asyncio.sleep(0.05)
    running = await gateway.begun(CODE, "code", tokens=LONG, stream=True)
    assert running.status == 200
    await running.content.readline()
    waiting = asyncio.create_task(gateway.post(CODE, "code"))
    async with asyncio.timeout(PROMPTLY_S):
        while (await gateway.pools())["code"]["openStreams"] < 2:  # noqa: ASYNC110 — another process
            await asyncio.sleep(0.05)
    status, _ = await gateway.post(CODE, "code")
    assert status == 429
    results = await asyncio.gather(*(gateway.post(CHAT, "chat") for _ in range(8)))
    assert {status for status, _ in results} == {200}
    assert (await gateway.post(CHAT, "own", port="own"))[0] == 200
    running.close()
    assert (await waiting)[0] == 200, "it has waited for its turn"
