"""utilization-detector: the pool is as full as its waiting queues and KV caches say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import KV_CACHE_USAGE, WAITING_QUEUE
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import PluginType

TYPE = "utilization-detector"


class UtilizationDetectorParams(Params):
    """Parameters of utilization-detector."""

    queue_depth_threshold: Int = Field(default=5, gt=0, description="Waiting requests at which an endpoint is full.")
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, le=1, description="KV cache usage at which an endpoint is full.")
    metrics_staleness_threshold: DurationS = Field(default=0.2, gt=0, description="Age at which metrics count as full.")
    headroom: float = Field(default=0.0, ge=0, description="Fraction by which the filter exceeds the thresholds.")
    staleness_policy: Literal["saturated", "ignore"] = Field(
        default="saturated", description="Whether endpoints with stale metrics count as full or not at all."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR, Role.FILTER}),
    summary="The pool is as full as its waiting queues and KV caches say; as a filter, drops full endpoints.",
    params=UtilizationDetectorParams,
    consumes=(Consumes(WAITING_QUEUE, required=False), Consumes(KV_CACHE_USAGE, required=False)),
    wait="saturation detection",
)
