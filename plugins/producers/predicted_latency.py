"""predicted-latency-producer: ask a predictor for the request's latency on every endpoint."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION, MEDIA_CACHE_MATCH, PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import GoDurationS, Ignored, Int, Params, PluginReference
from epp.framework.registry import PluginType, Reads
from plugins.latency.forecaster import ForecastOptions, LatencyForecaster
from plugins.latency.regression import require_library
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


class PredictedLatencyProducer(LatencyForecaster):
    """Write a LatencyPrediction for every candidate, and learn from every answer. The module says from what.

    Parameters: those of PredictedLatencyProducerParams.
    Reads: the prefix match, the media match with `useEncoderCacheFeatures`, the endpoints' metrics, latency objectives.
    Missing data: nothing is written until enough answers were seen; an endpoint of a role that was not seen yet is left out.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/predictedlatency/, with a predictor of its own.
    """


def forecast_options(context: PluginContext, params: PredictedLatencyProducerParams) -> ForecastOptions:
    """What the parameters say."""
    media = context.key(MEDIA_CACHE_MATCH, params.encoder_cache_match_info_producer_name)
    return ForecastOptions(
        streaming=params.streaming_mode,
        slo_buffer_factor=params.slo_buffer_factor,
        context_ttl_s=params.context_ttl,
        sampling_mean=params.sampling_mean,
        most_samples=math.inf,
        role_label=params.endpoint_role_label,
        prefix=context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
        media=media if params.use_encoder_cache_features else None,
        in_produce=params.predict_in_produce,
    )


def _create(context: PluginContext, params: PredictedLatencyProducerParams) -> PredictedLatencyProducer:
    require_library()
    return PredictedLatencyProducer(context, forecast_options(context, params))


def _reads_chunks(params: PredictedLatencyProducerParams) -> bool:
    return params.streaming_mode


def _reads_media(params: PredictedLatencyProducerParams) -> bool:
    return params.use_encoder_cache_features


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
    factory=_create,
    consumes=(
        Consumes(PREFIX_CACHE_MATCH),
        Consumes(TOKENIZED_PROMPT, required=False),
        Consumes(MEDIA_CACHE_MATCH, when=_reads_media),
    ),
    reads=Reads(
        request_headers=SLO_HEADERS, response_headers=True, response_chunks=True, usage=True, chunks_when=_reads_chunks
    ),
)
