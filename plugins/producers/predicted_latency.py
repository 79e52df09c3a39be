"""predicted-latency-producer: predict the request's latency on every endpoint, from what was learned of earlier ones."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION, MEDIA_CACHE_MATCH, PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Former, GoDurationS, Ignored, Int, Params, PluginReference
from epp.framework.registry import PluginType, Reads
from plugins.latency.forecaster import ForecastOptions, LatencyForecaster
from plugins.latency.regression import require_library
from plugins.shared.slo_headers import SLO_HEADERS

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
    predict_in_produce: Annotated[bool, Former("predictInPrepareData")] = Field(
        default=True, description="Predict before scheduling."
    )
    use_encoder_cache_features: bool = Field(default=False, description="Tell the predictor about cached media.")
    encoder_cache_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the media match; default: its usual producer."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


class PredictedLatencyProducer(LatencyForecaster):
    """Write a LatencyPrediction for every candidate, and learn from how long each answer took.

    The predictor learns while the picker runs, in the picker, starting from nothing; it needs no service of its own and keeps
    nothing on disk. It needs the extra `latency` (the package river). A thread learns; the event loop multiplies by weights.

    Three latencies are learned, each by a linear regression whose old observations fade: the time to the first chunk of a
    stream, the time to an answer that is not streamed, and with `streamingMode` the time per further token. They are learned
    from the uncached length of the prompt, the server's waiting queue, running requests and KV cache usage at the last scrape,
    the requests, prompt tokens and prompts without first token that this picker has at the server, and for answers that are
    not streamed the client's output limit; besides, from how much slower or faster each server is than the others. Requests
    that failed, or whose end could not be seen, are not learned from; with a bypassed response nothing is.

    How good it is on four simulated servers whose load changes every 20 seconds, as the mean absolute percentage error after
    500 requests (`python -m bench.latency_prediction`; beside it the mean of all latencies so far): time to first token 16 %
    (58 %), time per token 11 % (24 %); where two of the servers are slower, 19 % (50 %) and 14 % (30 %). Real servers are
    noisier. Nothing is predicted before 20 answers of the kind.

    Parameters: those of PredictedLatencyProducerParams.
    Reads: the prefix match, the media match with `useEncoderCacheFeatures`, the endpoints' metrics, latency objectives.
    Formula: headroom = objective - prediction. The time per token must also keep the strictest objective among the requests
        that are under way to the endpoint; both times `sloBufferFactor`. The time that the request has waited so far is part
        of its time to first token.
    Missing data: nothing is written until enough answers were seen; an endpoint of a role that was not seen yet is left out.
        A value that was never scraped counts as 0.
    Costs: some 0.2 ms a request for 100 endpoints, and some 95 MiB of memory for the library.
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
    summary="Predicts the request's latency on every endpoint, from what it learned of earlier ones.",
    params=PredictedLatencyProducerParams,
    produces=(LATENCY_PREDICTION,),
    factory=_create,
    consumes=(
        Consumes(PREFIX_CACHE_MATCH),
        Consumes(TOKENIZED_PROMPT, required=False),
        Consumes(MEDIA_CACHE_MATCH, when=_reads_media),
    ),
    reads=Reads(request_headers=SLO_HEADERS, response_chunks=True, chunks_when=_reads_chunks),
)
