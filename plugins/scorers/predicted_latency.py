"""predicted-latency-scorer: choose the endpoint that is predicted to meet the request's latency objectives.

It predicts and learns as predicted-latency-producer does, whose page says from what and how well, and makes the choice itself:
one endpoint scores 1.0, the others 0.0. Give it more weight than all other scorers of the profile together, or they can
overrule it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, LatencyPrediction, PrefixMatch
from epp.framework.params import GoDurationS, Ignored, Int, Params
from epp.framework.registry import PluginType, Reads
from epp.framework.types import EndpointId, InferenceRequest
from plugins.latency.choice import ChoiceOptions, Draws, Standing, Strategy, choose
from plugins.latency.forecaster import ForecastOptions, LatencyForecaster
from plugins.latency.predictor import Predictor
from plugins.latency.regression import require_library
from plugins.latency.weights import Blend, CompositeBlend
from plugins.shared.slo_headers import SLO_HEADERS, read_objectives

TYPE = "predicted-latency-scorer"


class PredictedLatencyScorerParams(Params):
    """Parameters of predicted-latency-scorer."""

    sampling_mean: float = Field(default=1000, gt=0, description="Mean number of tokens between two latency samples.")
    max_sampled_tokens: Int = Field(default=0, ge=0, description="Most samples per response.")
    slo_buffer_factor: float = Field(default=1, gt=0, description="Factor on the time-per-token objective.")
    neg_headroom_ttft_weight: float = Field(
        default=0.8, ge=0, alias="negHeadroomTTFTWeight", description="Weight of the first token's deficit."
    )
    neg_headroom_tpot_weight: float = Field(
        default=0.2, ge=0, alias="negHeadroomTPOTWeight", description="Weight of the further tokens' deficit."
    )
    headroom_ttft_weight: float = Field(
        default=0.8, ge=0, alias="headroomTTFTWeight", description="Weight of the first token's headroom."
    )
    headroom_tpot_weight: float = Field(
        default=0.2, ge=0, alias="headroomTPOTWeight", description="Weight of the further tokens' headroom."
    )
    headroom_selection_strategy: Literal["", "least", "most", "composite-least", "composite-most", "composite-only"] = Field(
        default="least", description="Which of the endpoints that meet the objectives is preferred; empty = `least`."
    )
    composite_kv_weight: float = Field(default=1, ge=0, alias="compositeKVWeight", description="Weight of free KV cache.")
    composite_queue_weight: float = Field(default=1, ge=0, description="Weight of a short queue.")
    composite_prefix_weight: float = Field(default=1, ge=0, description="Weight of a cached prefix.")
    epsilon_explore_sticky: float = Field(default=0.01, ge=0, le=1, description="Share of requests that ignore prefixes.")
    epsilon_explore_neg: float = Field(
        default=0.01, ge=0, le=1, description="Share of requests that go to endpoints predicted to miss."
    )
    affinity_gate_tau: float = Field(default=0.80, ge=0, le=1, description="Cached share that a tier's endpoints need.")
    affinity_gate_tau_global: float = Field(
        default=0.99, ge=0, le=1, description="Cached share from which endpoints are kept before all else; 0 = off."
    )
    affinity_max_ttft_penalty_ms: Annotated[float, Ignored("prefix-cache-affinity-filter has such a limit")] = Field(
        default=0, ge=0, alias="affinityMaxTTFTPenaltyMs", description="Most that a cached prefix may cost (GIE v1.5)."
    )
    context_ttl: GoDurationS = Field(
        default=300.0,
        gt=0,
        alias="contextTTL",
        description="How long a request is remembered; a duration, or nanoseconds.",
    )
    selection_mode: Literal["linear", "max"] = Field(default="linear", description="Weighted random, or the largest weight.")
    streaming_mode: bool = Field(default=True, description="Time per token counts too.")
    endpoint_role_label: str = Field(default="", description="Label whose value the predictor is told.")


DENIED = "no valid endpoint available to serve the request"
"""What a refused client is told."""
_COLD_KV_USAGE = 0.02
"""An endpoint that uses less of its KV cache can take anything."""


class PredictedLatencyScorer(LatencyForecaster):
    """Score 1.0 for one endpoint, chosen by the headroom between predicted latency and the request's objectives.

    The choice is made here: give this scorer more weight than all others of the profile together, or they can overrule it. It
    predicts and learns by itself, as `predicted-latency-producer` does, whose page tells from what and how well; it needs the
    extra `latency`. Until it has learned enough it places requests by load and cached prefix.

    Parameters: those of PredictedLatencyScorerParams; those about predicting are explained at predicted-latency-producer.
    Reads: the prefix match, objectives from request headers, and what a prediction is made from.
    Formula: headroom = objective - prediction. Endpoints whose two headrooms are at least 0 form the positive tier, the others
        the negative one; without objectives that is the whole pool, and the shortest predicted latency is preferred.
        Endpoints that hold nearly all of the prompt's prefix come first (`affinityGateTauGlobal`), in a tier those that hold
        most of it (`affinityGateTau`). Positive tier: weights by headroom (`least`: little headroom is preferred). Negative
        tier: idle endpoints alone if there are any, weights by deficit. One is drawn by weight, or the largest is taken.
    Missing data: while one candidate has no prediction, free KV cache, short queue and cached prefix decide. Before the first
        scrape an endpoint looks idle; a KV cache usage that is no number counts as full.
    Admission: a request of negative priority whose objectives no endpoint can meet is refused, unless an endpoint is idle, cold
        or holds the prompt's prefix, or its prediction is missing.
    Source: gateway-api-inference-extension: pkg/epp/framework/plugins/scheduling/scorer/predictedlatency/
    """

    def __init__(
        self,
        context: PluginContext,
        forecast: ForecastOptions,
        choice: ChoiceOptions,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__(context, forecast, predictor)
        self._choice = choice
        self._prefix = forecast.prefix
        self._draws: DataKey[Draws] = DataKey("LatencyDraws", Draws, context.name)

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Predict, and draw for the choice, so that scoring the request again chooses the same."""
        super().produce(request, candidates)
        request.data.set(self._draws, self._draw())

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """1.0 for the chosen endpoint, shape ``(len(candidates),)``."""
        predictions = request.data.get(self._key)
        standings = self._standings(request, candidates, predictions)
        predicted = predictions is not None and all(endpoint_id in predictions for endpoint_id in candidates.ids)
        chosen = choose(standings, predicted, self._choice, request.data.get(self._draws) or self._draw())
        scores = [0.0] * len(candidates)
        if chosen is not None:
            scores[chosen.position] = 1.0
        return scores

    def admit(self, request: InferenceRequest, candidates: Candidates) -> str | None:
        """Refuse a sheddable request whose objectives cannot be met."""
        if request.priority >= 0:
            return None
        wanted = read_objectives(request.headers)
        if not wanted.ttft_ms or (self._choice.streaming and not wanted.tpot_ms):
            return None
        predictions = request.data.get(self._key)
        if not predictions:
            return None
        for standing in self._standings(request, candidates, predictions):
            prediction = predictions.get(standing.id)
            if prediction is None or (prediction.ttft_is_valid and prediction.tpot_is_valid):
                return None
            holds_prefix = 0 < self._choice.global_gate <= standing.prefix
            if not standing.dispatched or standing.kv_usage < _COLD_KV_USAGE or holds_prefix:
                return None
        return DENIED

    def _standings(
        self, request: InferenceRequest, candidates: Candidates, predictions: dict[EndpointId, LatencyPrediction] | None
    ) -> list[Standing]:
        matches = request.data.get(self._prefix) or {}
        found = predictions or {}
        columns = zip(candidates.ids, candidates.waiting_queue, candidates.kv_cache_usage, strict=True)
        return [
            _standing(position, endpoint_id, waiting, kv_usage, matches.get(endpoint_id), found.get(endpoint_id))
            for position, (endpoint_id, waiting, kv_usage) in enumerate(columns)
        ]

    def _draw(self) -> Draws:
        random = self._rng.random
        return Draws(random(), random(), random(), random())


