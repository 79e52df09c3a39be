"""program-aware-fairness: the flow that was served least is next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Ignored, Params
from epp.framework.registry import PluginType

TYPE = "program-aware-fairness"


class ProgramAwareFairnessParams(Params):
    """Parameters of program-aware-fairness."""

    strategy: Literal["", "las", "turn-priority"] = Field(
        default="las", description="`las`: least attained service; `turn-priority`: fewest turns; empty = `las`."
    )
    las_weight_service: float = Field(default=0.8, ge=0, description="Weight of the service received.")
    las_weight_head_wait: float = Field(default=0.2, ge=0, description="Weight of the first request's wait.")
    las_half_life_seconds: float = Field(default=60, ge=0, description="Seconds in which service is half forgotten; 0 = never.")
    las_decay_factor: Annotated[float, Ignored("service fades by lasHalfLifeSeconds alone")] = Field(
        default=0.99997, gt=0, le=1, description="Share of the service kept at each pick (llm-d v0.9)."
    )
    eviction_ttl_seconds: float = Field(default=3600, ge=0, description="Idle seconds until a flow is forgotten; 0 = never.")
    eviction_sweep_seconds: float = Field(default=300, gt=0, description="Seconds between searches for idle flows.")
    turn_priority_time_weight: float = Field(default=0.5, ge=0, description="Weight of the seconds waited (`turn-priority`).")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FAIRNESS_POLICY, Role.PRE_REQUEST, Role.RESPONSE_COMPLETE}),
    summary="The flow that was served least.",
    params=ProgramAwareFairnessParams,
    wait="flow control",
)
