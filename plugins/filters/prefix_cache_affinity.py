"""prefix-cache-affinity-filter: keep endpoints that hold the prompt's prefix, unless they are much slower."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import IN_FLIGHT_LOAD, LATENCY_PREDICTION, PREFIX_CACHE_MATCH
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

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


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that hold the prompt's prefix, unless they are much slower.",
    params=PrefixCacheAffinityFilterParams,
    consumes=(
        Consumes(PREFIX_CACHE_MATCH),
        Consumes(IN_FLIGHT_LOAD, required=False),
        Consumes(LATENCY_PREDICTION, required=False),
    ),
    wait="prefix-cache awareness",
)
