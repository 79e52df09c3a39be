"""One benchmark: back end, pickers, Envoy and client side by side, driven in alternating segments."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.load import cost, pickers
from bench.load.pickers import Picker
from bench.load.process import ProcessFailed, ServerProcess
from bench.load.proxy import DIRECT, bench_bootstrap
from bench.load.stats import percentile
from bench.load.worker import Worker
from bench.load.workloads import Workload
from epp.demo.envoy import EnvoyProcess

_SETTLE_S = 0.3
"""Pause before a segment: late work of the one before ends, a resumed picker scrapes afresh."""
_BEHIND = 0.1
"""Part of a segment by which its responses may end too late: one hiccup of the machine takes no longer."""
_PROBES = 3
"""Closed-loop segments of each picker that say how much it holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    pickers: Sequence[Picker]
    workload: Workload
    mode: str = "full-duplex"
    """Name of the Envoy bootstrap file."""
    segments: int = 10
    """Segments for each picker."""
    seconds: float = 5.0
    """Length of a segment."""
    chunk_interval_ms: float = 5.0
    """Time between the chunks of a streamed response."""
    config: Path | None = None
    """EndpointPickerConfig for the placeholder ``{config}``."""
    rate_of_weakest: float = 0.0
    """Rate of an open loop for all, as a part of what the weakest picker holds in a closed one; 0 leaves the workload's."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one segment of one picker showed. CPU includes children and threads."""

    requests: int
    errors: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    """Median time to the first byte of a response."""
    picker_cpu_s: float
    envoy_cpu_s: float
    picker_resident_bytes: int
    scrapes: int
    """Metrics pages served in the segment, to all pickers that ran."""
    late_p99_ms: float
    """How late the client itself was with its requests; part of their latency."""
    client_cpu_s: float
    seconds: float
    """How long requests were sent."""

    @property
    def is_behind(self) -> bool:
        """Whether responses came ever later, so that the last ones came long after the last request was due."""
        return self.elapsed_s > self.seconds * (1 + _BEHIND) + self.p50_ms / 1000


Results = dict[str, list[Segment]]
"""Segments by picker; also of `DIRECT`, unless nothing is sent."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a benchmark showed."""

    workload: Workload
    """What was sent, with the rate that was chosen."""
    results: Results
    held: dict[str, float]
    """Requests per second of each picker in a closed loop, if the rate was chosen by them."""


async def measure(plan: Plan) -> Measured:
    """Run the benchmark.

    Raises:
        ProcessFailed: a picker did not start, or ended early.
        EnvoyError: Envoy is missing or did not start.
    """
    async with AsyncExitStack() as stack:
        rig = await _set_up(plan, stack)
        names = list(rig.running) if plan.workload.connections == 0 else [DIRECT, *rig.running]
        for name in names:
            await rig.segment(name, seed=0, seconds=min(plan.seconds, 2.0))  # warm-up
        held = await _what_each_holds(rig, plan.seconds) if plan.rate_of_weakest else {}
        if held:
            rig = replace(rig, workload=replace(plan.workload, rate=plan.rate_of_weakest * min(held.values())))
        return Measured(rig.workload, await _rounds(rig, names, plan.segments, plan.seconds), held)


async def _what_each_holds(rig: _Rig, seconds: float) -> dict[str, float]:
    """Requests per second of each picker in a closed loop."""
    closed = replace(rig, workload=replace(rig.workload, rate=0.0))
    probes = await _rounds(closed, list(rig.running), _PROBES, seconds)
    held = {name: statistics.median(_per_second(segment) for segment in segments) for name, segments in probes.items()}
    for name, rate in held.items():
        if not rate:
            raise ProcessFailed(
                f"{name} answers no request with 200, so there is no rate to compare at:\n{rig.running[name].log}"
            )
    return held


