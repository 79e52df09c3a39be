"""utilization-detector: the pool is as full as its waiting queues and KV caches say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from math import inf
from typing import Literal, NamedTuple

from pydantic import Field

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import KV_CACHE_USAGE, WAITING_QUEUE
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import PluginType
from epp.framework.types import EndpointMetrics, InferenceRequest

TYPE = "utilization-detector"
LOG_PAUSE_S = 30.0
"""At most one line about stale metrics in this time."""

_logger = log.get(__name__)


class UtilizationDetectorParams(Params):
    """Parameters of utilization-detector."""

    queue_depth_threshold: Int = Field(default=5, gt=0, description="Waiting requests at which an endpoint is full.")
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, le=1, description="KV cache usage at which an endpoint is full.")
    metrics_staleness_threshold: DurationS = Field(default=0.2, gt=0, description="Age at which metrics count as full.")
    headroom: float = Field(default=0.0, ge=0, description="Fraction by which the filter exceeds the thresholds.")
    staleness_policy: Literal["saturated", "ignore"] = Field(
        default="saturated", description="Whether endpoints with stale metrics count as full or not at all."
    )


class _Known(NamedTuple):
    """The value for some candidates."""

    value: float
    until_s: float
    """The last moment in which all their metrics are fresh, if they are."""


class UtilizationDetector:
    """The mean of how full the endpoints are by their own metrics; as a filter, keeps those that are not full.

    Parameters: queueDepthThreshold, kvCacheUtilThreshold, metricsStalenessThreshold, headroom, stalenessPolicy.
    Reads: waiting_queue, kv_cache_usage, and when they were read.
    Formula: mean of ``max(queue / queueDepthThreshold, usage / kvCacheUtilThreshold)``, not clamped. The filter keeps endpoints
        below both thresholds times ``1 + headroom``; when none is left, all.
    Missing data: an endpoint whose metrics are stale or were never read counts 1.0, or with ``ignore`` not at all (0.0 if all
        are), and does not pass the filter. Without endpoints the pool is full: 1.0.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/saturationdetector/utilization
    """

    def __init__(self, params: UtilizationDetectorParams, clock: Callable[[], float]) -> None:
        self._queue = params.queue_depth_threshold
        self._usage = params.kv_cache_util_threshold
        self._max_age_s = params.metrics_staleness_threshold
        self._headroom = 1 + params.headroom
        self._ignores_stale = params.staleness_policy == "ignore"
        self._clock = clock
        self._stale = 0
        self._next_line_s = -inf
        self._changes_s = inf

    def saturation(self, candidates: Candidates) -> float:
        """>= 1.0 means full. The same value until metrics change or the first of them gets too old."""
        now = self._clock()
        known = candidates.memo.get(self)
        if isinstance(known, _Known) and now <= known.until_s:
            self._changes_s = known.until_s
            return known.value
        read_s = candidates.updated_s
        fresh = [self._is_fresh(updated_s, now) for updated_s in read_s]
        count, stale = len(fresh), fresh.count(False)
        self._note_stale(stale, count, now)
        self._changes_s = min([at_s for at_s in compress(read_s, fresh) if at_s is not None], default=inf) + self._max_age_s
        if not count:
            return 1.0
        value = self._mean(sum(map(self._fullness, compress(candidates.metrics, fresh))), count, stale)
        candidates.memo[self] = _Known(value, self._changes_s if not stale else -inf)
        return value

    def next_change_s(self) -> float:
        """When metrics get too old: time alone frees the pool only if they then count for nothing."""
        return self._changes_s if self._ignores_stale else inf

    def stale_endpoints(self, candidates: Candidates) -> int:
        """Endpoints whose metrics are too old, or were never read."""
        now = self._clock()
        return sum([not self._is_fresh(updated_s, now) for updated_s in candidates.updated_s])

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates below the thresholds, or all."""
        queue, usage, now = self._queue * self._headroom, self._usage * self._headroom, self._clock()
        kept = [
            self._is_fresh(updated_s, now) and (metrics.waiting_queue or 0) < queue and _usage(metrics) < usage
            for metrics, updated_s in zip(candidates.metrics, candidates.updated_s, strict=True)
        ]
        return candidates.where(kept) or candidates

    def debug_state(self) -> object:
        """How many endpoints had stale metrics when it was last asked."""
        return {"staleEndpoints": self._stale}

    def _mean(self, total: float, count: int, stale: int) -> float:
        if not self._ignores_stale:
            return (total + stale) / count
        return total / (count - stale) if stale < count else 0.0

    def _fullness(self, metrics: EndpointMetrics) -> float:
        return max((metrics.waiting_queue or 0) / self._queue, _usage(metrics) / self._usage)

    def _is_fresh(self, updated_s: float | None, now_s: float) -> bool:
        return updated_s is not None and now_s - updated_s <= self._max_age_s

    def _note_stale(self, stale: int, count: int, now_s: float) -> None:
        self._stale = stale
        if stale and now_s >= self._next_line_s:
            self._next_line_s = now_s + LOG_PAUSE_S
            details = {"stale": stale, "endpoints": count, "threshold_s": self._max_age_s}
            _logger.warning("endpoints with stale metrics count as full", details=details)


def _usage(metrics: EndpointMetrics) -> float:
    usage = metrics.kv_cache_usage
    return usage if usage is not None and usage == usage else 0.0


def _create(context: PluginContext, params: UtilizationDetectorParams) -> UtilizationDetector:
    if params.headroom > 1:
        context.warn("headroom", f"{params.headroom:g} is a fraction of the thresholds, not a percentage")
    return UtilizationDetector(params, context.clock)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR, Role.FILTER}),
    summary="The pool is as full as its waiting queues and KV caches say; as a filter, drops full endpoints.",
    params=UtilizationDetectorParams,
    factory=_create,
    consumes=(Consumes(WAITING_QUEUE, required=False), Consumes(KV_CACHE_USAGE, required=False)),
    example="""
        queueDepthThreshold: 8
        kvCacheUtilThreshold: 0.9
    """,
)
