"""latency-scorer: prefer endpoints by the headroom of their predicted latency."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION, PREFIX_CACHE_MATCH
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "latency-scorer"


class LatencyScorerParams(Params):
    """Parameters of latency-scorer."""

    ttft_weight: float = Field(default=0.8, description="Weight of the first token's headroom.")
    tpot_weight: float = Field(default=0.2, description="Weight of the further tokens' headroom.")
    headroom_selection_strategy: Literal["", "least", "most"] = Field(
        default="least", description="Whether little or much headroom is preferred; empty = `least`."
    )
    composite_kv_weight: float = Field(default=1, alias="compositeKVWeight", description="Weight of free KV cache.")
    composite_queue_weight: float = Field(default=1, description="Weight of a short queue.")
    composite_prefix_weight: float = Field(default=1, description="Weight of a cached prefix.")
    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints by the headroom of their predicted latency.",
    params=LatencyScorerParams,
    consumes=(Consumes(LATENCY_PREDICTION), Consumes(PREFIX_CACHE_MATCH)),
    wait="latency prediction",
)
