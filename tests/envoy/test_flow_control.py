"""Requests that wait in the picker while the real Envoy holds them: its timeouts, its resets, and who gets what."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.demo.envoy import Bootstrap, EnvoyProcess, listener, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool

pytestmark = pytest.mark.envoy

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: inflight-load-producer}
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
- {type: max-score-picker}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: max-score-picker}]
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  defaultRequestTTL: 20s
  defaultPriorityBand: {maxRequests: 8}
  enableEviction: true
"""
OBJECTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -1}
"""
MODES = ["full-duplex-plaintext", "buffered", "bypass"]
each_mode = pytest.mark.parametrize("mode", MODES)
BATCH = {"x-llm-d-inference-objective": "batch"}
LONG = 100_000
"""Tokens of a response that does not end by itself within a test."""


class Gateway:
    """Envoy before a picker whose pool has room for one request."""

    def __init__(self, client: aiohttp.ClientSession, picker: PickerProcess, pages: aiohttp.ClientSession) -> None:
        self.client, self.picker, self._pages = client, picker, pages

    async def post(self, tokens: int = 2, **headers: str) -> tuple[int, dict[str, str]]:
        """A whole request: status and headers."""
        async with self.client.post("/v1/chat/completions", json=chat(tokens), headers=headers) as response:
            await response.read()
            return response.status, {name.lower(): value for name, value in response.headers.items()}

    async def holding(self, **headers: str) -> aiohttp.ClientResponse:
        """A response that has begun and does not end; it takes the room of the pool."""
        body = {**chat(LONG), "stream": True}
        response = await self.client.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status == 200
        await response.content.readline()
        return response

    async def cut(self) -> bool:
        """A response that does not end by itself was cut."""
        response = await self.holding()
        try:
            await response.read()
        except aiohttp.ClientPayloadError:
            return True
        return False

    async def queues(self) -> Any:
        """What the picker shows of its queues."""
        async with self._pages.get(f"http://127.0.0.1:{self.picker.metrics_port}/debug/queues") as page:
            return await page.json()

    async def waits(self, count: int) -> None:
        """So many requests are queued."""
        async with asyncio.timeout(10):
            while (await self.queues())["requests"] != count:  # noqa: ASYNC110 — a page can only be polled
                await asyncio.sleep(0.01)

    async def outcomes(self) -> Counter[str]:
        """How many requests had which outcome, once the page is new."""
        await asyncio.sleep(1.1)  # it is cached for a second
        async with self._pages.get(f"http://127.0.0.1:{self.picker.metrics_port}/metrics") as page:
            families = text_string_to_metric_families(await page.text())
        name = "llm_d_epp_flow_control_requests_total"
        found: Counter[str] = Counter()
        for sample in (sample for family in families for sample in family.samples if sample.name == name):
            found[sample.labels["outcome"]] += int(sample.value)
        return found


StartGateway = Callable[..., Awaitable[Gateway]]


def chat(tokens: int) -> dict[str, Any]:
    return {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": tokens}


@pytest.fixture
async def gateway(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Factory: ``await gateway("buffered", change=...)``; ``change`` edits the bootstrap document."""
    config, objects = tmp_path / "config.yaml", tmp_path / "objects.yaml"
    config.write_text(CONFIG)
    objects.write_text(OBJECTS)
    async with AsyncExitStack() as stack:

        async def start(mode: str, change: Callable[[Bootstrap], None] = lambda document: None) -> Gateway:
            engine = EngineOptions(ttft_ms=1.0, tpot_ms=5.0)
            pool = await stack.enter_async_context(SimulatedPool(1, ServerOptions(engine=engine)))
            flags = [f"--config-file={config}", f"--objects={objects}", "--secure-serving=false", "--drain-timeout=1s"]
            picker = PickerProcess([*flags, *(f"--endpoint={address}" for address in pool.addresses)])
            await stack.enter_async_context(picker)
            document = render(mode, epp_port=picker.grpc_port, secure=False)
            change(document)
            envoy = await stack.enter_async_context(EnvoyProcess(document, binary=envoy_binary))
            timeout = aiohttp.ClientTimeout(total=60)
            client = await stack.enter_async_context(aiohttp.ClientSession(envoy.url, timeout=timeout))
            pages = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            return Gateway(client, picker, pages)

        yield start


