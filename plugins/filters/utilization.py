"""utilization-filter: keep endpoints whose load stays below limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.keys import IN_FLIGHT_LOAD, KV_CACHE_USAGE, RUNNING_REQUESTS, WAITING_QUEUE, InFlightLoad
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "utilization-filter"
Metric = Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]


class UtilizationCondition(Params):
    """An upper limit of one metric."""

    metric: Metric = Field(description="Metric that is limited.")
    max_value: float = Field(ge=0, description="Largest accepted value; a fraction for kv-cache-utilization.")

    @model_validator(mode="after")
    def _check_fraction(self) -> UtilizationCondition:
        if self.metric == "kv-cache-utilization" and self.max_value > 1:
            raise ValueError(f"maxValue of kv-cache-utilization is a fraction, at most 1; it is {self.max_value:g}")
        return self


class UtilizationFilterParams(Params):
    """Parameters of utilization-filter."""

    conditions: list[UtilizationCondition] = Field(min_length=1, description="Limits, all of which must hold.")
    fallback_on_empty: bool = Field(default=False, description="Keep all endpoints when none would be left.")
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of active-requests; default: its usual producer."
    )


def _reads_active_requests(params: UtilizationFilterParams) -> bool:
    return any(condition.metric == "active-requests" for condition in params.conditions)


class UtilizationFilter:
    """Keep endpoints whose load stays within all limits.

    Parameters: conditions, fallbackOnEmpty, inFlightLoadProducerName.
    Reads: running_requests, waiting_queue, kv_cache_usage; InFlightLoad for active-requests.
    Formula: ``value <= maxValue`` for each condition; when none is left and ``fallbackOnEmpty``, all.
    Missing data: counts as 0, so an endpoint that was never scraped is kept.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/utilization
    """

    def __init__(self, params: UtilizationFilterParams, key: DataKey[dict[EndpointId, InFlightLoad]]) -> None:
        self._limits = [(condition.metric, condition.max_value) for condition in params.conditions]
        self._falls_back = params.fallback_on_empty
        self._key = key

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates within the limits."""
        kept = [True] * len(candidates)
        for metric, limit in self._limits:
            values = self._values(metric, request, candidates)
            kept = [keep and (value or 0) <= limit for keep, value in zip(kept, values, strict=True)]
        within = candidates.where(kept)
        return candidates if not within and self._falls_back else within

    def _values(self, metric: Metric, request: InferenceRequest, candidates: Candidates) -> Sequence[float | None]:
        match metric:
            case "running-requests":
                return candidates.running_requests
            case "waiting-queue":
                return candidates.waiting_queue
            case "kv-cache-utilization":
                return candidates.kv_cache_usage
            case "active-requests":
                loads = request.data.get(self._key) or {}
                return [load.requests if (load := loads.get(endpoint_id)) else 0 for endpoint_id in candidates.ids]


def _create(context: PluginContext, params: UtilizationFilterParams) -> Filter:
    return UtilizationFilter(params, context.key(IN_FLIGHT_LOAD, params.in_flight_load_producer_name))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints whose load stays below limits.",
    params=UtilizationFilterParams,
    factory=_create,
    consumes=(
        Consumes(WAITING_QUEUE, required=False),
        Consumes(RUNNING_REQUESTS, required=False),
        Consumes(KV_CACHE_USAGE, required=False),
        Consumes(IN_FLIGHT_LOAD, when=_reads_active_requests),
    ),
    experimental=True,
    example="""
        conditions:
        - {metric: waiting-queue, maxValue: 32}
        - {metric: kv-cache-utilization, maxValue: 0.95}
        fallbackOnEmpty: true
    """,
)
