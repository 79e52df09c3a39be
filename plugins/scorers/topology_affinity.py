"""topology-affinity-scorer: prefer endpoints near the other side of a disaggregated request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PEER_ENDPOINT, TOPOLOGY
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "topology-affinity-scorer"


class TopologyAffinityScorerParams(Params):
    """Parameters of topology-affinity-scorer."""

    topology_producer_name: Annotated[str, PluginReference(Role.EXTRACTOR)] = Field(
        default="", description="Extractor of the topology; default: topology-extractor."
    )
    peer_topology_header: str = Field(
        default="", description="Request header with the peer's topology, where another picker chose the peer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints near the other side of a disaggregated request.",
    params=TopologyAffinityScorerParams,
    consumes=(Consumes(TOPOLOGY, required=False), Consumes(PEER_ENDPOINT, required=False)),
    experimental=True,
    wait="topology",
)
