"""topology-affinity-filter: keep endpoints near the other side of a disaggregated request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PEER_ENDPOINT, TOPOLOGY
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "topology-affinity-filter"


class TopologyAffinityFilterParams(Params):
    """Parameters of topology-affinity-filter."""

    min_affinity: Literal["host", "rack", "zone", "region"] = Field(
        default="host", description="Smallest unit that both endpoints must share."
    )
    topology_producer_name: Annotated[str, PluginReference(Role.EXTRACTOR)] = Field(
        default="", description="Extractor of the topology; default: topology-extractor."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints near the other side of a disaggregated request.",
    params=TopologyAffinityFilterParams,
    consumes=(Consumes(TOPOLOGY, required=False), Consumes(PEER_ENDPOINT, required=False)),
    experimental=True,
    wait="topology",
)
