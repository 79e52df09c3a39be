"""How far each priority may fill the pool: static-usage-limit-policy, priority-holdback-policy,
soft-reflective-ceiling-policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Literal

from pydantic import Field, model_validator

from epp.framework.flow_control import UsageLimitPolicy
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import NoParams, Params
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


class StaticUsageLimit:
    """All priorities may fill the pool equally far.

    Parameters: threshold.
    Formula: every ceiling is ``threshold``. Above 1 the model servers queue what the picker could have kept.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/usagelimits
    """

    needs_ticks = False

    def __init__(self, params: StaticUsageLimitParams) -> None:
        self._threshold = params.threshold

    def ceilings(self, saturation: float, priorities: Sequence[int]) -> Sequence[float]:
        """The threshold, for each band."""
        return [self._threshold] * len(priorities)


class PriorityHoldback:
    """Lower priorities stop earlier, so that a part of the pool is kept free for higher ones before it is full.

    Parameters: shape, domain, minCeiling, maxCeiling.
    Reads: the priorities of all bands, also of empty ones; those of configured bands and objectives are always there.
    Formula: ``rank``: evenly from ``maxCeiling`` of the highest priority to ``minCeiling`` of the lowest; ``value``: by where a
        priority lies between the two.
    Missing data: a single priority, or ``value`` with equal ones: ``maxCeiling``.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/usagelimits
    """

    needs_ticks = False

    def __init__(self, params: PriorityHoldbackParams) -> None:
        self._by_value = params.domain == "value"
        self._min = params.min_ceiling
        self._max = params.max_ceiling

    def ceilings(self, saturation: float, priorities: Sequence[int]) -> Sequence[float]:
        """By rank or value."""
        count = len(priorities)
        span = self._max - self._min
        if self._by_value:
            low, high = priorities[-1], priorities[0]
            if low == high:
                return [self._max] * count
            return [self._min + (priority - low) / (high - low) * span for priority in priorities]
        if count == 1:
            return [self._max]
        return [self._max - index * span / (count - 1) for index in range(count)]


class SoftReflectiveCeiling:
    """Lower priorities are let through ever more rarely the fuller the pool is, instead of not at all from some point on.

    Parameters: none.
    Formula: of N bands, the one at rank i from 0 is slowed down from a saturation S at or above ``1 - i * S / (N - 1)`` on:
        it is open once in ``round(S / (1 - S))`` looks. All bands that are slowed down are open in the same looks. From 1.0 on
        they are closed. The highest priority is never slowed down.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/usagelimits
    """

    needs_ticks = True

    def __init__(self) -> None:
        self._looks = 0

    def ceilings(self, saturation: float, priorities: Sequence[int]) -> Sequence[float]:
        """1.0 for bands that are open, 0.0 for those that are closed."""
        is_open = False
        if 0.5 <= saturation < 1:
            self._looks += 1
            is_open = self._looks % period(saturation) == 0
        slowed = 1.0 if is_open else 0.0
        return [1.0 if not i or saturation < onset else slowed for i, onset in enumerate(onsets(saturation, len(priorities)))]


def onsets(saturation: float, count: int) -> list[float]:
    """From where on each of ``count`` bands is slowed down."""
    return [1 - index * saturation / (count - 1) if index else 1.0 for index in range(count)]


def period(saturation: float) -> int:
    """Of how many looks a band that is slowed down is open in one."""
    return max(1, floor(saturation / (1 - saturation + 1e-9) + 0.5))


def _static(context: PluginContext, params: StaticUsageLimitParams) -> UsageLimitPolicy:
    if params.threshold > 1:
        context.warn("threshold", f"{params.threshold:g} lets requests through to a full pool, whose servers then queue them")
    return StaticUsageLimit(params)


def _priority_holdback(context: PluginContext, params: PriorityHoldbackParams) -> UsageLimitPolicy:
    return PriorityHoldback(params)


def _soft_reflective_ceiling(context: PluginContext, params: NoParams) -> UsageLimitPolicy:
    return SoftReflectiveCeiling()


STATIC = PluginType(
    type="static-usage-limit-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="One ceiling for all priorities (default).",
    params=StaticUsageLimitParams,
    factory=_static,
)

PRIORITY_HOLDBACK = PluginType(
    type="priority-holdback-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="Lower priorities stop earlier.",
    params=PriorityHoldbackParams,
    experimental=True,
    factory=_priority_holdback,
    example="minCeiling: 0.5",
)

SOFT_REFLECTIVE_CEILING = PluginType(
    type="soft-reflective-ceiling-policy",
    roles=frozenset({Role.USAGE_LIMIT_POLICY}),
    summary="Lower priorities are slowed down the more the fuller the pool is.",
    experimental=True,
    factory=_soft_reflective_ceiling,
)

PLUGINS = (STATIC, PRIORITY_HOLDBACK, SOFT_REFLECTIVE_CEILING)
