"""running-requests-detector: the pool is as full as the picker's own running requests say."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import PluginType

TYPE = "running-requests-detector"


class RunningRequestsDetectorParams(Params):
    """Parameters of running-requests-detector."""

    max_concurrency_per_pod: Int = Field(default=100, gt=0, description="Running requests at which an endpoint is full.")
    cache_ttl: DurationS = Field(default=0.1, ge=0, alias="cacheTTL", description="How long a result is reused; 0 = never.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR}),
    summary="The pool is as full as the picker's own running requests say.",
    params=RunningRequestsDetectorParams,
    wait="saturation detection",
)
