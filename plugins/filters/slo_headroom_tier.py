"""slo-headroom-tier-filter: keep endpoints that are predicted to meet the request's latency objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "slo-headroom-tier-filter"


class SloHeadroomTierFilterParams(Params):
    """Parameters of slo-headroom-tier-filter."""

    epsilon_explore_neg: float = Field(
        default=0.01, ge=0, le=1, description="Share of requests that go to the endpoints predicted to miss."
    )
    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )


class SloHeadroomTierFilter:
    """Keep the endpoints that are predicted to meet both objectives, now and then the others, so that more is learned of them.

    Parameters: epsilonExploreNeg, latencyPredictionInfoProducerName.
    Reads: LatencyPredictionInfo.
    Formula: positive tier: both headrooms >= 0; the rest is the negative tier, kept with probability ``epsilonExploreNeg``
        if both have endpoints; if only one has, it is kept.
    Missing data: an endpoint without a prediction is in the negative tier; without any prediction all are kept.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/sloheadroomtier
    """

    def __init__(self, key: DataKey[dict[EndpointId, LatencyPrediction]], epsilon: float, draw: Callable[[], float]) -> None:
        self._key = key
        self._epsilon = epsilon
        self._draw = draw

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """One of the two tiers, or all."""
        predictions = request.data.get(self._key)
        if not predictions:
            return candidates
        positive = [_is_positive(prediction) for prediction in map(predictions.get, candidates.ids)]
        if all(positive) or not any(positive):
            return candidates
        if self._draw() < self._epsilon:
            return candidates.where([not meets for meets in positive])
        return candidates.where(positive)


def _is_positive(prediction: LatencyPrediction | None) -> bool:
    return prediction is not None and prediction.ttft_headroom_ms >= 0 and prediction.tpot_headroom_ms >= 0


def _create(context: PluginContext, params: SloHeadroomTierFilterParams) -> Filter:
    key = context.key(LATENCY_PREDICTION, params.latency_prediction_info_producer_name)
    return SloHeadroomTierFilter(key, params.epsilon_explore_neg, context.rng.random)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that are predicted to meet the request's latency objectives.",
    params=SloHeadroomTierFilterParams,
    factory=_create,
    consumes=(Consumes(LATENCY_PREDICTION),),
)
