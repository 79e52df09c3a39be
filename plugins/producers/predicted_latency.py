"""predicted-latency-producer: ask a predictor for the request's latency on every endpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION, PREFIX_CACHE_MATCH
from epp.framework.params import GoDurationS, Ignored, Int, Params, PluginReference
from epp.framework.registry import PluginType, Reads
from plugins.slo_headers import SLO_HEADERS

TYPE = "predicted-latency-producer"


class PredictedLatencyProducerParams(Params):
    """Parameters of predicted-latency-producer."""

    sampling_mean: float = Field(default=1000, gt=0, description="Mean number of tokens between two latency samples.")
    max_decode_token_samples_for_prediction: Annotated[Int, Ignored("samples are limited by samplingMean alone")] = Field(
        default=0, ge=0, description="Most samples per response."
    )
    slo_buffer_factor: float = Field(default=1, gt=0, description="Factor on the time-per-token objective.")
    context_ttl: GoDurationS = Field(
        default=300.0, gt=0, alias="contextTTL", description="How long a request is remembered; a duration, or nanoseconds."
    )
    streaming_mode: bool = Field(default=False, description="Time per token counts too.")
    endpoint_role_label: str = Field(default="", description="Label whose value the predictor is told.")
    predict_in_produce: bool = Field(default=True, description="Predict before scheduling.")
    use_encoder_cache_features: bool = Field(default=False, description="Tell the predictor about cached media.")
    encoder_cache_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the media match; default: its usual producer."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset(
        {
            Role.DATA_PRODUCER,
            Role.PRE_REQUEST,
            Role.RESPONSE_RECEIVED,
            Role.RESPONSE_STREAMING,
            Role.RESPONSE_COMPLETE,
        }
    ),
    summary="Asks a predictor for the request's latency on every endpoint.",
    params=PredictedLatencyProducerParams,
    produces=(LATENCY_PREDICTION,),
    consumes=(Consumes(PREFIX_CACHE_MATCH),),
    reads=Reads(request_headers=SLO_HEADERS, response_headers=True, response_chunks=True, usage=True),
    wait="latency prediction",
)
