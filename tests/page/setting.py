"""A picker with its page, simulated servers, and clients that keep both busy: a data plane in small."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from grpc import aio

from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, subset

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
HOSTILE = "<img src=x onerror=alert(1)>\u202e</script>"
"""A name that a client may choose."""
FLAGS = ("--secure-serving=false", "--drain-timeout=0s", "--refresh-metrics-interval=1s", "--metrics-staleness-threshold=5s")
"""A hundred servers that are read twenty times a second would be all that a machine that runs tests could do."""
ENGINE = EngineOptions(kv_blocks=256)
"""A small KV cache, so that its use can be seen."""
ENDPOINTS = "endpoints.yaml"
PROMPTLY_S = 20.0
TOPICS = ("bridges", "whales", "tax law", "chess", "glaciers", "jazz")


def config_text(endpoints_file: Path, queue_weight: int) -> str:
    """A document with some scorers."""
    return f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {endpoints_file}}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: running-requests-size-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: {queue_weight}}}
  - {{pluginRef: kv-cache-utilization-scorer}}
  - {{pluginRef: running-requests-size-scorer}}
  - {{pluginRef: max-score-picker}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""


def shadow_text(endpoints_file: Path) -> str:
    """A document that sends all requests to the servers of one zone."""
    text = config_text(endpoints_file, 2)
    zone = "- {type: by-label, parameters: {label: zone, validValues: [b]}}"
    text = text.replace("- type: max-score-picker\n", f"- type: max-score-picker\n{zone}\n", 1)
    return text.replace("  plugins:\n", "  plugins:\n  - {pluginRef: by-label}\n", 1)


def endpoints_text(addresses: Sequence[str]) -> str:
    """A file of endpoints, named as pods are."""
    entries = []
    for number, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        labels = {"zone": "abc"[number % 3]}
        entries.append({"name": f"llama-8b-{number}", "address": host, "port": port, "labels": labels})
    return json.dumps({"endpoints": entries})


class Setting:
    """All that runs."""

    def __init__(self, picker: PickerProcess, pool: SimulatedPool, channel: aio.Channel, config_file: Path) -> None:
        self.picker = picker
        self.pool = pool
        self.config_file = config_file
        self._channel = channel
        self._session = aiohttp.ClientSession()
        self._count = 0

    @property
    def url(self) -> str:
        """Of the page, without a slash at its end."""
        return f"http://127.0.0.1:{self.picker.metrics_port}"

    def reload(self, queue_weight: int) -> None:
        """Have the picker read a document with another weight."""
        self.reload_text(config_text(self.config_file.with_name(ENDPOINTS), queue_weight))

    def reload_text(self, text: str) -> None:
        """Have it read any document."""
        self.config_file.write_text(text)
        self.picker.process.send_signal(signal.SIGHUP)

    async def exchange(self) -> None:
        """A request, served by the server that it was sent to."""
        self._count += 1
        topic = TOPICS[self._count % len(TOPICS)]
        system = f"You know everything about {topic}. " * 30
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Question {self._count}?"}]
        document = {"model": MODEL, "messages": messages, "max_tokens": 24}
        async with self._stream() as stream:
            headers = request_headers(path="/v1/chat/completions", request_id=f"req-{self._count:05d}")
            await stream.send(headers, request_body(json.dumps(document)))
            routed = await stream.routed()
            async with self._session.post(f"http://{routed.target}/v1/chat/completions", data=routed.body) as response:
                body = await response.read()
            await respond(stream, response_headers(status=response.status), response_body(body))

    async def compared(self, count: int) -> dict[str, Any]:
        """``/debug/shadow`` once so many requests were compared."""
        async with asyncio.timeout(PROMPTLY_S):
            while True:
                async with self._session.get(f"{self.url}/debug/shadow") as response:
                    shown: dict[str, Any] = await response.json()
                if shown["compared"] >= count:
                    return shown
                await asyncio.sleep(0.05)

    async def refused(self, request_id: str = "nowhere-to-go", model: str = MODEL) -> None:
        """A request for which there is no endpoint."""
        async with self._stream() as stream:
            headers = request_headers(request_id=request_id, metadata=subset("192.0.2.1:1"))
            await stream.send(headers, request_body(json.dumps({"model": model, "prompt": "p"})))
            await stream.refused()

    async def failed(self) -> None:
        """One that the server fails."""
        async with self._stream() as stream:
            headers = request_headers(request_id="server-failed")
            await stream.send(headers, request_body(json.dumps({"model": MODEL, "prompt": "p"})))
            await stream.routed()
            await respond(stream, response_headers(status=500), response_body('{"error": "out of memory"}'))

    @contextlib.asynccontextmanager
    async def load(self, concurrency: int) -> AsyncIterator[None]:
        """Requests all the time, until the end of the block."""
        workers = [asyncio.create_task(self._forever(number)) for number in range(concurrency)]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            results = await asyncio.gather(*workers, return_exceptions=True)
        for ended in results:
            if isinstance(ended, Exception):
                raise ended

    async def close(self) -> None:
        """End the clients."""
        await self._session.close()

    async def _forever(self, number: int) -> None:
        while True:
            await self.exchange()
            await asyncio.sleep(0.05 * (number % 5))

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[Stream]:
        stream = Stream(self._channel)
        try:
            yield stream
            await stream.closes()
        finally:
            stream.call.cancel()


@contextlib.asynccontextmanager
async def setting(count: int, folder: Path, *flags: str, engine: EngineOptions = ENGINE) -> AsyncIterator[Setting]:
    """A picker in front of so many servers, configured by files in ``folder``."""
    config_file = folder / "config.yaml"
    config_file.write_text(config_text(folder / ENDPOINTS, 2))
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(SimulatedPool(count, ServerOptions(engine=engine)))
        (folder / ENDPOINTS).write_text(endpoints_text(pool.addresses))
        picker = await stack.enter_async_context(
            PickerProcess([*FLAGS, f"--config-file={config_file}", "--pool-name=llama", *flags])
        )
        channel = await stack.enter_async_context(aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}"))
        running = Setting(picker, pool, channel, config_file)
        stack.push_async_callback(running.close)
        yield running
