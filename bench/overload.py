"""Flow control under overload: simulated servers behind the real Envoy get three times what they can serve.

Run: ``python -m bench.overload [--servers 4] [--slots 8] [--seconds 20]``. Four phases, one after the other:

- alone: interactive requests, one at a time: what their latency is without load;
- capacity: a closed loop with twice as many clients as the servers have slots: what the pool serves;
- overload: an open loop of three times that, a tenth of it interactive (priority 100), the rest in halves of 0 and -10;
- tenants: two tenants of one priority, of which one offers ten times as much as the other, and that one more than half.

Served is what was answered with 200 before the phase was over. It prints what each class got, and at the end whether what flow
control promises holds: interactive requests as fast as alone, the pool as busy as in the closed loop, tenants served alike, no
request lost and none answered twice. The figures belong to an idle machine: clients, Envoy, picker and servers share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from bench.calibration import calibrate
from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL

_CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: inflight-load-producer}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: {slots}}}}}
- {{type: round-robin-fairness-policy}}
- {{type: active-request-scorer}}
- {{type: max-score-picker}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: active-request-scorer}}
  - {{pluginRef: max-score-picker}}
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  defaultRequestTTL: 5s
  defaultPriorityBand: &band
    maxRequests: {queue}
    maxRequestsPerFlow: {flow_queue}
    fairnessPolicyRef: round-robin-fairness-policy
  defaultNegativePriorityBand: *band
  priorityBands: [{{priority: 100, maxRequests: {queue}}}]
"""
_OBJECTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {{name: {name}}}
spec: {{priority: {priority}}}
---
"""
_PRIORITIES = {"interactive": 100, "normal": 0, "batch": -10}
_TOKENS = range(20, 61)
"""Lengths of answers. If all were equal, servers would end whole batches at once, and what waits would wait for that."""
_PAUSE_S = 6.0
"""Between two phases: longer than what waits may wait."""
_OBJECTIVE, _TENANT = "x-llm-d-inference-objective", "x-llm-d-inference-fairness-id"


@dataclass
class Class:
    """Requests of one kind, and what became of them."""

    name: str
    rate: float
    headers: dict[str, str]
    latencies_s: list[float] = field(default_factory=list)
    """Of all that were served, also of those that were after the phase."""
    ended_s: list[float] = field(default_factory=list)
    """When."""
    until_s: float = 0.0
    """End of the phase."""
    statuses: Counter[str] = field(default_factory=Counter)
    """By status and dropped reason."""

    @property
    def served(self) -> int:
        """Before the end of the phase."""
        return sum(at_s <= self.until_s for at_s in self.ended_s)

    @property
    def sent(self) -> int:
        return self.statuses.total()

    def p90_ms(self) -> float:
        """Of those that were served."""
        return statistics.quantiles(self.latencies_s, n=10)[8] * 1000 if len(self.latencies_s) > 1 else float("nan")


class Load:
    """A client of Envoy.

    Args:
        session: its connections.
        seed: of arrivals, and of the lengths of answers.
    """

    def __init__(self, session: aiohttp.ClientSession, seed: int) -> None:
        self._session = session
        self._rng = random.Random(seed)
        self._lengths = random.Random(seed)
        self._number = 0
        self.answers: Counter[str] = Counter()
        """By request id: each must have one."""

    async def ask(self, kind: Class) -> None:
        """Send one request, and write down what became of it."""
        self._number += 1
        request_id = f"overload-{self._number}"
        body = {"model": DEFAULT_MODEL, "prompt": f"{self._number} bottles", "max_tokens": self._lengths.choice(_TOKENS)}
        headers = {**kind.headers, "x-request-id": request_id}
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            async with self._session.post("/v1/completions", json=body, headers=headers) as response:
                await response.read()
        except aiohttp.ClientError as error:
            kind.statuses[type(error).__name__] += 1
            return
        self.answers[request_id] += 1
        reason = response.headers.get("x-llm-d-request-dropped-reason", "")
        kind.statuses[f"{response.status} {reason}".strip()] += 1
        if response.status == 200:
            kind.ended_s.append(loop.time())
            kind.latencies_s.append(kind.ended_s[-1] - begun_s)

    async def one_after_the_other(self, kind: Class, count: int) -> None:
        for _ in range(count):
            await self.ask(kind)
        kind.until_s = asyncio.get_running_loop().time()

    async def closed(self, kind: Class, clients: int, seconds: float) -> None:
        """So many clients, each of which asks again when it has its answer."""
        loop = asyncio.get_running_loop()
        end_s = kind.until_s = loop.time() + seconds

        async def client() -> None:
            while loop.time() < end_s:
                await self.ask(kind)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, kinds: Sequence[Class], seconds: float) -> None:
        """Poisson arrivals of all kinds, whatever becomes of those before."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        running: set[asyncio.Task[None]] = set()

        async def arrivals(kind: Class) -> None:
            kind.until_s = end_s
            due_s = loop.time()
            while (due_s := due_s + self._rng.expovariate(kind.rate)) < end_s:
                await asyncio.sleep(due_s - loop.time())
                task = asyncio.create_task(self.ask(kind))
                running.add(task)
                task.add_done_callback(running.discard)

        await asyncio.gather(*(arrivals(kind) for kind in kinds if kind.rate))
        await asyncio.gather(*running)


