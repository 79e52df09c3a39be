"""running-requests-detector: the pool is as full as the picker's own running requests say."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.flow_control import Credits
from epp.framework.handle import PluginContext, PoolState
from epp.framework.interfaces import Role, SaturationDetector
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "running-requests-detector"

_NO_CREDIT = Credits()


class RunningRequestsDetectorParams(Params):
    """Parameters of running-requests-detector."""

    max_concurrency_per_pod: Int = Field(default=100, gt=0, description="Running requests at which an endpoint is full.")
    cache_ttl: DurationS = Field(default=0.1, ge=0, alias="cacheTTL", description="How long a result is reused; 0 = never.")


class RunningRequestsDetector:
    """How full the pool is by the requests that this picker knows to run, whatever endpoints it is asked about.

    Parameters: maxConcurrencyPerPod, cacheTTL.
    Reads: the picker's own gauges of running requests and of endpoints with fresh metrics.
    Formula: ``running / (ready * maxConcurrencyPerPod)``; both numbers are reused for ``cacheTTL``. Flow control adds the
        requests that it let go and that do not show in them.
    Missing data: without a ready endpoint the pool is full: 1.0.
    Source: moreh-dev/gateway-api-inference-extension: pkg/epp/framework/plugins/flowcontrol/saturationdetector/runningrequests
    """

    def __init__(self, params: RunningRequestsDetectorParams, pool: PoolState | None, clock: Callable[[], float]) -> None:
        self._max_concurrency = params.max_concurrency_per_pod
        self._cache_ttl_s = params.cache_ttl
        self._pool = pool
        self._clock = clock
        self._running = 0
        self._capacity = 0
        self._taken = 0
        """Requests that were ever let go, when the numbers were read."""
        self._expires_s = -inf

    @property
    def shows_after_s(self) -> float:
        """As long as numbers are reused."""
        return self._cache_ttl_s

    def saturation(self, candidates: Candidates) -> float:
        """>= 1.0 means full."""
        return self.saturation_with(candidates, _NO_CREDIT)

    def saturation_with(self, candidates: Candidates, credit: Credits) -> float:
        """The same with requests on their way, and within ``cacheTTL`` also with those that were sent since."""
        now = self._clock()
        if now >= self._expires_s:
            self._read(credit)
            self._expires_s = now + self._cache_ttl_s
        if not self._capacity:
            return 1.0
        return (self._running + max(credit.taken - self._taken, 0)) / self._capacity

    def credit_tokens(self, request: InferenceRequest) -> int:
        """Only requests count."""
        return 0

    def next_change_s(self) -> float:
        """When the numbers are read again."""
        return self._expires_s

    def _read(self, credit: Credits) -> None:
        pool = self._pool
        self._running = pool.running_requests() + credit.requests if pool is not None else 0
        self._capacity = pool.ready_endpoints() * self._max_concurrency if pool is not None else 0
        self._taken = credit.taken


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