def _standing(
    position: int,
    endpoint_id: EndpointId,
    waiting: int | None,
    kv_usage: float | None,
    match: PrefixMatch | None,
    prediction: LatencyPrediction | None,
) -> Standing:
    used = 0.0 if kv_usage is None else min(max(kv_usage, 0.0), 1.0) if kv_usage == kv_usage else 1.0
    prefix = min(match.ratio, 1.0) if match is not None else 0.0
    if prediction is None:
        return Standing(position, endpoint_id, waiting or 0, used, prefix)
    return Standing(
        position,
        endpoint_id,
        waiting or 0,
        used,
        prefix,
        prediction.ttft_headroom_ms,
        prediction.tpot_headroom_ms,
        prediction.dispatched_requests,
    )


def forecast_options(context: PluginContext, params: PredictedLatencyScorerParams) -> ForecastOptions:
    """What the parameters say about predicting."""
    return ForecastOptions(
        streaming=params.streaming_mode,
        slo_buffer_factor=params.slo_buffer_factor,
        context_ttl_s=params.context_ttl,
        sampling_mean=params.sampling_mean,
        most_samples=params.max_sampled_tokens,
        role_label=params.endpoint_role_label,
        prefix=context.key(PREFIX_CACHE_MATCH),
    )


def choice_options(params: PredictedLatencyScorerParams) -> ChoiceOptions:
    """What the parameters say about choosing."""
    return ChoiceOptions(
        strategy=Strategy(params.headroom_selection_strategy or Strategy.LEAST),
        headroom=Blend(params.headroom_ttft_weight, params.headroom_tpot_weight),
        deficit=Blend(params.neg_headroom_ttft_weight, params.neg_headroom_tpot_weight),
        composite=CompositeBlend(params.composite_kv_weight, params.composite_queue_weight, params.composite_prefix_weight),
        explore_sticky=params.epsilon_explore_sticky,
        explore_negative=params.epsilon_explore_neg,
        tier_gate=params.affinity_gate_tau,
        global_gate=params.affinity_gate_tau_global,
        largest=params.selection_mode == "max",
        streaming=params.streaming_mode,
    )


def _create(context: PluginContext, params: PredictedLatencyScorerParams) -> PredictedLatencyScorer:
    require_library()
    return PredictedLatencyScorer(context, forecast_options(context, params), choice_options(params))


def _reads_chunks(params: PredictedLatencyScorerParams) -> bool:
    return params.streaming_mode and params.max_sampled_tokens > 0


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset(
        {
            Role.SCORER,
            Role.DATA_PRODUCER,
            Role.ADMITTER,
            Role.PRE_REQUEST,
            Role.RESPONSE_RECEIVED,
            Role.RESPONSE_STREAMING,
            Role.RESPONSE_COMPLETE,
        }
    ),
    summary="Chooses the endpoint that is predicted to meet the request's latency objectives.",
    params=PredictedLatencyScorerParams,
    factory=_create,
    consumes=(Consumes(PREFIX_CACHE_MATCH), Consumes(TOKENIZED_PROMPT, required=False)),
    reads=Reads(request_headers=SLO_HEADERS, response_chunks=True, chunks_when=_reads_chunks),
)
