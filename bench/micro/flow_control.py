"""What flow control costs: a request that need not wait, one that waits, and letting 50,000 go.

Run: ``python -m bench.micro.flow_control [--endpoints 10] [--waiting 50000] [--flows 5000]``. Three tables:

- passing: from the call of the handler with the complete request to the call that it is over, with the gate off and with each
  detector, in alternating rounds; what is added by the gate is the difference of the medians;
- memory: what a waiting request takes beside its body, its parsed document included, with a director around it and in the
  engine alone;
- letting go: CPU time for each request that is let go, by fairness policy and by the number of flows that wait.

The first line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bench.calibration import calibrate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.datalayer.objects import PoolIdentity
from epp.errors import RequestError
from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.settings import BandSettings, FlowControlSettings, Named
from epp.framework.candidates import Candidates
from epp.framework.flow_control import Credits
from epp.framework.registry import Registry
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointMetrics, InferenceRequest, Usage
from epp.pool.pool import Pool
from epp.pool.settings import PoolSettings
from epp.process.plugin_types import build_registry
from epp.process.runtime import TaskRuntime
from epp.seam import BodyState, End, Metadata, Outcome, Reply, Route
from epp.telemetry.flow_control import FlowMetrics
from epp.telemetry.metrics import Metrics

_CONFIG = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
{gate}
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: max-score-picker
- type: inflight-load-producer
- type: concurrency-detector
  parameters: {{maxConcurrency: {limit}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - pluginRef: max-score-picker
saturationDetector: {detector}
"""
_UTILIZATION = "{queueDepthThreshold: 1000, metricsStalenessThreshold: 1h}"
_CONCURRENCY = "{pluginRef: concurrency-detector}"
_GATE = (
    "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: 30s, defaultPriorityBand: {maxRequests: 1M, maxBytes: 1T}}"
)
_VARIANTS = {
    "gate off": ("", _UTILIZATION),
    "utilization-detector": (_GATE, _UTILIZATION),
    "concurrency-detector": (_GATE, _CONCURRENCY),
}
_ROUNDS, _BATCH = 40, 500
_HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json", "x-request-id": "r"}
_FLOWS = (1, 10, 100, 1_000, 5_000)
_POLICIES = ("global-strict-fairness-policy", "round-robin-fairness-policy", "program-aware-fairness")
_LET_GO = 2_000
"""Requests that are let go for one figure."""


class _Headers:
    def get(self, name: str) -> str | None:
        return _HEADERS.get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(_HEADERS.items())


class _Request:
    """A complete request, as a transport hands it over; as small as those are."""

    __slots__ = ("at_s", "body", "headers")
    metadata: Metadata = MappingProxyType({})
    body_state = BodyState.COMPLETE
    read: tuple[object, ...] = ()

    def __init__(self, body: bytes) -> None:
        self.headers = _Headers()
        self.body = memoryview(body)
        self.at_s = time.monotonic()


class _Head:
    status = 200
    metadata: Metadata = MappingProxyType({})
    at_s = 0.0
    headers = _Headers()


