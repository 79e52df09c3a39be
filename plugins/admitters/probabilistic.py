"""probabilistic-admitter: refuse sheddable requests the more often the fuller the pool is."""

from __future__ import annotations

import math
import random

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Admitter, Role
from epp.framework.keys import KV_CACHE_USAGE, WAITING_QUEUE
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "probabilistic-admitter"


class ProbabilisticAdmitterParams(Params):
    """Parameters of probabilistic-admitter."""

    queue_depth_threshold: Int = Field(default=5, gt=0, description="Waiting requests at which an endpoint is full.")
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, description="KV cache usage at which an endpoint is full.")
    power: float = Field(default=5.0, gt=0, description="Exponent of the saturation.")
    k: float = Field(default=300.0, gt=0, description="Factor on the saturation's power.")


class ProbabilisticAdmitter:
    """Refuse requests of negative priority with a probability that grows with the pool's saturation.

    Parameters: queueDepthThreshold, kvCacheUtilThreshold, power, k.
    Reads: waiting requests and KV cache usage of all candidates.
    Formula: refused with probability ``min(saturation ** power * k, 1)``, where the saturation is the mean over the candidates
        of ``max(waiting / queueDepthThreshold, usage / kvCacheUtilThreshold)``.
    Missing data: an endpoint that was never scraped is full (1.0); of one value alone, the other counts as 0.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/admitter/probabilisticadmitter/plugin.go
    """

    def __init__(self, params: ProbabilisticAdmitterParams, rng: random.Random) -> None:
        self._queue_full = params.queue_depth_threshold
        self._kv_full = params.kv_cache_util_threshold
        self._power = params.power
        self._log_k = math.log(params.k)
        self._rng = rng

    def admit(self, request: InferenceRequest, candidates: Candidates) -> str | None:
        """A reason to refuse, or None; requests of priority >= 0 always pass."""
        if request.priority < 0 and self._rng.random() < self.refusal_probability(candidates):
            return "the pool is busy and the request has a negative priority"
        return None

    def refusal_probability(self, candidates: Candidates) -> float:
        """In [0, 1]; 0 without candidates."""
        saturation = self.saturation(candidates)
        if saturation <= 0:
            return 0.0
        exponent = self._power * math.log(saturation) + self._log_k  # the power itself could overflow
        return 1.0 if exponent >= 0 else math.exp(exponent)

    def saturation(self, candidates: Candidates) -> float:
        """Mean over the candidates; 0 without any."""
        if not candidates:
            return 0.0
        total = 0.0
        for waiting, usage in zip(candidates.waiting_queue, candidates.kv_cache_usage, strict=True):
            if waiting is None and usage is None:
                total += 1.0
            else:
                total += max((waiting or 0) / self._queue_full, (usage or 0.0) / self._kv_full)
        return total / len(candidates)


def _create(context: PluginContext, params: ProbabilisticAdmitterParams) -> Admitter:
    return ProbabilisticAdmitter(params, context.rng)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.ADMITTER}),
    summary="Refuses sheddable requests the more often the fuller the pool is.",
    params=ProbabilisticAdmitterParams,
    factory=_create,
    consumes=(Consumes(WAITING_QUEUE, required=False), Consumes(KV_CACHE_USAGE, required=False)),
)
