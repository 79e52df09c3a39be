"""Model servers with the addresses of pods, an Envoy before the pickers, and clients that count what they get."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.load.process import free_port
from epp.demo.envoy import Bootstrap, render
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions
from epp.simulate.server import SimulatedServer
from tests.kube.api import Api
from tests.kube.manifests import pod

FAST_ENGINE = EngineOptions(ttft_ms=1.0, tpot_ms=1.0)
FINALIZER = "tests/kept"
"""Keeps a deleted pod in the API, as a kubelet does until its containers have ended."""


class Pods:
    """Pods whose model servers run here, all on one port, each at an address of its own.

    Args:
        api: where they are told of.
        options: of the servers.
    """

    def __init__(self, api: Api, options: ServerOptions | None = None) -> None:
        self._api = api
        self._options = options or ServerOptions(engine=FAST_ENGINE)
        self._servers: dict[str, list[SimulatedServer]] = {}
        self._made = 0
        self.port = free_port()

    async def add(self, name: str = "", ports: Sequence[int] = (), labels: dict[str, str] | None = None) -> str:
        """Start a server, then tell that its pod is ready; returns its address."""
        self._made += 1
        name = name or f"p{self._made}"
        address = f"127.2.0.{self._made}"
        for port in ports or (self.port,):
            server = SimulatedServer(name, self._options, address, port)
            await server.start()
            self._servers.setdefault(name, []).append(server)
        manifest = pod(name, address, labels=labels)
        manifest["metadata"]["finalizers"] = [FINALIZER]
        await self._api.create(manifest)
        return address

    async def remove(self, name: str) -> None:
        """What `kubectl delete pod` sets going: the pod is told to end, its server ends in good order, the pod is gone.

        As a container with a preStop hook, the server takes new requests a moment longer: pickers and proxies hear at the same
        time as it does.
        """
        await self._api.delete(pod(name))
        await asyncio.sleep(_PRE_STOP_S)  # the hook of a real pod is a sleep too
        for server in self._servers.pop(name):
            await server.stop(drain_s=10.0)
        await self._api.patch(pod(name), {"metadata": {"finalizers": None}})

    def names(self) -> list[str]:
        """Of those that live."""
        return list(self._servers)

    async def close(self) -> None:
        """Stop all servers."""
        for servers in self._servers.values():
            for server in servers:
                await server.stop(drain_s=0.0)


_PRE_STOP_S = 1.0


@asynccontextmanager
async def pods_of(api: Api, count: int = 0, options: ServerOptions | None = None) -> AsyncIterator[Pods]:
    """Pods, gone when the test is over."""
    pods = Pods(api, options)
    try:
        for _ in range(count):
            await pods.add()
        yield pods
    finally:
        await pods.close()


def bootstrap(pickers: Sequence[int], *, health_check: bool = False) -> Bootstrap:
    """Envoy before pickers at these ports; it asks for their health on the same ports."""
    document = render("full-duplex-plaintext", epp_port=pickers[0], secure=False, health_check=health_check)
    (picker,) = [found for found in document["static_resources"]["clusters"] if found["name"] == "epp"]
    picker["load_assignment"]["endpoints"] = [
        {
            "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in pickers
            ]
        }
    ]
    if health_check:
        picker["health_checks"][0].update(
            interval="0.2s", no_traffic_interval="0.2s", unhealthy_threshold=1, healthy_threshold=1
        )
        # With nobody healthy, asking someone anyway is worse than saying so.
        picker["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    return document


@dataclass
class Traffic:
    """Requests at a steady rate, whatever becomes of them.

    Args:
        url: of Envoy.
        rate_s: requests a second.
        headers: of each request.
    """

    url: str
    rate_s: float = 50.0
    headers: dict[str, str] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    """Status → number; 0 = the connection broke."""
    failures: list[str] = field(default_factory=list)
    failed_s: list[float] = field(default_factory=list)
    """When the requests that failed began, monotonic."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Traffic]:
        """Send until the block ends, then wait for the last answers."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
            ended = asyncio.Event()
            sending = asyncio.create_task(self._send(session, ended))
            try:
                yield self
            finally:
                ended.set()
                await sending

    async def _send(self, session: aiohttp.ClientSession, ended: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            next_s = time.monotonic()
            while not ended.is_set():
                group.create_task(self._one(session))
                next_s += 1 / self.rate_s
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        began_s = time.monotonic()
        body: dict[str, Any] = {"model": DEFAULT_MODEL, "prompt": "Hello", "max_tokens": 4}
        try:
            async with session.post(f"{self.url}/v1/completions", json=body, headers=self.headers) as response:
                text = await response.text()
                status = response.status
        except aiohttp.ClientError as error:
            status, text = 0, repr(error)
        self.answers[status] += 1
        if status != 200:
            self.failures.append(f"{status}: {text[:300]}")
            self.failed_s.append(began_s)

    @property
    def total(self) -> int:
        """Requests that were answered, or broke."""
        return self.answers.total()
