"""multicluster-queue-, -kv-cache-utilization- and -prefix-cache-scorer: rate whole clusters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import CLUSTER_KV_CACHE_USAGE, CLUSTER_QUEUE, PREFIX_CACHE_MATCH
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType

_WAIT = "multi-cluster routing"


class MulticlusterPrefixCacheScorerParams(Params):
    """Parameters of multicluster-prefix-cache-scorer."""

    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    match_length_weight: float = Field(
        default=0.0, ge=0, le=1, description="Share of the score that the absolute length of the match decides."
    )
    match_length_scale_tokens: Int = Field(default=8192, gt=0, description="Matched tokens at which that share is full.")


QUEUE = PluginType(
    type="multicluster-queue-scorer",
    roles=frozenset({Role.SCORER}),
    summary="Prefers clusters with short waiting queues.",
    consumes=(Consumes(CLUSTER_QUEUE, required=False),),
    experimental=True,
    wait=_WAIT,
)

KV_CACHE_UTILIZATION = PluginType(
    type="multicluster-kv-cache-utilization-scorer",
    roles=frozenset({Role.SCORER}),
    summary="Prefers clusters with free KV caches.",
    consumes=(Consumes(CLUSTER_KV_CACHE_USAGE, required=False),),
    experimental=True,
    wait=_WAIT,
)

PREFIX_CACHE = PluginType(
    type="multicluster-prefix-cache-scorer",
    roles=frozenset({Role.SCORER}),
    summary="Prefers clusters that were sent prompts with the same beginning.",
    params=MulticlusterPrefixCacheScorerParams,
    consumes=(Consumes(PREFIX_CACHE_MATCH.by("multicluster-approx-prefix-cache-producer")),),
    experimental=True,
    wait=_WAIT,
)

PLUGINS = (QUEUE, KV_CACHE_UTILIZATION, PREFIX_CACHE)
