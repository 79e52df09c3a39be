"""What one request costs above the seam: parse, schedule, keep the books.

Run: ``python -m bench.micro.request [--endpoints 10] [--rounds 20000]``. A chat completion of some 700 bytes, 10 endpoints,
queue + KV + max-score; from the call of the handler with the complete request to the call that the response is over. The first
line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Iterator
from types import MappingProxyType

from bench.calibration import calibrate
from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.objects import ObjectStore, PoolIdentity
from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.director import Director
from epp.decision.ledger import Ledger
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.response import ResponseObserver
from epp.framework.types import Endpoint, EndpointMetrics, Usage
from epp.plugin_calls.defects import PluginDefects
from epp.pool.build import PipelineBuilder, followers
from epp.process.plugin_types import build_registry
from epp.process.runtime import TaskRuntime
from epp.seam import BodyState, End, Metadata, Outcome, Reply, Route
from epp.telemetry.decisions import DecisionOptions, Decisions
from epp.telemetry.metrics import Metrics
from epp.telemetry.trace_context import Sampler
from epp.telemetry.tracing import Tracing

CONFIG = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - pluginRef: max-score-picker
"""
_WARM_UP = 2_000
_HEADERS = {
    ":method": "POST",
    ":path": "/v1/chat/completions",
    ":authority": "inference.example",
    "content-type": "application/json",
    "x-request-id": "0a1b2c3d-0000-4000-8000-000000000000",
    "user-agent": "openai/python",
}


class _Headers:
    def get(self, name: str) -> str | None:
        return _HEADERS.get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(_HEADERS.items())


class BenchRequest:
    """A complete request, as a transport hands it over."""

    metadata: Metadata = MappingProxyType({})
    body_state = BodyState.COMPLETE

    def __init__(self, body: bytes, read: tuple[object, ...] = ()) -> None:
        self.headers = _Headers()
        self.read = read
        self.body = memoryview(body)
        self.at_s = time.monotonic()


class BenchHead:
    """Response headers."""

    status = 200
    metadata: Metadata = MappingProxyType({})
    at_s = 0.0

    def __init__(self) -> None:
        self.headers = _Headers()


class BenchStream:
    """Remembers its answer."""

    state: object = None

    def __init__(self) -> None:
        self.answered: Route | Reply | None = None

    def answer(self, answer: Route | Reply) -> None:
        self.answered = answer


def _tracing(traced: str) -> Tracing | None:
    """Traces no request, or every one; ``off`` is the default of a process."""
    if traced == "off":
        return None
    from opentelemetry.sdk.trace import TracerProvider

    from epp.telemetry.otel import NextId, OtelTracing

    ids = NextId()
    return OtelTracing(TracerProvider(id_generator=ids), Sampler("always_on" if traced == "all" else "always_off", 0.0), ids)


def make_director(
    endpoints: int, config: str = CONFIG, explain_share: float = DecisionOptions().share, traced: str = "off"
) -> tuple[Director, EndpointStore]:
    """A director of this configuration, whose plugins know the endpoints.

    Args:
        endpoints: how many.
        config: the document.
        explain_share: of the decisions, kept.
        traced: which requests are: ``off``, ``none``, ``all``.
    """
    metrics, store, runtime = Metrics(), EndpointStore(), TaskRuntime()
    pool = [Endpoint.of(f"pod-{i}", f"10.0.{i // 250}.{1 + i % 250}", 8000) for i in range(endpoints)]
    store.replace_all(pool)
    rng = random.Random(7)
    for endpoint in pool:
        scrape(store, endpoint, rng)
    pipeline = make_pipeline(config, store, metrics, runtime)
    ledger = Ledger()
    director = Director(
        PipelineInUse(pipeline),
        CandidateFinder(store),
        ObjectStore(PoolIdentity("pool")),
        metrics,
        ResponseObserver(store, ledger, metrics, lambda _place, error: print(error)),
        Decisions(DecisionOptions(share=explain_share)),
        ledger=ledger,
        choose=rng.choice,
        spawn=runtime.spawn,
        tracing=_tracing(traced),
    )
    return director, store


def make_pipeline(config: str, store: EndpointStore, metrics: Metrics, runtime: TaskRuntime) -> Pipeline:
    """The pipeline of a configuration whose plugins are told of the endpoints of ``store``."""
    registry, _ = build_registry()
    instances = instantiate(load_config(ConfigSource.from_text(config), registry))
    store.subscribe(PluginFollowers(followers(instances), PluginDefects(metrics)))
    return PipelineBuilder(instances, metrics, PluginDefects(metrics), runtime.spawn).build()


def scrape(store: EndpointStore, endpoint: Endpoint, rng: random.Random) -> None:
    """Other metrics of an endpoint are read."""
    metrics = EndpointMetrics(
        waiting_queue=rng.randrange(20),
        running_requests=rng.randrange(64),
        kv_cache_usage=rng.random(),
    )
    store.set_metrics(endpoint.id, metrics, time.monotonic())


def _once(director: Director, body: bytes, outcome: Outcome) -> float:
    request, stream = BenchRequest(body), BenchStream()
    begun = time.perf_counter()
    director.request(stream, request)
    director.finished(stream, outcome)
    elapsed = time.perf_counter() - begun
    assert isinstance(stream.answered, Route)
    return elapsed


def make_body() -> bytes:
    """A chat completion."""
    messages = [
        {"role": "system", "content": "You are helpful. " * 12},
        {"role": "user", "content": "Why is the sky blue? " * 16},
    ]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 100}).encode()


def make_outcome() -> Outcome:
    """Its good end."""
    usage = Usage(100, 20, 120, 64, 0, found=True)
    end_s = time.monotonic() + 0.2
    return Outcome(End.NATURAL, True, "", BenchHead(), False, 1, 900, (usage,), end_s, end_s, end_s, 1e-4, (), 0.0)


def main() -> None:
    """Print the cost of a request: median and 99th percentile."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--endpoints", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=20_000, help="requests that are measured")
    arguments.add_argument(
        "--explain-share", type=float, default=DecisionOptions().share, help="1 = the cost of a kept decision"
    )
    arguments.add_argument(
        "--traced", choices=("off", "none", "all"), default="off", help="none = what tracing costs the others"
    )
    options = arguments.parse_args()
    asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> None:
    endpoints: int = options.endpoints
    director, store = make_director(endpoints, explain_share=options.explain_share, traced=options.traced)
    body, outcome = make_body(), make_outcome()
    rng = random.Random(11)
    pool = list(store)
    for _ in range(_WARM_UP):
        _once(director, body, outcome)
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    times = []
    for round_ in range(options.rounds):
        if round_ % 3 == 0:  # as many scrapes as a busy pool brings between requests
            scrape(store, rng.choice(pool), rng)
        times.append(_once(director, body, outcome))
    times.sort()
    median, p99 = statistics.median(times) * 1e6, times[int(len(times) * 0.99)] * 1e6
    print(f"{endpoints} endpoints, {len(body)} bytes: median {median:.1f} us, p99 {p99:.1f} us per request")


if __name__ == "__main__":
    main()
