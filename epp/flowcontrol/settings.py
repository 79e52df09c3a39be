"""What flow control works by: limits, policies and detector of one configuration. Replaced whole by a reload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from epp.framework.flow_control import (
    EvictionFilter,
    EvictionOrderPolicy,
    FairnessPolicy,
    OrderingPolicy,
    UsageLimitPolicy,
)
from epp.framework.interfaces import SaturationDetector

T = TypeVar("T")

MAX_REQUESTS = 5000
"""Of a band that says nothing: bounds the memory that waiting requests take. Source: llm-d-router."""
MAX_BYTES = 1 << 30
"""Of a band that says nothing. Source: Heimdall's EndpointPickerConfig reference."""


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """A plugin with its names in the configuration."""

    plugin: T
    type: str
    name: str


DefectSink = Callable[[str, Named[Any], Exception | str], None]
"""Told of a policy that failed: (role, policy, what happened)."""


@dataclass(frozen=True, slots=True)
class BandSettings:
    """One priority band. Limits count what waits, not what runs; reaching one is allowed, passing it is not."""

    fairness: Named[FairnessPolicy]
    ordering: Named[OrderingPolicy]
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    """Request bodies as forwarded."""
    max_flow_requests: int = 0
    """Of one flow of the band; 0 = no limit."""
    max_flow_bytes: int = 0
    ttl_s: float = 0.0
    """How long a request may wait while the pool has endpoints; 0 = for ever."""
    min_share: float = 0.0
    """Fraction of what is let go that this band gets while its requests wait, whatever waits above; 0 = strict order."""


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """Ending running requests for waiting ones."""

    filter: Named[EvictionFilter]
    order: Named[EvictionOrderPolicy]
    grace_s: float
    """From the end of a request until the detector shows what it freed."""


@dataclass(frozen=True, slots=True)
class FlowControlSettings:
    """All of it."""

    detector: Named[SaturationDetector]
    usage: Named[UsageLimitPolicy]
    template: BandSettings
    """Of priorities that no entry names."""
    negative_template: BandSettings
    """The same below 0."""
    bands: Mapping[int, BandSettings] = field(default_factory=dict)
    max_requests: int = 0
    """Of all bands together; 0 = no limit."""
    max_bytes: int = 0
    empty_pool_ttl_s: float = 0.0
    """How long a request may wait while the pool has no endpoint; 0 = for ever."""
    eviction: EvictionSettings | None = None

    def band(self, priority: int) -> BandSettings:
        """The settings of a priority."""
        found = self.bands.get(priority)
        if found is None:
            found = self.negative_template if priority < 0 else self.template
        return found
