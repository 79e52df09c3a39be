"""topology-extractor: host, rack, zone and region of each endpoint, from its labels."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.keys import TOPOLOGY
from epp.framework.params import Params
from epp.framework.registry import PluginType

TYPE = "topology-extractor"


class TopologyExtractorParams(Params):
    """Parameters of topology-extractor."""

    hostname: str = Field(default="kubernetes.io/hostname", min_length=1, description="Label with the host.")
    rack: str = Field(default="topology.kubernetes.io/rack", min_length=1, description="Label with the rack.")
    zone: str = Field(default="topology.kubernetes.io/zone", min_length=1, description="Label with the zone.")
    region: str = Field(default="topology.kubernetes.io/region", min_length=1, description="Label with the region.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.EXTRACTOR}),
    summary="Reads host, rack, zone and region of each endpoint from its labels.",
    params=TopologyExtractorParams,
    produces=(TOPOLOGY,),
    experimental=True,
    wait="topology",
)
