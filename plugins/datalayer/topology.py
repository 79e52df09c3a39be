"""topology-extractor: host, rack, zone and region of each endpoint, from its labels."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Extraction, Role
from epp.framework.keys import TOPOLOGY, Topology
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, EndpointMetrics
from plugins.shared.topology import TopologyLabels

TYPE = "topology-extractor"
_DEFAULT = TopologyLabels()


class TopologyExtractorParams(Params):
    """Parameters of topology-extractor."""

    hostname: str = Field(default=_DEFAULT.hostname, min_length=1, description="Label with the host.")
    rack: str = Field(default=_DEFAULT.rack, min_length=1, description="Label with the rack.")
    zone: str = Field(default=_DEFAULT.zone, min_length=1, description="Label with the zone.")
    region: str = Field(default=_DEFAULT.region, min_length=1, description="Label with the region.")


class TopologyExtractor:
    """Tells where endpoints run.

    It needs no source: the topology filter and scorer ask it for the endpoints at hand. Bound to a source of endpoint events
    it also writes the attribute.

    Reads: labels; without a host label the address of the node. Writes: the attribute Topology.
    Missing data: what no label tells is "", which is near to nothing.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/extractor/topology
    """

    input = "endpoint-notification"

    def __init__(self, labels: TopologyLabels) -> None:
        self._labels = labels

    def topology(self, endpoint: Endpoint) -> Topology:
        """Where the endpoint runs."""
        return self._labels.topology(endpoint)

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        """The metrics with the attribute; ``previous`` itself if it is there already."""
        topology = self.topology(endpoint)
        if previous.attributes.get(TOPOLOGY.name) == topology:
            return Extraction(previous)
        return Extraction(replace(previous, attributes={**previous.attributes, TOPOLOGY.name: topology}))


def _create(context: PluginContext, params: TopologyExtractorParams) -> TopologyExtractor:
    return TopologyExtractor(TopologyLabels(params.hostname, params.rack, params.zone, params.region))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.EXTRACTOR}),
    summary="Reads host, rack, zone and region of each endpoint from its labels.",
    params=TopologyExtractorParams,
    factory=_create,
    produces=(TOPOLOGY,),
    experimental=True,
    example="""
        plugins:
        - type: topology-extractor
        - type: topology-affinity-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: topology-affinity-scorer
          - pluginRef: max-score-picker
    """,
)
