"""Usage limit policies, static, priority-holdback and soft-reflective-ceiling: how far each priority may fill the pool."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType


class StaticUsageLimitParams(Params):
    """Parameters of static-usage-limit-policy."""

    threshold: float = Field(default=1.0, gt=0, description="Saturation up to which requests are dispatched.")


class PriorityHoldbackParams(Params):
    """Parameters of priority-holdback-policy."""

    shape: Literal["linear"] = Field(default="linear", description="Ceilings between the two ends.")
    domain: Literal["rank", "value"] = Field(default="rank", description="By order of the priorities, or by their values.")
    min_ceiling: float = Field(ge=0, lt=1, description="Ceiling of the lowest priority.")
    max_ceiling: float = Field(default=1.0, gt=0, le=1, description="Ceiling of the highest priority.")

    @model_validator(mode="after")
    def _check_order(self) -> PriorityHoldbackParams:
        if self.min_ceiling >= self.max_ceiling:
            raise ValueError(f"minCeiling must be below maxCeiling, they are {self.min_ceiling:g} and {self.max_ceiling:g}")
        return self


STATIC = PluginType(
    type="static-usage-limit-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="One ceiling for all priorities (default).",
    params=StaticUsageLimitParams,
    wait="flow control",
)

PRIORITY_HOLDBACK = PluginType(
    type="priority-holdback-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="Lower priorities stop earlier.",
    params=PriorityHoldbackParams,
    experimental=True,
    wait="flow control",
    example="minCeiling: 0.5",
)

SOFT_REFLECTIVE_CEILING = PluginType(
    type="soft-reflective-ceiling-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="Lower priorities are slowed down the more the fuller the pool is.",
    experimental=True,
    wait="flow control",
)

PLUGINS = (STATIC, PRIORITY_HOLDBACK, SOFT_REFLECTIVE_CEILING)
