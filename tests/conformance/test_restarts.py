"""A model server that dies and comes back at its address, seen by a whole picker: what it believed of that server is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
from grpc import aio

from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import Stream, request_body, request_headers, std_body

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: active-request-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: active-request-scorer
  - pluginRef: max-score-picker
"""
PATIENCE_S = 30.0


async def states(http: aiohttp.ClientSession, picker: PickerProcess) -> dict[str, Any]:
    """What each plugin shows of itself."""
    async with http.get(f"http://127.0.0.1:{picker.metrics_port}/debug/plugins/state") as answer:
        return {name: entry.get("state") for name, entry in json.loads(await answer.read())["plugins"].items()}


async def test_what_was_believed_of_a_server_ends_with_it() -> None:
    async with (
        SimulatedPool(1, ServerOptions()) as pool,
        PickerProcess([f"--endpoint={pool.addresses[0]}", f"--config-text={CONFIG}", "--secure-serving=false"]) as picker,
        aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
        aiohttp.ClientSession() as http,
        asyncio.timeout(PATIENCE_S),
    ):

        async def shown(holds: Callable[[dict[str, Any]], bool]) -> None:
            while not holds(await states(http, picker)):  # noqa: ASYNC110 — another process, which tells nobody
                await asyncio.sleep(0.02)

        def believes(entries: bool, active: int) -> Callable[[dict[str, Any]], bool]:
            return lambda state: (
                bool(state["prefix-cache-scorer"]["entries"]) is entries
                and sum(state["active-request-scorer"]["active"].values()) == active
            )

        stream = Stream(channel)
        await stream.send(request_headers(), request_body(std_body(DEFAULT_MODEL, "A prompt of some length. " * 50)))
        assert (await stream.routed()).target == pool.addresses[0]
        await shown(believes(entries=True, active=1))
        [server] = pool.servers
        await pool.kill(server.name)
        await asyncio.sleep(1.1)  # a start within a second of the other is taken for the same
        await pool.restart(server.name)
        await shown(believes(entries=False, active=0))
        assert picker.log.count("model server was restarted") == 1
        stream.call.cancel()
        again = Stream(channel)
        await again.send(request_headers(), request_body(std_body(DEFAULT_MODEL, "A prompt of some length. " * 50)))
        assert (await again.routed()).target == pool.addresses[0]
        await shown(believes(entries=True, active=1))
        again.call.cancel()
        await shown(believes(entries=True, active=0))
