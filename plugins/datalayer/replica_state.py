"""redis-syncer and local-syncer: state that several replicas of the picker share."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import DurationS, Int, Params
from epp.framework.registry import Alias, PluginType


class RedisSyncerParams(Params):
    """Parameters of redis-syncer."""

    address: str = Field(default="localhost:6379", description="Host and port of the server.")
    password: str = Field(default="", repr=False, description="Password; empty = none.")
    db: Int = Field(default=0, ge=0, description="Number of the database.")
    ttl: DurationS = Field(default=180.0, gt=0, description="How long what a replica wrote is kept.")


REDIS = PluginType(
    type="redis-syncer",
    roles=frozenset({Role.CROSS_REPLICA_SYNCER}),
    summary="Shares state between replicas through Redis.",
    params=RedisSyncerParams,
    aliases=(Alias("redis-state-store"),),
    wait="state shared between replicas",
)

LOCAL = PluginType(
    type="local-syncer",
    roles=frozenset({Role.CROSS_REPLICA_SYNCER}),
    summary="Keeps that state in one process.",
    wait="state shared between replicas",
)

PLUGINS = (REDIS, LOCAL)
