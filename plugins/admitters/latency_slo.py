"""latency-slo-admitter: refuse sheddable requests that no endpoint can serve in time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Admitter, Role
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType, Reads
from epp.framework.types import EndpointId, InferenceRequest
from plugins.shared.slo_headers import SLO_HEADERS, read_objectives

TYPE = "latency-slo-admitter"


class LatencySloAdmitterParams(Params):
    """Parameters of latency-slo-admitter."""

    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )


DENIED = "no valid endpoint available to serve the request"
"""What a refused client is told."""
_COLD_KV_USAGE = 0.02
"""An endpoint that uses less of its KV cache can take anything."""


class LatencySloAdmitter:
    """Refuse requests of negative priority whose latency objectives are predicted to be missed on every endpoint.

    Parameters: latencyPredictionInfoProducerName.
    Reads: LatencyPrediction; running_requests and kv_cache_usage; the objectives from the request's headers.
    Admitted: whatever has priority 0 or more, no objective, no prediction, or an endpoint that can meet the objectives, has
        nothing running, or is cold (KV cache usage below 2 %).
    Missing data: an endpoint that was never scraped counts as cold.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/admitter/latencyslo/
    """

    def __init__(self, key: DataKey[dict[EndpointId, LatencyPrediction]]) -> None:
        self._key = key

    def admit(self, request: InferenceRequest, candidates: Candidates) -> str | None:
        """The reason of a refusal, or None."""
        if request.priority >= 0 or not any(read_objectives(request.headers)):
            return None
        predictions = request.data.get(self._key)
        found = (
            [predictions[endpoint_id] for endpoint_id in candidates.ids if endpoint_id in predictions] if predictions else []
        )
        if not found or any(prediction.ttft_is_valid and prediction.tpot_is_valid for prediction in found):
            return None
        columns = zip(candidates.running_requests, candidates.kv_cache_usage, strict=True)
        if any(_has_room(running, kv_usage) for running, kv_usage in columns):
            return None
        return DENIED


def _has_room(running_requests: int | None, kv_usage: float | None) -> bool:
    return not running_requests or kv_usage is None or not kv_usage >= _COLD_KV_USAGE


def _create(context: PluginContext, params: LatencySloAdmitterParams) -> Admitter:
    return LatencySloAdmitter(context.key(LATENCY_PREDICTION, params.latency_prediction_info_producer_name))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.ADMITTER}),
    summary="Refuses sheddable requests that no endpoint can serve in time.",
    params=LatencySloAdmitterParams,
    consumes=(Consumes(LATENCY_PREDICTION),),
    reads=Reads(request_headers=SLO_HEADERS),
    factory=_create,
)
