"""latency-scorer: prefer endpoints by the headroom of their predicted latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import LATENCY_PREDICTION, PREFIX_CACHE_MATCH, LatencyPrediction, PrefixMatch
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "latency-scorer"


class LatencyScorerParams(Params):
    """Parameters of latency-scorer."""

    ttft_weight: float = Field(default=0.8, description="Weight of the first token's headroom.")
    tpot_weight: float = Field(default=0.2, description="Weight of the further tokens' headroom.")
    headroom_selection_strategy: Literal["", "least", "most"] = Field(
        default="least", description="Whether little or much headroom is preferred; empty = `least`."
    )
    composite_kv_weight: float = Field(default=1, alias="compositeKVWeight", description="Weight of free KV cache.")
    composite_queue_weight: float = Field(default=1, description="Weight of a short queue.")
    composite_prefix_weight: float = Field(default=1, description="Weight of a cached prefix.")
    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


@dataclass(frozen=True, slots=True)
class LatencyKeys:
    """Where the scorer reads."""

    prediction: DataKey[dict[EndpointId, LatencyPrediction]]
    match: DataKey[dict[EndpointId, PrefixMatch]]


class LatencyScorer:
    """Score by how far the predicted latencies are from the objectives.

    Parameters: ttftWeight, tpotWeight, headroomSelectionStrategy, compositeKVWeight, compositeQueueWeight,
        compositePrefixWeight, and the names of the producers.
    Reads: LatencyPredictionInfo; without any prediction waiting_queue, kv_cache_usage and PrefixCacheMatchInfo.
    Formula: of the endpoints with a prediction one group is scored: those with both headrooms >= 0; else those without a
        request of this picker; else the first that exists of: only TPOT missed, only TTFT missed, both missed. Inside it the
        absolute headrooms are normalised to [0, 1] and blended to ``c`` by the weights; ``least`` scores
        ``(int((1 - c) * 100) + 1) / 100``, ``most``, for endpoints that meet both, ``(int(c * 100) + 1) / 100``, at most 1.
        A headroom that is the same everywhere counts as 0.5, and its weight goes to the other. Without predictions the
        weighted mean of free KV cache, ``(max - q) / max`` of the queue and cached prefix, in steps of 0.01.
    Missing data: an endpoint without a prediction scores 0.0 while another has one.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/latency/plugin.go
    """

    def __init__(self, params: LatencyScorerParams, keys: LatencyKeys) -> None:
        self._keys = keys
        self._weights = _shares(params.ttft_weight, params.tpot_weight)
        self._prefers_much = params.headroom_selection_strategy == "most"
        self._composite = _shares(params.composite_kv_weight, params.composite_queue_weight, params.composite_prefix_weight)

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        by_id = request.data.get(self._keys.prediction) or {}
        predictions = [by_id.get(endpoint_id) for endpoint_id in candidates.ids]
        known = [(position, prediction) for position, prediction in enumerate(predictions) if prediction is not None]
        if not known:
            return self._by_load(request, candidates)
        group, is_positive = _group(known)
        scores = [0.0] * len(candidates)
        for (position, _), blend in zip(group, self._blended(group), strict=True):
            share = blend if is_positive and self._prefers_much else 1 - blend
            # A share that rounding left just below a whole percent belongs to that percent.
            scores[position] = min((int(share * 100 + _ROUNDING) + 1) / 100, 1.0)
        return scores

    def _blended(self, group: list[_Known]) -> list[float]:
        """The headrooms of each endpoint as one number in [0, 1]."""
        ttft, ttft_varies = _normalised([abs(prediction.ttft_headroom_ms) for _, prediction in group])
        tpot, tpot_varies = _normalised([abs(prediction.tpot_headroom_ms) for _, prediction in group])
        alpha, beta = self._weights
        if ttft_varies != tpot_varies:
            alpha, beta = (1.0, 0.0) if ttft_varies else (0.0, 1.0)
        return [alpha * t + beta * p for t, p in zip(ttft, tpot, strict=True)]

    def _by_load(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        kv_weight, queue_weight, prefix_weight = self._composite
        matches = request.data.get(self._keys.match) or {}
        ratios = [match.ratio if match is not None else 0.0 for match in map(matches.get, candidates.ids)]
        queue = [waiting or 0 for waiting in candidates.waiting_queue]
        longest = max(queue, default=0)
        short = [(longest - waiting) / longest for waiting in queue] if longest else [1.0] * len(queue)
        free = [_free(usage) for usage in candidates.kv_cache_usage]
        return [
            round(100 * (kv_weight * kv + queue_weight * queued + prefix_weight * ratio)) / 100
            for kv, queued, ratio in zip(free, short, ratios, strict=True)
        ]


_Known = tuple[int, LatencyPrediction]
_ROUNDING = 1e-9


def _free(usage: float | None) -> float:
    """Free fraction of a KV cache; one that was never read, or reads as no number, is free."""
    return max(1 - usage, 0.0) if usage is not None and usage == usage else 1.0


def _shares(*weights: float) -> list[float]:
    """The weights in proportion, with the sum 1; negative ones are 0, and if all are, the first is 1."""
    positive = [max(weight, 0.0) for weight in weights]
    total = sum(positive)
    return [weight / total for weight in positive] if total else [1.0, *[0.0] * (len(weights) - 1)]


def _group(known: list[_Known]) -> tuple[list[_Known], bool]:
    """The endpoints that are scored, and whether they meet both objectives."""
    by_miss: dict[tuple[bool, bool], list[_Known]] = {}
    for entry in known:
        prediction = entry[1]
        by_miss.setdefault((prediction.ttft_headroom_ms < 0, prediction.tpot_headroom_ms < 0), []).append(entry)
    if positive := by_miss.get((False, False)):
        return positive, True
    if idle := [entry for entry in known if entry[1].dispatched_requests == 0]:
        return idle, False
    return next(by_miss[misses] for misses in ((False, True), (True, False), (True, True)) if misses in by_miss), False


def _normalised(values: list[float]) -> tuple[list[float], bool]:
    """The values between their extremes, and whether those differ; 0.5 for all if not."""
    low, high = min(values), max(values)
    if high - low <= _ROUNDING:
        return [0.5] * len(values), False
    return [(value - low) / (high - low) for value in values], True


def _create(context: PluginContext, params: LatencyScorerParams) -> Scorer:
    keys = LatencyKeys(
        prediction=context.key(LATENCY_PREDICTION, params.latency_prediction_info_producer_name),
        match=context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
    )
    return LatencyScorer(params, keys)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints by the headroom of their predicted latency.",
    params=LatencyScorerParams,
    factory=_create,
    consumes=(Consumes(LATENCY_PREDICTION), Consumes(PREFIX_CACHE_MATCH)),
)