def main() -> None:
    """Run the phases and print what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--servers", type=int, default=4)
    arguments.add_argument("--slots", type=int, default=8, help="requests that a server runs at once")
    arguments.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    arguments.add_argument("--factor", type=float, default=3.0, help="of the overload")
    arguments.add_argument("--mode", default="full-duplex-plaintext", help="name of a file in config/envoy")
    arguments.add_argument("--output", help="where to write the figures as JSON")
    given = arguments.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(_run(given))
    if given.output:
        Path(given.output).write_text(json.dumps(figures, indent=2))


async def _run(given: argparse.Namespace) -> dict[str, Any]:
    print(f"calibration  {calibrate():.1f} ns per step of a Python loop")
    slots = given.servers * given.slots
    async with _system(given, slots) as (load, picker):
        alone = _kind("interactive", 0)
        await load.one_after_the_other(alone, 100)
        _print("alone", [alone], 1.0)
        closed = _kind("normal", 0)
        await load.closed(closed, 2 * slots, given.seconds)
        capacity = closed.served / given.seconds
        _print("capacity", [closed], given.seconds)
        await asyncio.sleep(_PAUSE_S)
        shares = {"interactive": 0.1, "normal": 0.45, "batch": 0.45}
        classes = [_kind(name, given.factor * capacity * share) for name, share in shares.items()]
        await load.open(classes, given.seconds)
        _print("overload", classes, given.seconds)
        await asyncio.sleep(_PAUSE_S)
        small = 0.75 * capacity
        tenants = [_kind("normal", small * times, tenant) for tenant, times in (("large", 10), ("small", 1))]
        await load.open(tenants, given.seconds)
        _print("tenants", tenants, given.seconds)
        outcomes = await _outcomes(picker)
    everything = [alone, closed, *classes, *tenants]
    figures = {
        "capacity": capacity,
        "alone_p90_ms": alone.p90_ms(),
        "interactive_p90_ms": classes[0].p90_ms(),
        "goodput": sum(kind.served for kind in classes) / given.seconds,
        "tenants": [kind.served for kind in tenants],
        "sent": sum(kind.sent for kind in everything),
        "answers": load.answers.total(),
        "outcomes": outcomes,
    }
    _judge(figures, max(load.answers.values()))
    return figures


def _kind(name: str, rate: float, tenant: str = "") -> Class:
    headers = {_OBJECTIVE: name, **({_TENANT: tenant} if tenant else {})}
    return Class(tenant or name, rate, headers)


def _print(phase: str, kinds: Sequence[Class], seconds: float) -> None:
    print(f"\n{phase:12s} {'offered/s':>10} {'served/s':>10} {'p50 ms':>8} {'p90 ms':>8}  ends")
    for kind in kinds:
        p50 = statistics.median(kind.latencies_s) * 1000 if kind.latencies_s else float("nan")
        ends = ", ".join(f"{status}: {count}" for status, count in sorted(kind.statuses.items()))
        offered = f"{kind.rate:10.1f}" if kind.rate else f"{'-':>10}"
        print(f"{kind.name:12s} {offered} {kind.served / seconds:10.1f} {p50:8.1f} {kind.p90_ms():8.1f}  {ends}")


def _judge(figures: dict[str, Any], most: int) -> None:
    """What is promised, and what came of it."""
    slower = figures["interactive_p90_ms"] / figures["alone_p90_ms"] - 1
    goodput = figures["goodput"] / figures["capacity"] - 1
    large, small = figures["tenants"]
    apart = abs(large - small) / max(large, small, 1)
    counted = sum(figures["outcomes"].values())
    rows = [
        ("p90 of interactive requests against alone", f"{slower:+.1%}", slower <= 0.2),
        ("goodput against capacity", f"{goodput:+.1%}", goodput >= -0.05),
        ("tenants apart", f"{apart:.1%}", apart <= 0.1),
        ("requests without an answer", str(figures["sent"] - figures["answers"]), figures["sent"] == figures["answers"]),
        ("answers to one request", str(most), most == 1),
        ("outcomes counted against sent", f"{counted:.0f} / {figures['sent']}", counted == figures["sent"]),
    ]
    print()
    for what, value, holds in rows:
        print(f"{what:45s} {value:>16}  {'holds' if holds else 'DOES NOT HOLD'}")


async def _outcomes(picker: PickerProcess) -> dict[str, float]:
    await asyncio.sleep(1.5)  # pages are cached for a second
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{picker.metrics_port}/metrics") as page:
        families = text_string_to_metric_families(await page.text())
    found: Counter[str] = Counter()
    for family in families:
        for sample in family.samples:
            if sample.name == "llm_d_epp_flow_control_requests_total":
                found[sample.labels["outcome"]] += int(sample.value)
    return dict(found)


@asynccontextmanager
async def _servers(count: int, slots: int, ready: Path) -> AsyncIterator[list[str]]:
    """Simulated servers in a process of their own, so that clients do not make them slow; the address of each."""
    engine = [f"--max-num-seqs={slots}", "--ttft-ms=20", "--tpot-ms=10", "--tpot-growth=0"]
    command = [sys.executable, "-m", "epp", "simulate", f"--count={count}", "--port=0", f"--ready-file={ready}", *engine]
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL)
    try:
        while not ready.exists():  # noqa: ASYNC240 — once, before anything is measured
            if process.returncode is not None:
                raise RuntimeError(f"epp simulate has ended with {process.returncode}")
            await asyncio.sleep(0.05)
        found = json.loads(ready.read_text())["endpoints"]  # noqa: ASYNC240
        yield [f"{server['address']}:{server['port']}" for server in found]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def _system(given: argparse.Namespace, slots: int) -> AsyncIterator[tuple[Load, PickerProcess]]:
    """Servers, picker, Envoy and a client."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overload-")))
        config, objects = folder / "config.yaml", folder / "objects.yaml"
        config.write_text(_CONFIG.format(slots=given.slots, queue=4 * slots, flow_queue=2 * slots))
        objects.write_text("".join(_OBJECTS.format(name=name, priority=value) for name, value in _PRIORITIES.items()))
        addresses = await stack.enter_async_context(_servers(given.servers, given.slots, folder / "servers.json"))
        flags = [f"--config-file={config}", f"--objects={objects}", "--secure-serving=false"]
        flags += [f"--endpoint={address}" for address in addresses]
        picker = await stack.enter_async_context(PickerProcess(flags))
        envoy = await stack.enter_async_context(EnvoyProcess(render(given.mode, epp_port=picker.grpc_port, secure=False)))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(envoy.url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120))
        )
        yield Load(session, seed=7), picker


if __name__ == "__main__":
    main()
