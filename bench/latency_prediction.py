"""How good the predictor of latencies is, and what it costs: ``python -m bench.latency_prediction``.

Four simulated servers, a virtual clock, no waiting. Rate and length of prompts change every 20 s, between nearly idle and full.
predicted-latency-scorer places the requests, learns from the answers, and is judged by what it predicted for the endpoint that
each request went to. Beside it stands the trivial predictor, the mean of all latencies that were known when the request came.
The error is the mean absolute percentage error. The same seed gives the same figures, except for the costs.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec, TypeVar, cast

from bench.calibration import calibrate
from epp.framework.candidates import Candidates
from epp.framework.data import RequestData
from epp.framework.handle import PluginContext, Runtime
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import FakeClock, FakeHeaders, RecordedEdits, make_endpoint
from epp.framework.types import Api, Cause, Completion, EndpointMetrics, InferenceRequest, ParsedBody, StreamingChunk, Usage
from epp.simulate.engine import Engine
from epp.simulate.options import EngineOptions
from epp.simulate.sequence import Sequence as Generation
from plugins.latency.features import FEATURES
from plugins.latency.predictor import Predictor
from plugins.latency.regression import Regressions, Sample, Target, load_library
from plugins.scorers.predicted_latency import (
    PredictedLatencyScorer,
    PredictedLatencyScorerParams,
    choice_options,
    forecast_options,
)

WARM_UP = 500
"""Requests that are only learned from."""
SCRAPE_S = 0.05
PHASE_S = 20.0
PHASES = ((8, 300), (40, 300), (16, 900), (70, 200), (5, 2000), (30, 500))
"""(requests per second, median tokens of a prompt), over and over."""
SERVERS = 4
"""That the rates of ``PHASES`` are meant for."""
EQUAL = (1.0, 1.0, 1.0, 1.0)
UNEQUAL = (1.0, 1.0, 1.5, 2.0)
"""How many times as long each server takes."""
NAME = "predicted-latency-scorer"

P = ParamSpec("P")
T = TypeVar("T")


class _Done(Awaitable[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        yield from ()
        return self._value


class InlineRuntime:
    """Runs everything at once, in the caller's thread, so that a simulation repeats itself to the last digit."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:  # noqa: ARG002
        """Run ``work``, which must not wait for anything, to its end."""
        try:
            work.send(None)
        except StopIteration:
            return cast("asyncio.Task[None]", None)
        msg = "the work waits for something"
        raise RuntimeError(msg)

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Call ``function`` now."""
        return _Done(function(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class Load:
    """What the servers are and what they are sent."""

    requests: int = 3000
    seed: int = 1
    speeds: tuple[float, ...] = EQUAL
    """How many times as long each server takes; the rates are adapted to what all can do together."""


class Errors(NamedTuple):
    """Mean absolute percentage errors."""

    predicted: float
    trivial: float


@dataclass(slots=True)
class Judge:
    """Compares predictions of one latency with what came."""

    seen: int = 0
    total_ms: float = 0.0
    pairs: list[tuple[float, float, float]] = field(default_factory=list)
    """(predicted, trivial, actual), in ms."""

    @property
    def mean_ms(self) -> float:
        """The trivial prediction."""
        return self.total_ms / self.seen if self.seen else math.nan

    def came(self, predicted_ms: float | None, trivial_ms: float, actual_ms: float, *, counts: bool) -> None:
        """A latency was measured."""
        self.seen += 1
        self.total_ms += actual_ms
        if counts:
            assert predicted_ms is not None
            self.pairs.append((predicted_ms, trivial_ms, actual_ms))

    def errors(self) -> Errors:
        """Of all pairs."""
        count = len(self.pairs)
        predicted = sum(abs(p - actual) / actual for p, _, actual in self.pairs) / count
        trivial = sum(abs(t - actual) / actual for _, t, actual in self.pairs) / count
        return Errors(100 * predicted, 100 * trivial)


@dataclass(slots=True)
class Flight:
    """A request in a server."""

    request: InferenceRequest
    result: SchedulingResult
    generation: Generation
    counts: bool
    """It is judged."""
    prediction: LatencyPrediction | None
    trivial_ms: tuple[float, float]
    has_begun: bool = False


class Simulation:
    """The servers, their load and the plugin."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rng = random.Random(load.seed)
        self._clock = FakeClock(0.0)
        self._engines = [
            Engine(EngineOptions(jitter_ratio=0.1, seed=seed, tpot_ms=10.0 * speed, prefill_us_per_token=60.0 * speed))
            for seed, speed in enumerate(load.speeds)
        ]
        self._endpoints = [make_endpoint(f"server-{number}", number) for number in range(len(self._engines))]
        self._metrics: list[EndpointMetrics] = [EndpointMetrics() for _ in self._engines]
        self._capacity = sum(1.0 / speed for speed in load.speeds) / SERVERS
        self._scraped_s = -math.inf
        self.plugin = make_scorer(self._clock, load.seed)
        self._flights: list[Flight] = []
        self.ttft = Judge()
        self.tpot = Judge()

    def run(self) -> None:
        """Send all requests and wait for their ends."""
        sent, next_s = 0, 0.0
        while sent < self._load.requests or self._flights:
            due = [engine.due_s for engine in self._engines if engine.due_s is not None]
            if sent < self._load.requests:
                due.append(next_s)
            self._clock.now_s = now = min(due)
            for engine in self._engines:
                engine.advance(now)
            self._observe()
            if sent < self._load.requests and now >= next_s:
                rate, prompt_tokens = PHASES[int(now / PHASE_S) % len(PHASES)]
                self._send(prompt_tokens, counts=sent >= WARM_UP)
                sent += 1
                next_s = now + self._rng.expovariate(rate * self._capacity)

    def _send(self, median_tokens: int, *, counts: bool) -> None:
        now = self._clock.now_s
        if now - self._scraped_s >= SCRAPE_S:
            self._scraped_s = now
            self._metrics = [EndpointMetrics(e.waiting, e.running, e.kv_usage_ratio) for e in self._engines]
        prompt_tokens = self._length(median_tokens, 0.8, 16, 12_000)
        request = self.make_request(prompt_tokens)
        candidates = Candidates(self._endpoints, self._metrics)
        self.plugin.produce(request, candidates)
        position = self.plugin.score(request, candidates).index(1.0)
        target = candidates[position]
        run = ProfileRunResult((target,), candidates, [])
        result = SchedulingResult("default", {"default": run}, (target,))
        self.plugin.pre_request(request, result, RecordedEdits())
        prompt = request.body.document["prompt"]
        assert isinstance(prompt, str)
        generation = Generation(prompt.encode(), b"abcd" * self._length(120, 0.6, 8, 600), watched=True)
        self._engines[position].submit(generation, now)
        found = request.data.get(LATENCY_PREDICTION.by(NAME)) or {}
        trivial = (self.ttft.mean_ms, self.tpot.mean_ms)
        self._flights.append(Flight(request, result, generation, counts, found.get(target.id), trivial))

    def _length(self, median: float, spread: float, least: int, most: int) -> int:
        return min(max(int(self._rng.lognormvariate(math.log(median), spread)), least), most)

    def make_request(self, prompt_tokens: int) -> InferenceRequest:
        """A streamed completion that came just now."""
        text = (f"{self._rng.randrange(10**9):09d}." * (prompt_tokens * 4 // 10 + 1))[: prompt_tokens * 4]
        body = ParsedBody(Api.COMPLETIONS, {"prompt": text}, model="m", streams=True)
        now = self._clock.now_s
        return InferenceRequest("", "", FakeHeaders(), body, "m", "m", 0, "", len(text), now, RequestData())

    def _observe(self) -> None:
        """Tell the plugin of first tokens and ends."""
        for flight in self._flights:
            if flight.generation.first_token_s and not flight.has_begun:
                flight.has_begun = True
                chunk = StreamingChunk(b"", False, flight.generation.first_token_s, Usage(events=1))
                self.plugin.response_streaming(flight.request, flight.result, chunk)
            if flight.generation.ended:
                self._end(flight)
        self._flights = [flight for flight in self._flights if not flight.generation.ended]

    def _end(self, flight: Flight) -> None:
        generation, prediction = flight.generation, flight.prediction
        ttft_s = generation.first_token_s - generation.arrival_s
        tokens = generation.answer_tokens
        tpot_ms = (generation.finished_s - generation.first_token_s) / (tokens - 1) * 1e3
        counts = flight.counts
        self.ttft.came(prediction.ttft_ms if prediction else None, flight.trivial_ms[0], ttft_s * 1e3, counts=counts)
        self.tpot.came(prediction.tpot_ms if prediction else None, flight.trivial_ms[1], tpot_ms, counts=counts)
        completion = Completion(
            cause=Cause.NATURAL,
            status=200,
            served=flight.result.target,
            usage=Usage(completion_tokens=tokens, found=True),
            length_known=True,
            ttft_s=ttft_s,
            duration_s=generation.finished_s - generation.arrival_s,
            response_bytes=0,
            streaming=True,
        )
        self.plugin.response_complete(flight.request, flight.result, completion)


def make_scorer(clock: FakeClock, seed: int) -> PredictedLatencyScorer:
    """The plugin with its defaults, learning at once."""
    runtime: Runtime = InlineRuntime()
    context = PluginContext(NAME, NAME, clock, random.Random(seed), runtime=runtime)
    params = PredictedLatencyScorerParams()
    predictor = Predictor(runtime, clock, Regressions, pause_s=0)
    return PredictedLatencyScorer(context, forecast_options(context, params), choice_options(params), predictor)


def errors(load: Load) -> tuple[Errors, Errors]:
    """Errors of the time to first token and of the time per token, after ``WARM_UP`` requests."""
    simulation = Simulation(load)
    simulation.run()
    return simulation.ttft.errors(), simulation.tpot.errors()


class Costs(NamedTuple):
    """Median microseconds of one call."""

    produce_us: float
    """On the event loop, before scheduling: predictions for all candidates."""
    score_us: float
    """On the event loop, in a profile."""
    learn_us: float
    """In a thread: one observation."""


def costs(endpoints: int, calls: int = 200) -> Costs:
    """What one request costs with this many endpoints, after ``WARM_UP`` requests were learned from."""
    simulation = Simulation(Load(requests=WARM_UP))
    simulation.run()
    plugin, rng = simulation.plugin, random.Random(1)
    pool = [make_endpoint(f"e{number}", number % 250) for number in range(endpoints)]
    candidates = Candidates(pool, [EndpointMetrics(rng.randrange(5), rng.randrange(60), rng.random()) for _ in pool])
    requests = [simulation.make_request(300) for _ in range(calls)]
    regression = Regressions()
    row = (1.0, *(rng.random() for _ in FEATURES[1:]))
    sample = Sample((Target.FIRST_TOKEN, ""), row, 80.0, 100.0)
    return Costs(
        _median_us(lambda request: plugin.produce(request, Candidates(pool, candidates.metrics)), requests),
        _median_us(lambda request: plugin.score(request, candidates), requests),
        _median_us(lambda _: regression.learn([sample]), requests),
    )


def _median_us(call: Callable[[InferenceRequest], object], requests: Sequence[InferenceRequest]) -> float:
    took = []
    for request in requests:
        begun = time.perf_counter()
        call(request)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print errors and costs."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.latency_prediction", description="Errors and costs of the predictor."
    )
    parser.add_argument("--requests", type=int, default=3000, help="how many are sent (default 3000)")
    parser.add_argument("--seed", type=int, default=1, help="of the load (default 1)")
    options = parser.parse_args(arguments)
    load_library()
    print(f"error after {WARM_UP} requests                      predictor   mean so far")
    for name, speeds in (("equal servers", EQUAL), ("one slow, one slower", UNEQUAL)):
        ttft, tpot = errors(Load(options.requests, options.seed, speeds))
        print(f"{name:22}time to first token {ttft.predicted:9.1f} % {ttft.trivial:11.1f} %")
        print(f"{'':22}time per token      {tpot.predicted:9.1f} % {tpot.trivial:11.1f} %")
    few, many = costs(10), costs(100)
    print(f" 10 endpoints         predict {few.produce_us:6.0f} us, choose {few.score_us:6.0f} us a request")
    print(f"100 endpoints         predict {many.produce_us:6.0f} us, choose {many.score_us:6.0f} us a request")
    print(f"in a thread           learn {many.learn_us:8.0f} us an observation")
    print(f"calibration           {calibrate():14.1f} ns per step of plain Python")


if __name__ == "__main__":
    main()
