"""predicted-latency-scorer: choose the endpoint that is predicted to meet the request's latency objectives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.params import GoDurationS, Int, Params
from epp.framework.registry import PluginType, Reads
from plugins.slo_headers import SLO_HEADERS

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
    context_ttl: GoDurationS = Field(
        default=300.0,
        gt=0,
        alias="contextTTL",
        description="How long a request is remembered; a duration, or nanoseconds.",
    )
    selection_mode: Literal["linear", "max"] = Field(default="linear", description="Weighted random, or the largest weight.")
    streaming_mode: bool = Field(default=True, description="Time per token counts too.")
    endpoint_role_label: str = Field(default="", description="Label whose value the predictor is told.")


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
    consumes=(Consumes(PREFIX_CACHE_MATCH),),
    reads=Reads(request_headers=SLO_HEADERS, response_headers=True, response_chunks=True, usage=True),
    wait="latency prediction",
)
