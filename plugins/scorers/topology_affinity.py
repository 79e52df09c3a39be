"""topology-affinity-scorer: prefer endpoints near the other side of a disaggregated request."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import PEER_ENDPOINT, TOPOLOGY
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType, Reads
from epp.framework.types import InferenceRequest
from plugins.shared.topology import PEER_HEADER, Nearness, PeerLocator, check_peer_header, make_locator, nearness

TYPE = "topology-affinity-scorer"

SCORES = {Nearness.HOST: 1.0, Nearness.RACK: 0.20, Nearness.ZONE: 0.05, Nearness.REGION: 0.02, Nearness.NONE: 0.0}
"""In proportion to the bandwidth between the two: inside a host, one switch, several, another data centre."""


class TopologyAffinityScorerParams(Params):
    """Parameters of topology-affinity-scorer."""

    topology_producer_name: Annotated[str, PluginReference(Role.EXTRACTOR)] = Field(
        default="", description="Extractor of the topology; default: topology-extractor."
    )
    peer_topology_header: Annotated[str, AfterValidator(check_peer_header)] = Field(
        default="", description=f"`{PEER_HEADER}` where a coordinator passes on the peer that another picker chose."
    )


class TopologyAffinityScorer:
    """Score by the smallest unit that the endpoint shares with the peer.

    Parameters: topologyProducerName, peerTopologyHeader.
    Reads: labels, as topology-extractor does; the peer that another profile picked, else the header.
    Formula: same host 1.0, rack 0.2, zone 0.05, region 0.02, nothing 0.0.
    Missing data: without a peer 0.0 for all; what either does not know is not shared.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/topologyaffinity
    """

    def __init__(self, peers: PeerLocator) -> None:
        self._peers = peers

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        peer = self._peers.peer(request)
        if peer is None:
            return [0.0] * len(candidates)
        locate = self._peers.locate
        return [SCORES[nearness(peer, locate(endpoint))] for endpoint in candidates.endpoints]


def _create(context: PluginContext, params: TopologyAffinityScorerParams) -> Scorer:
    return TopologyAffinityScorer(make_locator(context, params.topology_producer_name, params.peer_topology_header))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints near the other side of a disaggregated request.",
    params=TopologyAffinityScorerParams,
    factory=_create,
    consumes=(Consumes(TOPOLOGY, required=False), Consumes(PEER_ENDPOINT, required=False)),
    reads=Reads(request_headers=frozenset({PEER_HEADER})),
    experimental=True,
)
