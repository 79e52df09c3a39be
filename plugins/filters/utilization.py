"""utilization-filter: keep endpoints whose load stays below limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import KV_CACHE_USAGE, RUNNING_REQUESTS, WAITING_QUEUE
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "utilization-filter"


class UtilizationCondition(Params):
    """An upper limit of one metric."""

    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"] = Field(
        description="Metric that is limited."
    )
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


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints whose load stays below limits.",
    params=UtilizationFilterParams,
    consumes=(
        Consumes(WAITING_QUEUE, required=False),
        Consumes(RUNNING_REQUESTS, required=False),
        Consumes(KV_CACHE_USAGE, required=False),
    ),
    experimental=True,
    wait="load filters",
)
