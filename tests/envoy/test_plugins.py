"""Plugins that write headers, through a real Envoy and a picker of its own process, over every transport that is installed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.transport.choose import NATIVE_MODULE

pytestmark = pytest.mark.envoy

TRANSPORTS = ["grpcio", "native"] if find_spec(NATIVE_MODULE) else ["grpcio"]
FORGED = {
    "x-prefiller-host-port": "203.0.113.6:1",
    "mif-prefill-endpoint": "203.0.113.6:1",
    "x-encoder-hosts-ports": "203.0.113.6:1",
    "mif-encode-endpoints": "203.0.113.6:1",
    "x-data-parallel-host-port": "203.0.113.6:1",
}


async def tell_headers(request: web.Request) -> web.Response:
    """A model server whose answer is the headers that it got; it claims to be another one."""
    if request.path == "/metrics":
        return web.Response(text="vllm:num_requests_waiting 0\n")
    await request.read()
    lies = {"x-decoder-host-port": "203.0.113.7:1", "x-prefiller-host-port": "203.0.113.7:1"}
    return web.json_response(dict(request.headers), headers=lies)


@dataclass
class Answer:
    """What a client got."""

    headers: dict[str, str]
    upstream: dict[str, str]
    """Request headers as the model server got them, names in lower case."""


@dataclass
class Chain:
    """Envoy, the picker and three model servers: one encodes media, one computes prompts."""

    url: str
    encode: str
    prefill: str
    decode: str

    async def ask(self, body: Mapping[str, Any] | None = None, **headers: str) -> Answer:
        """A request of a client with these headers (``_`` for ``-``), on top of the forged ones."""
        sent = FORGED | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.url}/v1/{'chat/' if body else ''}completions"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=body or {"model": "m", "prompt": "p"}, headers=sent) as response,
        ):
            assert response.status == 200, await response.text()
            upstream = {name.lower(): value for name, value in json.loads(await response.text()).items()}
            return Answer({name.lower(): value for name, value in response.headers.items()}, upstream)


def configuration(endpoint_file: Path, handler: dict[str, Any]) -> str:
    """The plugins under test in a configuration of three profiles."""
    profiles = {
        "encode": ["encode-filter", "max-score-picker"],
        "prefill": ["prefill-filter", "max-score-picker"],
        "decode": ["decode-filter", "session-affinity-scorer", "max-score-picker"],
    }
    plugins = [
        {"type": "file-discovery", "parameters": {"path": str(endpoint_file)}},
        {"type": "always-disagg-pd-decider"},
        {"type": "always-disagg-multimodal-decider"},
        handler,
        {"type": "disagg-headers-handler"},
        {"type": "response-header-handler"},
        {"type": "destination-endpoint-served-verifier"},
        *[{"type": f"{stage}-filter"} for stage in ("encode", "prefill", "decode")],
        *[{"type": name} for name in ("session-affinity-scorer", "max-score-picker")],
    ]
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
        "schedulingProfiles": [
            {"name": name, "plugins": [{"pluginRef": plugin} for plugin in refs]} for name, refs in profiles.items()
        ],
    }
    return yaml.safe_dump(document)


ALWAYS = {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "always-disagg-pd-decider"}}}
OLDER = {"type": "pd-profile-handler"}
"""Without a decider it always prefills elsewhere."""
MEDIA = {
    "type": "disagg-profile-handler",
    "parameters": {"deciders": {"encode": "always-disagg-multimodal-decider", "prefill": "always-disagg-pd-decider"}},
}
NEVER = {"type": "disagg-profile-handler"}


class StartChain:
    """Starts a chain that ends with the test."""

    def __init__(self, folder: Path, binary: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._binary = binary
        self._stack = stack

    async def __call__(self, handler: dict[str, Any], envoy: str, transport: str) -> Chain:
        ports = {role: await self._model_server() for role in ("encode", "prefill", "decode")}
        entries = [
            {"name": role, "address": "127.0.0.1", "port": port, "labels": {"mif.moreh.io/role": role}}
            for role, port in ports.items()
        ]
        endpoint_file = self._folder / "endpoints.yaml"
        endpoint_file.write_text(yaml.safe_dump({"endpoints": entries}), encoding="utf-8")
        config = self._folder / "epp.yaml"
        config.write_text(configuration(endpoint_file, handler), encoding="utf-8")
        flags = [f"--config-file={config}", f"--transport={transport}", "--secure-serving=false"]
        picker = await self._stack.enter_async_context(PickerProcess(flags))
        addresses = [f"127.0.0.1:{port}" for port in ports.values()]
        bootstrap = render(envoy, epp_port=picker.grpc_port, endpoints=addresses, secure=False)
        proxy = await self._stack.enter_async_context(EnvoyProcess(bootstrap, binary=self._binary))
        return Chain(proxy.url, *addresses)

    async def _model_server(self) -> int:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", tell_headers)
        runner = web.AppRunner(app)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port


@pytest.fixture
async def start(tmp_path: Path, envoy_binary: Path) -> AsyncIterator[StartChain]:
    """Factory: ``await start(ALWAYS, "full-duplex", "grpcio")``."""
    async with AsyncExitStack() as stack:
        yield StartChain(tmp_path, envoy_binary, stack)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("handler", [ALWAYS, OLDER], ids=["disagg", "pd"])
async def test_disaggregated_requests_where_envoy_reports_the_served_endpoint(
    start: StartChain, handler: dict[str, Any], transport: str
) -> None:
    chain = await start(handler, "override-host-retry", transport)
    answer = await chain.ask()
    told = {name: answer.upstream.get(name) for name in FORGED}
    assert told == {
        "x-prefiller-host-port": chain.prefill,
        "mif-prefill-endpoint": chain.prefill,
        "x-encoder-hosts-ports": None,
        "mif-encode-endpoints": None,
        "x-data-parallel-host-port": None,
    }
    assert answer.headers["x-decoder-host-port"] == chain.decode, "not what the server claims"
    assert answer.headers["x-prefiller-host-port"] == chain.prefill
    assert answer.headers["x-conformance-test-served-endpoint"] == chain.decode
    again = await chain.ask(x_session_token=answer.headers["x-session-token"])
    assert again.headers["x-session-token"] == answer.headers["x-session-token"]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_media_are_encoded_elsewhere(start: StartChain, transport: str) -> None:
    chain = await start(MEDIA, "full-duplex", transport)
    answer = await chain.ask({"model": "m", "messages": [{"role": "user", "content": [IMAGE]}]})
    assert {name: answer.upstream.get(name) for name in FORGED} == {
        "x-prefiller-host-port": chain.prefill,
        "mif-prefill-endpoint": chain.prefill,
        "x-encoder-hosts-ports": chain.encode,
        "mif-encode-endpoints": chain.encode,
        "x-data-parallel-host-port": None,
    }
    text = await chain.ask({"model": "m", "messages": [{"role": "user", "content": "no image"}]})
    assert not {"x-encoder-hosts-ports", "mif-encode-endpoints"} & text.upstream.keys()
    assert text.headers["x-decoder-host-port"] == chain.decode


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_requests_without_prefill_where_envoy_reports_nothing(start: StartChain, transport: str) -> None:
    chain = await start(NEVER, "full-duplex", transport)
    answer = await chain.ask()
    assert not FORGED.keys() & answer.upstream.keys(), "no forged header reaches the server"
    assert answer.headers["x-decoder-host-port"] == chain.decode
    assert "x-prefiller-host-port" not in answer.headers
    assert answer.headers["x-conformance-test-served-endpoint"].startswith("fail: ")
