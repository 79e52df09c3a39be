"""prefix-cache-affinity-filter: keep endpoints that hold the prompt's prefix, unless they are much slower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.keys import (
    IN_FLIGHT_LOAD,
    LATENCY_PREDICTION,
    PREFIX_CACHE_MATCH,
    InFlightLoad,
    LatencyPrediction,
    PrefixMatch,
)
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "prefix-cache-affinity-filter"


class PrefixCacheAffinityFilterParams(Params):
    """Parameters of prefix-cache-affinity-filter."""

    affinity_threshold: float = Field(
        default=0.80,
        le=1,
        description="Cached share of the prompt from which an endpoint is kept; <= 0 = keep all.",
    )
    exploration_probability: float = Field(default=0.0, ge=0, le=1, description="Share of requests that are not filtered.")
    max_ttft_penalty_ms: float = Field(
        default=18000,
        ge=0,
        alias="maxTTFTPenaltyMs",
        description="Keep all endpoints when the holders are slower by more than this, in ms; 0 = never.",
    )
    ttft_source: Literal["prefillThroughput", "latencyPredictor"] = Field(
        default="prefillThroughput", description="Where the expected time to first token comes from."
    )
    peak_prefill_throughput: float = Field(default=15928, ge=0, description="Tokens per second that an endpoint prefills.")
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the load in flight; default: its usual producer."
    )

    @model_validator(mode="after")
    def _check_throughput(self) -> PrefixCacheAffinityFilterParams:
        uses_throughput = self.max_ttft_penalty_ms > 0 and self.ttft_source == "prefillThroughput"
        if uses_throughput and self.peak_prefill_throughput == 0:
            raise ValueError("peakPrefillThroughput must be > 0 while maxTTFTPenaltyMs > 0 is computed from it")
        return self


def _reads_load(params: PrefixCacheAffinityFilterParams) -> bool:
    return params.max_ttft_penalty_ms > 0 and params.ttft_source == "prefillThroughput"


def _reads_predictions(params: PrefixCacheAffinityFilterParams) -> bool:
    return params.max_ttft_penalty_ms > 0 and params.ttft_source == "latencyPredictor"


@dataclass(frozen=True, slots=True)
class AffinityKeys:
    """Where the filter reads."""

    match: DataKey[dict[EndpointId, PrefixMatch]]
    load: DataKey[dict[EndpointId, InFlightLoad]]
    prediction: DataKey[dict[EndpointId, LatencyPrediction]]


class PrefixCacheAffinityFilter:
    """Keep the endpoints that hold the prompt's prefix, unless they are too busy.

    Parameters: affinityThreshold, explorationProbability, maxTTFTPenaltyMs, ttftSource, peakPrefillThroughput, and the names
        of the producers.
    Reads: PrefixCacheMatchInfo; InFlightLoad or LatencyPredictionInfo, as ttftSource says.
    Formula: holders have ``match / total >= affinityThreshold``. All are kept when there is no holder, by chance with
        ``explorationProbability``, or when the fastest holder's expected time to first token exceeds that of the fastest
        other by more than ``maxTTFTPenaltyMs``. Expected: predicted, or tokens in flight / peakPrefillThroughput.
    Missing data: without a match no holder; no entry means 0 tokens in flight, no prediction an endless wait.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/prefixcacheaffinity
    """

    def __init__(self, params: PrefixCacheAffinityFilterParams, keys: AffinityKeys, draw: Callable[[], float]) -> None:
        self._threshold = params.affinity_threshold
        self._exploration = params.exploration_probability
        self._max_penalty_ms = params.max_ttft_penalty_ms
        self._predicts = params.ttft_source == "latencyPredictor"
        self._ms_per_token = 1000 / params.peak_prefill_throughput if params.peak_prefill_throughput else 0.0
        self._keys = keys
        self._draw = draw

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The holders, or all."""
        matches = request.data.get(self._keys.match)
        if not matches or len(candidates) <= 1 or self._threshold <= 0:
            return candidates
        if self._exploration > 0 and self._draw() < self._exploration:
            return candidates
        threshold = self._threshold
        holds = [match is not None and match.ratio >= threshold for match in map(matches.get, candidates.ids)]
        if not any(holds) or all(holds):
            return candidates
        if self._max_penalty_ms > 0 and self._penalty_ms(request, candidates, holds) > self._max_penalty_ms:
            return candidates
        return candidates.where(holds)

    def _penalty_ms(self, request: InferenceRequest, candidates: Candidates, holds: list[bool]) -> float:
        """How much longer the first token takes at the fastest holder than at the fastest other; NaN if neither is known."""
        expected = self._predicted_ms(request, candidates) if self._predicts else self._queued_ms(request, candidates)
        fastest_holder = min(ms for ms, is_holder in zip(expected, holds, strict=True) if is_holder)
        fastest_other = min(ms for ms, is_holder in zip(expected, holds, strict=True) if not is_holder)
        return fastest_holder - fastest_other

    def _predicted_ms(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        predictions = request.data.get(self._keys.prediction) or {}
        found = map(predictions.get, candidates.ids)
        return [prediction.ttft_ms if prediction is not None else inf for prediction in found]

    def _queued_ms(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        loads = request.data.get(self._keys.load) or {}
        found = map(loads.get, candidates.ids)
        return [load.tokens * self._ms_per_token if load is not None else 0.0 for load in found]


def _create(context: PluginContext, params: PrefixCacheAffinityFilterParams) -> Filter:
    keys = AffinityKeys(
        match=context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
        load=context.key(IN_FLIGHT_LOAD, params.in_flight_load_producer_name),
        prediction=context.key(LATENCY_PREDICTION, params.latency_prediction_info_producer_name),
    )
    return PrefixCacheAffinityFilter(params, keys, context.rng.random)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that hold the prompt's prefix, unless they are much slower.",
    params=PrefixCacheAffinityFilterParams,
    factory=_create,
    consumes=(
        Consumes(PREFIX_CACHE_MATCH),
        Consumes(IN_FLIGHT_LOAD, when=_reads_load),
        Consumes(LATENCY_PREDICTION, when=_reads_predictions),
    ),
)
