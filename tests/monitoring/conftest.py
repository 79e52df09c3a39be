"""A picker with traffic and a real Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from grpc import aio

from bench.load.process import ServerProcess, free_port
from epp.demo.picker import PickerProcess
from epp.simulate.options import ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import (
    Stream,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    std_body,
    subset,
)

SCRAPES = 15
"""After so many, rates have something to go by."""
USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64},
}


def program(name: str, config: pytest.Config) -> str:
    """Path of a program of Debian's package ``prometheus``; without it the test is skipped, or fails if it is required."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        reason = f"{name} is not there: `make monitoring-tools`, or Debian's package prometheus"
        if "prometheus" in config.getoption("--require").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="package")
def promtool(pytestconfig: pytest.Config) -> str:
    return program("promtool", pytestconfig)


CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: token-producer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer}]
"""
SHADOW = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: token-producer}, {type: prefix-cache-scorer}]
"""
"""Sends a prompt where it was, as the one in use does not."""


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query.

        Raises:
            ValueError: it is no PromQL, or cannot be computed.
        """
        async with aiohttp.ClientSession() as session, session.post(self._url, data={"query": expression}) as response:
            answer = await response.json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


async def exchange(channel: aio.Channel, number: int) -> None:
    """A streamed request, the same as a whole one and as one that the model server fails, and two that are refused."""
    prompt = f"prompt {number} of many blocks " * 100
    body = {"stream": True, **json.loads(std_body("chat", prompt))}
    stream = Stream(channel)
    await stream.send(request_headers(request_id=f"r-{number}"), request_body(json.dumps(body)))
    await stream.routed()
    chunks = [json.dumps({"object": "text_completion", "usage": usage}) for usage in (None, None, USAGE)]
    await respond(stream, response_headers(content_type="text/event-stream"))
    for chunk in chunks:
        await respond(stream, response_body(f"data: {chunk}\n\n", end=False))
    await respond(stream, response_body("data: [DONE]\n\n"))
    await stream.closes()
    for status, answer in (("200", {"object": "text_completion", "usage": USAGE}), ("500", {"error": "no"})):
        stream = Stream(channel)
        await stream.send(request_headers(), request_body(std_body("chat", prompt)))
        await stream.routed()
        await respond(stream, response_headers(status=status), response_body(json.dumps(answer)))
        await stream.closes()
    stream = Stream(channel)
    await stream.send(request_headers(), request_body("{"))
    await stream.refused()
    stream = Stream(channel)
    nowhere = request_headers(metadata=subset("192.0.2.1:1"))
    await stream.send(nowhere, request_body(std_body("chat", "p")))
    await stream.refused()


async def traffic(channel: aio.Channel) -> None:
    """Requests without end."""
    number = 0
    while True:
        await exchange(channel, number)
        number += 1
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def picker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PickerProcess]:
    """With traffic, a shadow and a reload, in front of two simulated servers; its gRPC channel is busy until the tests are
    over.
    """
    folder = tmp_path_factory.mktemp("picker")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "shadow.yaml").write_text(SHADOW)
    async with SimulatedPool(2, ServerOptions()) as pool, contextlib.AsyncExitStack() as stack:
        flags = [f"--endpoint={address}" for address in pool.addresses]
        flags += [f"--config-file={folder / 'config.yaml'}", f"--shadow-config-file={folder / 'shadow.yaml'}"]
        running = await stack.enter_async_context(
            PickerProcess([*flags, "--secure-serving=false", "--enable-grpc-stream-metrics"])
        )
        channel = await stack.enter_async_context(aio.insecure_channel(f"127.0.0.1:{running.grpc_port}"))
        await exchange(channel, 0)
        running.process.send_signal(signal.SIGHUP)
        load = asyncio.create_task(traffic(channel))
        yield running
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def prometheus(
    picker: PickerProcess, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> AsyncIterator[Prometheus]:
    """After some scrapes."""
    binary = program("prometheus", pytestconfig)
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {"job_name": "epp", "static_configs": [{"targets": [f"127.0.0.1:{picker.metrics_port}"]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    words = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    async with ServerProcess(words, port=port):
        asked = Prometheus(port)
        async with asyncio.timeout(60):
            while not await scraped(asked):  # noqa: ASYNC110 — another process can only be polled
                await asyncio.sleep(0.2)
        yield asked


async def scraped(prometheus: Prometheus) -> bool:
    """There have been enough scrapes."""
    try:
        found = await prometheus.query("count_over_time(llm_d_epp_request_total[1m])")
    except (ValueError, aiohttp.ClientError):
        return False
    return any(float(sample["value"][1]) >= SCRAPES for sample in found)


@pytest.fixture(scope="package")
def monitoring() -> Path:
    """Where dashboards and alerts are."""
    return Path(__file__).parents[2] / "config" / "monitoring"
