"""running-requests-detector: the pool is as full as the picker's own running requests say."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext, PoolState
from epp.framework.interfaces import Role, SaturationDetector
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import PluginType

TYPE = "running-requests-detector"


class RunningRequestsDetectorParams(Params):
    """Parameters of running-requests-detector."""

    max_concurrency_per_pod: Int = Field(default=100, gt=0, description="Running requests at which an endpoint is full.")
    cache_ttl: DurationS = Field(default=0.1, ge=0, alias="cacheTTL", description="How long a result is reused; 0 = never.")


class RunningRequestsDetector:
    """How full the pool is by the requests that this picker knows to run, whatever endpoints it is asked about.

    Parameters: maxConcurrencyPerPod, cacheTTL.
    Reads: the picker's own gauges of running requests and of endpoints with fresh metrics.
    Formula: ``running / (ready * maxConcurrencyPerPod)``; a result is reused for ``cacheTTL``.
    Missing data: without a ready endpoint the pool is full: 1.0.
    Source: moreh-dev/gateway-api-inference-extension: pkg/epp/framework/plugins/flowcontrol/saturationdetector/runningrequests
    """

    def __init__(self, params: RunningRequestsDetectorParams, pool: PoolState | None, clock: Callable[[], float]) -> None:
        self._max_concurrency = params.max_concurrency_per_pod
        self._cache_ttl_s = params.cache_ttl
        self._pool = pool
        self._clock = clock
        self._result = 1.0
        self._expires_s = -inf

    def saturation(self, candidates: Candidates) -> float:
        """>= 1.0 means full."""
        now = self._clock()
        if now >= self._expires_s:
            self._result = self._read()
            self._expires_s = now + self._cache_ttl_s
        return self._result

    def _read(self) -> float:
        capacity = self._pool.ready_endpoints() * self._max_concurrency if self._pool is not None else 0
        return self._pool.running_requests() / capacity if self._pool is not None and capacity else 1.0


def _create(context: PluginContext, params: RunningRequestsDetectorParams) -> SaturationDetector:
    return RunningRequestsDetector(params, context.pool, context.clock)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR}),
    summary="The pool is as full as the picker's own running requests say.",
    params=RunningRequestsDetectorParams,
    factory=_create,
    example="maxConcurrencyPerPod: 32",
)