async def _rounds(rig: _Rig, names: list[str], count: int, seconds: float) -> Results:
    """Each round in the other direction: a drift of the machine's speed favours nobody."""
    results: Results = {name: [] for name in names}
    for number in range(count):
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(await rig.segment(name, seed=number + 1, seconds=seconds))
    return results


def _per_second(segment: Segment) -> float:
    return segment.requests / segment.elapsed_s


async def _set_up(plan: Plan, stack: AsyncExitStack) -> _Rig:
    load = plan.workload
    back = ("--servers", str(load.endpoints), "--page", load.page, "--response", load.response)
    backend = await stack.enter_async_context(
        Worker("bench.load.backend", *back, "--chunk-interval-ms", str(plan.chunk_interval_ms))
    )
    endpoints = [f"127.0.0.1:{port}" for port in backend.hello["ports"]]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epp-bench-")))
    shared = pickers.write_files(folder, endpoints, plan.config)
    running = await pickers.start(plan.pickers, shared, stack)
    bootstrap = bench_bootstrap(plan.mode, {name: process.port for name, process in running.items()}, endpoints)
    envoy = await stack.enter_async_context(EnvoyProcess(bootstrap, concurrency=1))
    client = await stack.enter_async_context(
        Worker("bench.load.client", "--prompt-bytes", str(load.prompt_bytes), "--response", load.response)
    )
    return _Rig(load, running, backend, envoy, client)


@dataclass(frozen=True, slots=True)
class _Rig:
    """Everything that runs."""

    workload: Workload
    running: dict[str, ServerProcess]
    backend: Worker
    envoy: EnvoyProcess
    client: Worker

    async def segment(self, name: str, *, seed: int, seconds: float) -> Segment:
        """Drive one picker, or nobody, and measure what it cost."""
        picker = self.running.get(name)
        if self.workload.freeze:
            for other in self.running.values():
                other.resume() if other is picker else other.pause()
        await asyncio.sleep(_SETTLE_S)
        before = await self._counters(picker)
        answer = await self._drive(name, seed, seconds)
        for process in self.running.values():
            process.check()
        after = await self._counters(picker)
        cpu_s, envoy_cpu_s, client_cpu_s, scrapes = (end - start for start, end in zip(before, after, strict=True))
        latencies, firsts = answer["latencies_us"], answer["firsts_us"]
        return Segment(
            requests=len(latencies),
            errors=answer["errors"],
            elapsed_s=answer["elapsed_s"],
            p50_ms=percentile(latencies, 0.5) / 1000,
            p99_ms=percentile(latencies, 0.99) / 1000,
            first_p50_ms=percentile(firsts, 0.5) / 1000,
            picker_cpu_s=cpu_s,
            envoy_cpu_s=envoy_cpu_s,
            picker_resident_bytes=0 if picker is None else cost.resident_bytes(picker.pid),
            scrapes=int(scrapes),
            late_p99_ms=percentile(answer["lates_us"], 0.99) / 1000,
            client_cpu_s=client_cpu_s,
            seconds=seconds,
        )

    async def _drive(self, name: str, seed: int, seconds: float) -> dict[str, Any]:
        if self.workload.connections == 0:
            await asyncio.sleep(seconds)
            return {"latencies_us": [], "firsts_us": [], "lates_us": [], "errors": 0, "elapsed_s": seconds}
        return await self.client.call(
            {
                "port": self.envoy.ports[name],
                "seconds": seconds,
                "connections": self.workload.connections,
                "rate": self.workload.rate,
                "seed": seed,
            }
        )

    async def _counters(self, picker: ServerProcess | None) -> tuple[float, float, float, float]:
        """CPU of the picker, of Envoy and of the client, pages scraped: all since their start."""
        scrapes = (await self.backend.call({}))["scrapes"]
        picker_cpu_s = 0.0 if picker is None else cost.cpu_s(picker.pid)
        return picker_cpu_s, cost.cpu_s(self.envoy.pid), cost.cpu_s(self.client.pid), float(scrapes)
