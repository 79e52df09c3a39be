"""Builders for latency prediction: requests at a time, their ends, a runtime without threads, a learner that obeys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, cast

from epp.framework.candidates import Candidates
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import FakeClock, FakeHeaders, RecordedEdits, RecordedMetrics, make_context, make_request
from epp.framework.types import Cause, Completion, Endpoint, EndpointId, InferenceRequest, ResponseInfo, StreamingChunk, Usage
from plugins.latency.features import FEATURES, Row
from plugins.latency.forecaster import LatencyForecaster
from plugins.latency.predictor import Predictor
from plugins.latency.regression import Key, Sample, Target
from plugins.producers.predicted_latency import (
    PredictedLatencyProducer,
    PredictedLatencyProducerParams,
    forecast_options,
)

P = ParamSpec("P")
T = TypeVar("T")

PRODUCER = "predicted-latency-producer"


class _Done(Generic[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        yield from ()
        return self._value


class InlineRuntime:
    """Runs work at once; keeps what it raised."""

    def __init__(self) -> None:
        self.failures: list[ArithmeticError] = []

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        try:
            work.send(None)
        except StopIteration:
            pass
        except ArithmeticError as error:
            self.failures.append(error)
        return cast("asyncio.Task[None]", None)

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _Done(function(*args, **kwargs))


def constant(value_ms: float, **per_feature: float) -> Row:
    """Weights: a constant, and those of features by the beginning of their name (``_`` as blank)."""
    row = [0.0] * len(FEATURES)
    row[0] = value_ms
    for word, weight in per_feature.items():
        (index,) = [i for i, name in enumerate(FEATURES) if name.startswith(word.replace("_", " "))]
        row[index] = weight
    return tuple(row)


class Recorder:
    """Learns nothing: keeps the samples, and has the weights that it was given."""

    def __init__(self, weights: Mapping[Key, Row] | None = None) -> None:
        self.weights = dict(weights or {})
        self.samples: list[Sample] = []

    def learn(self, batch: Sequence[Sample]) -> dict[Key, Row]:
        self.samples.extend(batch)
        return self.weights

    def of(self, target: Target) -> list[float]:
        """Latencies that were learned, in ms."""
        return [round(sample.value_ms, 6) for sample in self.samples if sample.key[0] is target]


@dataclass
class Rig:
    """A producer with a learner in the test's hands."""

    plugin: LatencyForecaster
    clock: FakeClock
    recorder: Recorder
    metrics: RecordedMetrics

    def request(
        self,
        *,
        streams: bool = True,
        ttft: str = "",
        tpot: str = "",
        prompt_tokens: int = 1000,
        output_cap: int | None = None,
        priority: int = 0,
    ) -> InferenceRequest:
        """A request that comes now."""
        request = make_request(document={"prompt": "abcd" * prompt_tokens}, priority=priority)
        request.received_s = self.clock.now_s
        request.body.streams = streams
        request.body.output_cap = output_cap
        named = {"x-slo-ttft-ms": ttft, "x-llm-d-slo-tpot-ms": tpot}
        request.headers = FakeHeaders({name: value for name, value in named.items() if value})
        return request

    def predict(self, request: InferenceRequest, candidates: Candidates) -> dict[EndpointId, LatencyPrediction] | None:
        """What the plugin predicts."""
        self.plugin.produce(request, candidates)
        return request.data.get(LATENCY_PREDICTION.by(PRODUCER))

    def send(self, request: InferenceRequest, candidates: Candidates, position: int = 0) -> SchedulingResult:
        """The request goes to one of the candidates."""
        result = sent_to(candidates, position)
        self.plugin.pre_request(request, result, RecordedEdits())
        return result

    def respond(self, request: InferenceRequest, result: SchedulingResult, status: int = 200) -> None:
        """The response begins."""
        info = ResponseInfo(status, FakeHeaders(), result.target, {}, self.clock.now_s)
        self.plugin.response_received(request, result, info, RecordedEdits())

    def chunk(self, request: InferenceRequest, result: SchedulingResult, events: int = 1) -> None:
        """A piece of the stream comes now."""
        self.plugin.response_streaming(request, result, StreamingChunk(b"x", False, self.clock.now_s, Usage(events=events)))

    def finish(self, request: InferenceRequest, result: SchedulingResult, **changes: Any) -> None:
        """The request ends now, well unless said otherwise."""
        values: dict[str, Any] = {
            "cause": Cause.NATURAL,
            "status": 200,
            "served": result.target,
            "usage": Usage(completion_tokens=11, found=True),
            "length_known": True,
            "ttft_s": 0.1,
            "duration_s": self.clock.now_s - request.received_s,
            "response_bytes": 100,
            "streaming": request.body.streams,
        }
        self.plugin.response_complete(request, result, Completion(**(values | changes)))


def sent_to(candidates: Candidates, position: int = 0, prefill: Endpoint | None = None) -> SchedulingResult:
    """A result whose primary profile picked the candidate at ``position``."""
    target = candidates[position]
    profiles: dict[str, ProfileRunResult | None] = {"default": ProfileRunResult((target,), candidates, [0.0] * len(candidates))}
    if prefill is not None:
        profiles["prefill"] = ProfileRunResult((prefill,), candidates, [0.0] * len(candidates))
    return SchedulingResult("default", profiles, (target,))


def make_rig(weights: Mapping[Key, Row] | None = None, **parameters: Any) -> Rig:
    """A producer; ``parameters`` as in YAML. With weights, it has learned them already."""
    clock, metrics, recorder = FakeClock(), RecordedMetrics(), Recorder(weights)
    context = make_context(PRODUCER, clock=clock, metrics=metrics)
    context.runtime = InlineRuntime()
    params = PredictedLatencyProducerParams.decode(parameters)
    assert isinstance(params, PredictedLatencyProducerParams)
    predictor = Predictor(context.runtime, clock, lambda: recorder, pause_s=0)
    plugin = PredictedLatencyProducer(context, forecast_options(context, params), predictor)
    if weights:
        predictor.observe(EndpointId("default/first"), (Target.FIRST_TOKEN, ""), constant(1.0), 1.0)
        recorder.samples.clear()
    return Rig(plugin, clock, recorder, metrics)
