"""Prediction of a request's latency on every endpoint, and learning from how long it really took.

The hooks of both plugins that predict, predicted-latency-producer and predicted-latency-scorer. What is learned from, and how
good it is, is told by ``plugins.producers.predicted_latency``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction, MediaMatch, PrefixMatch
from epp.framework.prompt import BYTES_PER_TOKEN, prompt_tokens
from epp.framework.results import SchedulingResult
from epp.framework.types import (
    Cause,
    Completion,
    Endpoint,
    EndpointChange,
    EndpointId,
    InferenceRequest,
    ResponseInfo,
    StreamingChunk,
)
from plugins.latency.features import Columns, Inputs, Load, columns, scaled_output_cap
from plugins.latency.flights import Flight, Flights
from plugins.latency.predictor import Predictor
from plugins.latency.regression import Target, load_library
from plugins.latency.reporting import LatencyReport, Measured
from plugins.shared.slo_headers import Objectives, read_objectives


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """What the parameters of a plugin say about predicting."""

    streaming: bool
    """Time per token counts too."""
    slo_buffer_factor: float
    """Factor on the objective of the time per token."""
    context_ttl_s: float
    sampling_mean: float
    """Mean number of tokens between two measurements of a running stream."""
    most_samples: float
    """Such measurements for each response; infinite = any number."""
    role_label: str
    """"" = all endpoints are alike."""
    prefix: DataKey[dict[EndpointId, PrefixMatch]]
    media: DataKey[dict[EndpointId, MediaMatch]] | None = None
    in_produce: bool = True
    """Predict before scheduling; otherwise only learn."""


class Known(NamedTuple):
    """What was found out about a request before it was scheduled."""

    inputs: Inputs
    objectives: Objectives
    prediction_s: tuple[float, float]
    """How long predicting took: first token, further ones."""


class LatencyForecaster:
    """Predicts before scheduling, learns afterwards.

    Args:
        context: of the plugin.
        options: from its parameters.
        predictor: for simulations and tests.
    """

    def __init__(self, context: PluginContext, options: ForecastOptions, predictor: Predictor | None = None) -> None:
        self._options = options
        self._clock = context.clock
        self._rng = context.rng
        self._runtime = context.runtime
        self._predictor = predictor or Predictor(context.runtime, context.clock)
        self._flights = Flights(context.clock, options.context_ttl_s)
        self._report = LatencyReport(context.metrics, context.name, context.type)
        self._key = LATENCY_PREDICTION.by(context.name)
        self._known: DataKey[Known] = DataKey("LatencyInputs", Known, context.name)

    async def start(self) -> None:
        """Import the library in a thread, before the first request."""
        if self._runtime is not None:
            await self._runtime.offload(load_library)

    async def stop(self) -> None:
        """Nothing to stop: learning is a task of the runtime."""

    # Before the decision

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Predict the request's latency on every candidate; nothing is written while too little was learned."""
        self._flights.expire()
        if not self._options.in_produce:
            return
        known = Known(self._inputs(request), read_objectives(request.headers), (0.0, 0.0))
        found, took = self._predict(request, candidates, known)
        request.data.set(self._known, known._replace(prediction_s=took))
        if found:
            request.data.set(self._key, found)

    def _inputs(self, request: InferenceRequest) -> Inputs:
        data, options = request.data, self._options
        tokens = prompt_tokens(request) or request.size_bytes // BYTES_PER_TOKEN
        return Inputs(tokens, data.get(options.prefix), data.get(options.media) if options.media is not None else None)

    def _predict(
        self, request: InferenceRequest, candidates: Candidates, known: Known
    ) -> tuple[dict[EndpointId, LatencyPrediction], tuple[float, float]]:
        begun = time.perf_counter()
        ids, loads = candidates.ids, self._flights.loads
        features = columns(candidates, known.inputs, loads)
        roles = self._roles(candidates)
        cap = _output_cap(request)
        target = Target.FIRST_TOKEN if request.body.streams else Target.WHOLE_ANSWER
        ttft = self._predictor.predict_ms(target, roles, ids, features, cap)
        between = time.perf_counter()
        if self._options.streaming:
            tpot = self._predictor.predict_ms(Target.PER_TOKEN, roles, ids, features, 0.0)
        else:
            tpot = [0.0] * len(ids)
        waited_ms = (self._clock() - request.received_s) * 1e3
        found = {
            endpoint_id: self._judge(first + waited_ms, token, known.objectives, loads.get(endpoint_id))
            for endpoint_id, first, token in zip(ids, ttft, tpot, strict=True)
            if first is not None and token is not None
        }
        return found, (between - begun, time.perf_counter() - between)

    def _judge(self, ttft_ms: float, tpot_ms: float, objectives: Objectives, load: Load | None) -> LatencyPrediction:
        tpot_headroom_ms = 0.0
        if self._options.streaming:
            limit_ms = objectives.tpot_ms
            if load is not None and load.tpot_objectives_ms:
                limit_ms = min(limit_ms, load.tpot_objectives_ms[0])
            tpot_headroom_ms = limit_ms * self._options.slo_buffer_factor - tpot_ms
        return LatencyPrediction(
            ttft_ms,
            tpot_ms,
            objectives.ttft_ms - ttft_ms,
            tpot_headroom_ms,
            ttft_ms < objectives.ttft_ms,
            tpot_headroom_ms > 0 or not self._options.streaming,
            load.requests if load is not None else 0,
        )

    def _roles(self, candidates: Candidates) -> list[str]:
        if not self._options.role_label:
            return [""] * len(candidates)
        return [self._role(endpoint) for endpoint in candidates.endpoints]

    def _role(self, endpoint: Endpoint) -> str:
        label = self._options.role_label
        return self._predictor.role(endpoint.labels.get(label, "")) if label else ""

    # After the decision

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Count the request where it goes, and keep what it is learned from."""
        self._flights.expire()
        known = request.data.get(self._known) or Known(self._inputs(request), read_objectives(request.headers), (0.0, 0.0))
        target = result.target
        predictions = request.data.get(self._key)
        features = self._features_of(target, result, known.inputs)
        flight = Flight(
            request=request,
            endpoint_id=target.id,
            role=self._role(target),
            objectives=known.objectives,
            deadline_s=self._flights.deadline_s(),
            sent_s=self._clock(),
            row=features.row(0, 0.0) if features is not None else None,
            output_cap=scaled_output_cap(request.body.output_cap),
            prediction=predictions.get(target.id) if predictions else None,
            prediction_s=known.prediction_s,
        )
        tokens = known.inputs.prompt_tokens
        prefill = next((endpoint.id for endpoint in result.targets_of(result.prefill)), target.id)
        targets = [(target.id, tokens, 0)] if prefill != target.id else []
        self._flights.begin(flight, [*targets, (prefill, tokens, int(known.inputs.uncached_tokens(prefill)))])

    def _features_of(self, target: Endpoint, result: SchedulingResult, inputs: Inputs) -> Columns | None:
        run = result.profiles.get(result.primary)
        if run is None or target.id not in run.candidates.ids:
            return None
        chosen = run.candidates.select([run.candidates.ids.index(target.id)])
        return columns(chosen, inputs, self._flights.loads)

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Remember whether the request succeeded."""
        flight = self._flights.get(request)
        if flight is not None:
            flight.status = response.status

    def response_streaming(self, request: InferenceRequest, result: SchedulingResult, chunk: StreamingChunk) -> None:
        """Learn from the first chunk of a stream, and from a sample of the further ones."""
        flight = self._flights.get(request)
        if flight is None or (flight.status and not _is_success(flight.status)):
            return
        events = chunk.usage.events
        if flight.first_s is None:
            flight.first_s, flight.first_events = chunk.at_s, events
            flight.next_sample = events + self._gap()
            self._flights.first_token(flight)
            self._learn(flight, Target.FIRST_TOKEN, chunk.at_s - flight.sent_s)
        elif events >= flight.next_sample and events > flight.first_events and self._samples(flight):
            flight.sampled += 1
            flight.next_sample = events + self._gap()
            self._learn(flight, Target.PER_TOKEN, (chunk.at_s - flight.first_s) / (events - flight.first_events))

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Stop counting the request; learn from it if it was answered and seen to its end."""
        flight = self._flights.get(request)
        if flight is None:
            return
        is_good = completion.cause is Cause.NATURAL and completion.length_known and _is_success(completion.status)
        if is_good and completion.ttft_s is not None:
            tpot_s = _tpot_s(completion)
            if completion.served.id == flight.endpoint_id:
                self._learn_from(flight, completion.streaming, completion.ttft_s, tpot_s)
            self._tell(flight, completion.ttft_s, tpot_s)
        self._flights.end(request)

    def _learn_from(self, flight: Flight, streaming: bool, ttft_s: float, tpot_s: float | None) -> None:
        if flight.first_s is None:
            first = Target.FIRST_TOKEN if streaming else Target.WHOLE_ANSWER
            self._learn(flight, first, ttft_s - (flight.sent_s - flight.request.received_s))
        if tpot_s is not None:
            self._learn(flight, Target.PER_TOKEN, tpot_s)

    def _learn(self, flight: Flight, target: Target, seconds: float) -> None:
        if flight.row is None or not self._flights.is_current(flight):
            return
        if target is Target.PER_TOKEN and not self._options.streaming:
            return
        row = (*flight.row[:-1], flight.output_cap) if target is Target.WHOLE_ANSWER else flight.row
        self._predictor.observe(flight.endpoint_id, (target, flight.role), row, seconds * 1e3)

    def _gap(self) -> float:
        """Tokens until the next measurement: at random, so that no rhythm of the server is met again and again."""
        return self._rng.expovariate(1.0 / self._options.sampling_mean)

    def _samples(self, flight: Flight) -> bool:
        return self._options.streaming and flight.sampled < self._options.most_samples

    def _tell(self, flight: Flight, ttft_s: float, tpot_s: float | None) -> None:
        prediction, wanted, request = flight.prediction, flight.objectives, flight.request
        predicted_ttft_s = prediction.ttft_ms / 1e3 if prediction is not None else None
        predicted_tpot_s = prediction.tpot_ms / 1e3 if prediction is not None and self._options.streaming else None
        self._report.answered(
            request.model,
            request.target_model,
            Measured(ttft_s, predicted_ttft_s, wanted.ttft_ms / 1e3 or None, flight.prediction_s[0]),
            Measured(tpot_s, predicted_tpot_s, wanted.tpot_ms / 1e3 or None, flight.prediction_s[1]),
        )

    # State

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone."""
        for endpoint in change.removed:
            self._flights.forget(endpoint.id)
            self._predictor.forget(endpoint.id)

    def debug_state(self) -> object:
        """Requests by endpoint, and what was learned."""
        loads = self._flights.loads.values()
        return {
            "requests": len(self._flights),
            "dispatched": {load.endpoint_id: load.requests for load in loads},
            **self._predictor.state(),
        }


def _output_cap(request: InferenceRequest) -> float:
    return 0.0 if request.body.streams else scaled_output_cap(request.body.output_cap)


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _tpot_s(completion: Completion) -> float | None:
    """Time per token after the first: by the server's count, else by the events of the stream."""
    if not completion.streaming or completion.ttft_s is None:
        return None
    tokens = completion.usage.completion_tokens or completion.usage.events
    if tokens <= 1 or completion.duration_s <= completion.ttft_s:
        return None
    return (completion.duration_s - completion.ttft_s) / (tokens - 1)
