"""inflight-load-producer: count requests and tokens in flight to each endpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import IN_FLIGHT_LOAD, PREFIX_CACHE_MATCH
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType, Reads

TYPE = "inflight-load-producer"


class InflightLoadProducerParams(Params):
    """Parameters of inflight-load-producer."""

    add_estimated_output_tokens: bool = Field(default=False, description="Count expected output tokens too.")
    output_ratio: float = Field(default=1.5, ge=0, description="Expected output tokens per input token.")
    max_estimated_output_tokens: Int | None = Field(
        default=None, ge=0, description="Most output tokens expected; absent = any."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    sync_cross_replica_state: bool = Field(default=True, description="Share the counts with other replicas of the picker.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.RESPONSE_STREAMING, Role.RESPONSE_COMPLETE}),
    summary="Counts requests and tokens in flight to each endpoint.",
    params=InflightLoadProducerParams,
    produces=(IN_FLIGHT_LOAD,),
    consumes=(Consumes(PREFIX_CACHE_MATCH, required=False),),
    reads=Reads(response_chunks=True),
    wait="load in flight",
)
