"""probabilistic-admitter: refuse sheddable requests the more often the fuller the pool is."""

from __future__ import annotations

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import KV_CACHE_USAGE, WAITING_QUEUE
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType

TYPE = "probabilistic-admitter"


class ProbabilisticAdmitterParams(Params):
    """Parameters of probabilistic-admitter."""

    queue_depth_threshold: Int = Field(default=5, gt=0, description="Waiting requests at which an endpoint is full.")
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, description="KV cache usage at which an endpoint is full.")
    power: float = Field(default=5.0, gt=0, description="Exponent of the saturation.")
    k: float = Field(default=300.0, gt=0, description="Factor on the saturation's power.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.ADMITTER}),
    summary="Refuses sheddable requests the more often the fuller the pool is.",
    params=ProbabilisticAdmitterParams,
    consumes=(Consumes(WAITING_QUEUE, required=False), Consumes(KV_CACHE_USAGE, required=False)),
    wait="admission control",
)