def manager(document: Bootstrap) -> dict[str, Any]:
    """The HTTP connection manager of a bootstrap document."""
    config: dict[str, Any] = listener(document)["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def message_timeout(document: Bootstrap) -> None:
    """Envoy's own default, which most gateways leave as it is."""
    (ext_proc,) = [each for each in manager(document)["http_filters"] if each["name"] == "envoy.filters.http.ext_proc"]
    del ext_proc["typed_config"]["message_timeout"]


def route_timeout(document: Bootstrap) -> None:
    manager(document)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = "0.5s"


def idle_timeout(document: Bootstrap) -> None:
    manager(document)["stream_idle_timeout"] = "0.5s"


@each_mode
async def test_each_request_gets_its_turn_and_one_answer(gateway: StartGateway, mode: str) -> None:
    made = await gateway(mode)
    answers = await asyncio.gather(*(made.post() for _ in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    assert await made.outcomes() == {"Dispatched": 8}
    page = await made.queues()
    assert (page["requests"], page["letGoAndNotSent"], page["saturation"]["effective"]) == (0, 0, 0.0)


@each_mode
async def test_who_has_waited_long_enough_is_told_so(gateway: StartGateway, mode: str) -> None:
    made = await gateway(mode)
    running = await made.holding()
    status, headers = await made.post(**{"x-llm-d-inference-ttl": "200ms"})
    assert (status, headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-ttl-expired")
    assert 1 <= int(headers["retry-after"]) <= 60
    running.close()
    assert (await made.post())[0] == 200, "the end of the stream lets the next one go"


@each_mode
async def test_a_full_queue_refuses_at_once(gateway: StartGateway, mode: str) -> None:
    made = await gateway(mode)
    running = await made.holding()
    waiting = [asyncio.create_task(made.post()) for _ in range(8)]
    await made.waits(8)
    status, headers = await made.post()
    assert (status, headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-saturated")
    running.close()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * 8


@pytest.mark.parametrize(
    ("mode", "change"),
    [("buffered", message_timeout), *((mode, idle_timeout) for mode in MODES)],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
async def test_a_timeout_of_envoy_ends_the_wait_and_frees_the_place(
    gateway: StartGateway, mode: str, change: Callable[[Bootstrap], None]
) -> None:
    """Whichever it is, the client is told by Envoy, and nothing of the request is left in the picker."""
    made = await gateway(mode, change=change)
    running = await made.holding()
    status, _ = await made.post()
    assert status == 504
    await made.waits(0)
    assert await made.outcomes() == {"Dispatched": 1, "EvictedContextCancelled": 1}
    running.close()


@pytest.mark.parametrize("mode", ["full-duplex-plaintext", "bypass"])
async def test_envoy_has_no_message_timeout_for_bodies_in_full_duplex(gateway: StartGateway, mode: str) -> None:
    """Its default of 200 ms ends no wait there."""
    made = await gateway(mode, change=message_timeout)
    running = await made.holding()
    waiting = asyncio.create_task(made.post())
    await made.waits(1)
    await asyncio.sleep(0.6)
    running.close()
    assert (await waiting)[0] == 200


@each_mode
async def test_the_timeout_of_a_route_begins_behind_the_queue(gateway: StartGateway, mode: str) -> None:
    """Two responses that are cut after 0.5 s each go before the third request, which waits longer than that."""
    made = await gateway(mode, change=route_timeout)
    begun = asyncio.get_running_loop().time()
    cut = [asyncio.create_task(made.cut()) for _ in range(2)]
    await made.waits(1)
    status, _ = await made.post()
    assert (status, await asyncio.gather(*cut)) == (200, [True, True])
    assert asyncio.get_running_loop().time() - begun > 0.9
    assert await made.outcomes() == {"Dispatched": 3}


@each_mode
async def test_a_client_that_leaves_frees_its_place(gateway: StartGateway, mode: str) -> None:
    made = await gateway(mode)
    running = await made.holding()
    waiting = asyncio.create_task(made.post())
    await made.waits(1)
    waiting.cancel()
    await made.waits(0)
    running.close()
    assert (await made.post())[0] == 200
    assert await made.outcomes() == {"Dispatched": 2, "EvictedContextCancelled": 1}


@each_mode
async def test_a_running_request_is_ended_for_a_higher_one(gateway: StartGateway, mode: str) -> None:
    """Its response has begun: Envoy can only reset it, whether the picker sees the response or not."""
    made = await gateway(mode)
    running = await made.holding(**BATCH)
    status, _ = await made.post()
    assert status == 200, "the upstream was reset, so there is room"
    with pytest.raises(aiohttp.ClientPayloadError):
        await running.read()
    assert await made.outcomes() == {"Dispatched": 2}


@each_mode
async def test_a_picker_that_stops_answers_those_who_wait(gateway: StartGateway, mode: str) -> None:
    made = await gateway(mode)
    running = await made.holding()
    waiting = [asyncio.create_task(made.post()) for _ in range(3)]
    await made.waits(3)
    made.picker.process.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*waiting)
    assert [status for status, _ in answers] == [503] * 3
    assert {headers["x-llm-d-request-dropped-reason"] for _, headers in answers} == {"rejected-shutting-down"}
    running.close()
