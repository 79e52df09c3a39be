"""topology-affinity-filter: keep endpoints near the other side of a disaggregated request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.keys import PEER_ENDPOINT, TOPOLOGY
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType, Reads
from epp.framework.types import InferenceRequest
from plugins.shared.topology import PEER_HEADER, Nearness, PeerLocator, check_peer_header, make_locator, nearness

TYPE = "topology-affinity-filter"


class TopologyAffinityFilterParams(Params):
    """Parameters of topology-affinity-filter."""

    min_affinity: Literal["host", "rack", "zone", "region"] = Field(
        default="host", description="Largest unit that both endpoints may share; a smaller one is as good."
    )
    topology_producer_name: Annotated[str, PluginReference(Role.EXTRACTOR)] = Field(
        default="", description="Extractor of the topology; default: topology-extractor."
    )
    peer_topology_header: Annotated[str, AfterValidator(check_peer_header)] = Field(
        default="", description=f"`{PEER_HEADER}` where a coordinator passes on the peer that another picker chose."
    )


class TopologyAffinityFilter:
    """Keep endpoints that share a unit of some size with the peer.

    Parameters: minAffinity, topologyProducerName, peerTopologyHeader.
    Reads: labels, as topology-extractor does; the peer that another profile picked, else the header.
    Formula: the smallest shared unit is ``minAffinity`` or smaller: host < rack < zone < region.
    Missing data: without a peer, or when nothing is near enough, all; what either does not know is not shared.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/topologyaffinity
    """

    def __init__(self, peers: PeerLocator, least: Nearness) -> None:
        self._peers = peers
        self._least = least

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that are near enough, or all."""
        peer = self._peers.peer(request)
        if peer is None:
            return candidates
        locate, least = self._peers.locate, self._least
        return candidates.where([nearness(peer, locate(e)) >= least for e in candidates.endpoints]) or candidates


def _create(context: PluginContext, params: TopologyAffinityFilterParams) -> Filter:
    peers = make_locator(context, params.topology_producer_name, params.peer_topology_header)
    return TopologyAffinityFilter(peers, Nearness[params.min_affinity.upper()])


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints near the other side of a disaggregated request.",
    params=TopologyAffinityFilterParams,
    factory=_create,
    consumes=(Consumes(TOPOLOGY, required=False), Consumes(PEER_ENDPOINT, required=False)),
    reads=Reads(request_headers=frozenset({PEER_HEADER})),
    experimental=True,
)