class _Stream:
    """What a transport keeps of one stream, as far as the director sees it."""

    __slots__ = ("answered", "state")

    def __init__(self) -> None:
        self.state: object = None
        self.answered: Route | Reply | None = None

    def answer(self, answer: Route | Reply) -> None:
        self.answered = answer


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--endpoints", type=int, default=10)
    arguments.add_argument("--waiting", type=int, default=50_000)
    arguments.add_argument("--flows", type=int, default=5_000)
    given = arguments.parse_args()
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    asyncio.run(_passing(given.endpoints))
    asyncio.run(_memory(given.endpoints, given.waiting // 10))
    _letting_go(given.waiting, given.flows)


# ── a request that need not wait ──


async def _passing(endpoints: int) -> None:
    registry, _ = build_registry()
    pools = {name: _pool(registry, *variant, endpoints=endpoints) for name, variant in _VARIANTS.items()}
    body = _body()
    times: dict[str, list[float]] = {name: [] for name in pools}
    for round_ in range(_ROUNDS):
        for name, pool in pools.items():
            elapsed = _batch(pool, body)
            if round_ >= _ROUNDS // 8:
                times[name] += elapsed
    base = statistics.median(times["gate off"])
    print(f"\npassing, {endpoints} endpoints, {len(body)} bytes    median us   added us   p99 us")
    for name, values in times.items():
        values.sort()
        median, p99 = statistics.median(values), values[int(len(values) * 0.99)]
        print(f"{name:38s} {median * 1e6:9.1f} {(median - base) * 1e6:10.1f} {p99 * 1e6:8.1f}")


def _batch(pool: Pool, body: bytes) -> list[float]:
    now = time.monotonic()
    usage = Usage(100, 20, 120, 64, 0, found=True)
    outcome = Outcome(End.NATURAL, True, "", _Head(), False, 1, 900, (usage,), now, now, now, 1e-4, (), 0.0)
    rng = random.Random(11)
    endpoints = list(pool.store)
    times = []
    for i in range(_BATCH):
        if i % 3 == 0:  # as many scrapes as a busy pool brings between requests
            _scrape(pool, rng.choice(endpoints), rng)
        request, stream = _Request(body), _Stream()
        begun = time.perf_counter()
        pool.director.request(stream, request)
        pool.director.finished(stream, outcome)
        times.append(time.perf_counter() - begun)
        assert isinstance(stream.answered, Route)
    return times


# ── a request that waits ──


async def _memory(endpoints: int, waiting: int) -> None:
    registry, _ = build_registry()
    pool = _pool(registry, _GATE, _CONCURRENCY, endpoints=endpoints, limit=1)
    body = _body()
    running = [_sent(pool, body) for _ in range(endpoints)]
    assert all(isinstance(stream.answered, Route) for stream in running)
    kept: list[object] = []

    def ask_all() -> None:
        kept.extend(_sent(pool, body) for _ in range(waiting))

    whole = _bytes_of(ask_all) / waiting
    assert pool.flow_control is not None
    assert pool.flow_control.bands.count == waiting
    pool.refuse_queued()
    engine, detector = _engine("round-robin-fairness-policy")
    detector.level = 1.0
    requests = [_flow_request(i % 100) for i in range(waiting)]
    alone = _bytes_of(lambda: [_admit(engine, request) for request in requests]) / waiting
    print(f"\nmemory of a waiting request: {whole:.0f} bytes beside its body ({len(body)} bytes, shared here), of which")
    print(f"flow control {alone:.0f}; the rest is the decision where it stopped and the parsed document")


def _bytes_of(work: Callable[[], object]) -> int:
    """What is allocated by ``work`` and still there."""
    gc.collect()
    tracemalloc.start()
    kept = work()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size


# ── letting go ──


def _letting_go(waiting: int, flows: int) -> None:
    print(f"\nletting go, {waiting} waiting: us a request (requests a second)")
    counts = [count for count in _FLOWS if count <= flows]
    print("flows".ljust(32) + "".join(f"{count:>20}" for count in counts))
    for name in _POLICIES:
        cells = []
        for count in counts:
            few = _LET_GO if name != "program-aware-fairness" else max(_LET_GO // max(count // 10, 1), 100)
            each = _let_go(name, waiting, count, few)
            cells.append(f"{each * 1e6:9.1f} ({1 / each:8.0f})")
        print(name.ljust(32) + "".join(cells))


def _let_go(policy: str, waiting: int, flows: int, count: int) -> float:
    """CPU seconds for each request that is let go while so many wait."""
    engine, detector = _engine(policy)
    detector.level = 1.0
    gone = 0

    def goes() -> None:
        nonlocal gone
        gone += 1
        if gone == count:
            detector.level = 1.0

    for i in range(waiting):
        ticket = _admit(engine, _flow_request(i % flows))
        ticket.when_ended(goes)
    detector.level = 0.0
    begun = time.process_time()
    while gone < count:
        engine._run()
    elapsed = time.process_time() - begun
    engine.stop()
    return elapsed / gone


class _Level:
    """An exact detector that costs nothing."""

    level = 0.0
    shows_after_s = 0.0

    def saturation(self, candidates: Candidates) -> float:  # noqa: ARG002 — as the Protocol has it
        return self.level

    def saturation_with(self, candidates: Candidates, credit: Credits) -> float:  # noqa: ARG002
        return self.level

    def credit_tokens(self, request: InferenceRequest) -> int:  # noqa: ARG002
        return 0

    def next_change_s(self) -> float:
        return float("inf")


class _NoTimers:
    """Nothing is called back: the benchmark asks itself."""

    def call_soon(self, callback: Callable[[], object]) -> _NoTimers:  # noqa: ARG002
        return self

    def call_at(self, when_s: float, callback: Callable[[], object]) -> _NoTimers:  # noqa: ARG002
        return self

    def cancel(self) -> None: ...


class _NoDefects:
    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        raise AssertionError(f"{name} ({type_name}) failed as {role}: {problem}")


def _engine(policy: str) -> tuple[FlowController, _Level]:
    """The engine alone, over one band without limits."""
    registry, _ = build_registry()

    def named(name: str) -> Named[Any]:
        plugin_type = registry.get(name)
        assert plugin_type is not None
        return Named(make_plugin(plugin_type, {}, make_context(name)), name, name)

    detector = _Level()
    band = BandSettings(named(policy), named("fcfs-ordering-policy"), max_requests=1 << 40, max_bytes=1 << 60, ttl_s=30.0)
    settings = FlowControlSettings(Named(detector, "level", "level"), named("static-usage-limit-policy"), band, band)
    endpoints = make_candidates(1)
    metrics = FlowMetrics(Metrics(), "pool")
    return FlowController(settings, lambda: endpoints, metrics, _NoDefects(), timers=_NoTimers()), detector


def _admit(engine: FlowController, request: InferenceRequest) -> Any:
    try:
        return engine.admit(request, Candidates((), ()))
    except RequestError as error:
        raise AssertionError(error) from error


_REQUEST = make_request()
_IDS = [f"tenant-{i}" for i in range(max(_FLOWS))]


def _flow_request(flow: int) -> InferenceRequest:
    return replace(_REQUEST, fairness_id=_IDS[flow], size_bytes=1000)


# ── a pool ──


def _pool(registry: Registry, gate: str, detector: str, *, endpoints: int, limit: int = 1_000_000) -> Pool:
    document = _CONFIG.format(gate=gate, detector=detector, limit=limit)
    runtime = TaskRuntime()
    settings = PoolSettings(PoolIdentity("pool"), endpoints=("127.0.0.1:1",))
    config = load_config(ConfigSource.from_text(document), registry)
    pool = Pool(settings, config, Metrics(), runtime, runtime.spawn, print)
    pool.store.replace_all([Endpoint.of(f"pod-{i}", f"10.0.{i // 250}.{1 + i % 250}", 8000) for i in range(endpoints)])
    rng = random.Random(7)
    for endpoint in list(pool.store):
        _scrape(pool, endpoint, rng)
    return pool


def _scrape(pool: Pool, endpoint: Endpoint, rng: random.Random) -> None:
    metrics = EndpointMetrics(
        waiting_queue=rng.randrange(20), running_requests=rng.randrange(64), kv_cache_usage=rng.random() / 2
    )
    pool.store.set_metrics(endpoint.id, metrics, time.monotonic())


def _sent(pool: Pool, body: bytes) -> _Stream:
    stream = _Stream()
    pool.director.request(stream, _Request(body))
    return stream


def _body() -> bytes:
    messages: Sequence[dict[str, str]] = [
        {"role": "system", "content": "You are helpful. " * 12},
        {"role": "user", "content": "Why is the sky blue? " * 16},
    ]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 100}).encode()


if __name__ == "__main__":
    main()
