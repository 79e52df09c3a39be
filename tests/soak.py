"""Ten thousand requests through Envoy while endpoints come, go and die: ``make soak`` or ``python -m tests.soak``.

Two phases. ``churn`` (full duplex, endpoints from a watched file): servers are added, removed and killed. Adding and removing
must fail nothing; after a kill no request that began later than the staleness bound may fail. ``retry`` (override_host with
retries): servers are killed and restarted; no request that had not begun to stream may fail. After each phase no stream, no
task and no running request is left, and memory has grown by less than 1 MiB per thousand requests since the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool, SimulatedServer

STALENESS_S = 2.0
MAX_GROWTH_MIB = 1.0
"""Resident memory per thousand requests."""
FAST = ServerOptions(engine=EngineOptions(ttft_ms=2.0, tpot_ms=1.0, prefill_us_per_token=2.0))
CONFIG = {
    "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
    "kind": "EndpointPickerConfig",
    "plugins": [
        {"type": "file-discovery", "parameters": {"path": "", "watchFile": True}},
        {"type": "queue-scorer"},
        {"type": "kv-cache-utilization-scorer"},
        {"type": "active-request-scorer"},
        {"type": "max-score-picker", "parameters": {"maxNumOfEndpoints": 1}},
    ],
    "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
    "schedulingProfiles": [
        {
            "name": "default",
            "plugins": [
                {"pluginRef": "queue-scorer"},
                {"pluginRef": "kv-cache-utilization-scorer"},
                {"pluginRef": "active-request-scorer", "weight": 2},
                {"pluginRef": "max-score-picker"},
            ],
        }
    ],
}


@dataclass(slots=True)
class Failure:
    """A request that failed."""

    began_s: float
    ended_s: float
    streaming_began: bool
    what: str


@dataclass(slots=True)
class Load:
    """Keeps a number of requests under way until enough were sent."""

    url: str
    total: int
    concurrency: int
    sent: int = 0
    done: int = 0
    failures: list[Failure] = field(default_factory=list)

    async def run(self) -> None:
        """Send all requests, half of them streamed."""
        timeout = aiohttp.ClientTimeout(total=30)
        connector = aiohttp.TCPConnector(limit=self.concurrency)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(self.concurrency):
                group.create_task(self._worker(session))

    async def _worker(self, session: aiohttp.ClientSession) -> None:
        while self.sent < self.total:
            self.sent += 1
            await self._one(session, streams=self.sent % 2 == 0, number=self.sent)
            self.done += 1

    async def _one(self, session: aiohttp.ClientSession, *, streams: bool, number: int) -> None:
        began = time.monotonic()
        streaming_began = False
        body = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "user", "content": f"Tell me about the number {number % 50}. " * 8}],
            "max_tokens": 8,
            "stream": streams,
        }
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
                streaming_began = streams and response.status == 200
                text = await response.text()
                if response.status != 200:
                    raise ValueError(f"status {response.status}: {text[:120]}")
                if streams and not text.rstrip().endswith("data: [DONE]"):
                    raise ValueError("the stream was cut")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self.failures.append(Failure(began, time.monotonic(), streaming_began, f"{type(error).__name__}: {error}"))


@dataclass(slots=True)
class Phase:
    """One running set-up."""

    name: str
    pool: SimulatedPool
    picker: PickerProcess
    envoy: EnvoyProcess
    endpoints_file: Path
    kills_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def publish(self, servers: Sequence[SimulatedServer]) -> None:
        """Write the endpoints file, whole."""
        entries = [{"name": s.name, "address": s.host, "port": str(s.port)} for s in servers]
        temporary = self.endpoints_file.with_suffix(".tmp")
        temporary.write_text(yaml.safe_dump({"endpoints": entries}), encoding="utf-8")
        temporary.replace(self.endpoints_file)

    async def page(self, path: str) -> str:
        """A page of the picker's metrics port."""
        url = f"http://127.0.0.1:{self.picker.metrics_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text()

    async def metric(self, name: str) -> float:
        """Sum of a family's series."""
        families = text_string_to_metric_families(await self.page("/metrics"))
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    async def tasks(self) -> int:
        """Tasks on the picker's event loop."""
        found = re.search(r"tasks: (\d+)", await self.page("/debug/pprof/goroutine"))
        return int(found[1]) if found else 0

    def resident_mib(self) -> float:
        """Memory of the picker."""
        rss: int = psutil.Process(self.picker.process.pid).memory_info().rss
        return rss / 2**20


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 15.0) -> None:
    """Poll until a condition of another process holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 — another process can only be polled
            await asyncio.sleep(0.1)
    del what


async def churn(phase: Phase, load: Load, rng: random.Random) -> None:
    """Add, remove and kill servers while the load runs."""
    while load.done < load.total:
        await asyncio.sleep(0.4)
        servers = [server for server in phase.pool.servers if server.is_up]
        action = rng.choice(["add", "remove", "kill"])
        if action == "add" and len(servers) < 10:
            await phase.pool.add(FAST)
            phase.publish(phase.pool.servers)
        elif action == "remove" and len(servers) > 4:
            await _remove(phase, rng.choice(servers))
        elif action == "kill" and len(servers) > 4 and load.total - load.done > 500:
            await _kill_for_a_while(phase, rng.choice(servers))


async def _remove(phase: Phase, server: SimulatedServer) -> None:
    """Take a server out of the file; stop it once the picker has noticed and nothing is under way."""
    phase.publish([other for other in phase.pool.servers if other is not server])

    async def is_gone() -> bool:
        return server.address not in await phase.page("/debug/endpoints")

    await until(is_gone, "removal")
    await asyncio.sleep(0.5)  # decisions made before it was gone are connected by then
    await phase.pool.remove(server.name)


async def _kill_for_a_while(phase: Phase, server: SimulatedServer) -> None:
    phase.kills_s.append(time.monotonic())
    await phase.pool.kill(server.name)
    await asyncio.sleep(STALENESS_S + 1.0)
    await phase.pool.restart(server.name)


async def killing(phase: Phase, load: Load, rng: random.Random) -> None:
    """Kill and restart servers while the load runs."""
    while load.done < load.total:
        await asyncio.sleep(0.5)
        server = rng.choice(phase.pool.servers)
        phase.kills_s.append(time.monotonic())
        await phase.pool.kill(server.name)
        await asyncio.sleep(0.7)
        await phase.pool.restart(server.name)


Trouble = Callable[[Phase, Load, random.Random], Coroutine[Any, Any, None]]


async def run_phase(name: str, envoy: str, trouble: Trouble, arguments: argparse.Namespace) -> Phase:
    """Start everything, warm up, run the load with its trouble, look for leaks."""
    rng = random.Random(arguments.seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epp-soak-")))
        phase = await _start(name, envoy, folder, stack)
        warm_up = Load(phase.envoy.url, max(arguments.requests // 5, 200), arguments.concurrency)
        await warm_up.run()
        tasks, resident = await phase.tasks(), phase.resident_mib()
        load = Load(phase.envoy.url, arguments.requests, arguments.concurrency)
        begun = time.monotonic()
        troubled: asyncio.Task[None] = asyncio.create_task(trouble(phase, load, rng))
        await load.run()
        await troubled
        rate = load.total / (time.monotonic() - begun)
        growth = (phase.resident_mib() - resident) / load.total * 1000
        _judge(phase, warm_up, load)
        await _look_for_leaks(phase, tasks)
        if growth >= MAX_GROWTH_MIB:
            phase.problems.append(f"memory grew by {growth:.2f} MiB per thousand requests")
        print(
            f"{name}: {load.total} requests at {rate:.0f}/s, {len(load.failures)} failed, {len(phase.kills_s)} kills, "
            f"memory {resident:.1f} MiB {growth:+.3f} MiB per thousand requests, {tasks} tasks"
        )
    return phase


async def _start(name: str, envoy: str, folder: Path, stack: AsyncExitStack) -> Phase:
    pool = await stack.enter_async_context(SimulatedPool(6, FAST))
    endpoints = folder / "endpoints.yaml"
    entries = [{"name": s.name, "address": s.host, "port": str(s.port)} for s in pool.servers]
    endpoints.write_text(yaml.safe_dump({"endpoints": entries}), encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(CONFIG))
    config["plugins"][0]["parameters"]["path"] = str(endpoints)
    if name == "retry":
        config["plugins"][-1]["parameters"]["maxNumOfEndpoints"] = 3
    config_file = folder / "config.yaml"
    config_file.write_text(yaml.safe_dump(config), encoding="utf-8")
    flags = [
        f"--config-file={config_file}", "--hold-back-unscraped", "--hold-back-stale", "--drain-timeout=2s",
        "--enable-grpc-stream-metrics", "--enable-pprof", f"--metrics-staleness-threshold={STALENESS_S:g}s",
    ]  # fmt: skip
    picker = await stack.enter_async_context(PickerProcess(flags))
    document = render(envoy, epp_port=picker.grpc_port, endpoints=pool.addresses)
    proxy = await stack.enter_async_context(EnvoyProcess(document))
    return Phase(name, pool, picker, proxy, endpoints)


def _judge(phase: Phase, warm_up: Load, load: Load) -> None:
    phase.problems += [f"failed in the warm-up: {failure.what}" for failure in warm_up.failures]
    for failure in load.failures:
        if phase.name == "retry":
            if not failure.streaming_began:
                phase.problems.append(f"failed though it had not begun to stream: {failure.what}")
        elif not any(failure.began_s <= kill + STALENESS_S and failure.ended_s >= kill for kill in phase.kills_s):
            phase.problems.append(f"failed without a kill in the last {STALENESS_S:g} s: {failure.what}")


async def _look_for_leaks(phase: Phase, tasks: int) -> None:
    async def is_quiet() -> bool:
        streams = await phase.metric("llm_d_epp_extproc_streams_inflight")
        running = await phase.metric("llm_d_epp_request_running")
        return streams == 0 and running == 0

    try:
        await until(is_quiet, "no open streams")
    except TimeoutError:
        phase.problems.append("streams or running requests are left")
    after = await phase.tasks()
    grown = len(phase.pool.servers) - 6
    if after > tasks + max(grown, 0) + 2:
        phase.problems.append(f"{after} tasks are left, {tasks} were there before")


def main() -> int:
    """Run both phases; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    phases = [
        asyncio.run(run_phase("churn", "full-duplex", churn, arguments)),
        asyncio.run(run_phase("retry", "override-host-retry", killing, arguments)),
    ]
    problems = [f"{phase.name}: {problem}" for phase in phases for problem in phase.problems]
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    if len(problems) > 20:
        print(f"and {len(problems) - 20} more", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
