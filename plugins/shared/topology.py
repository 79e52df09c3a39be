"""Where endpoints run and how near two of them are; shared by the topology extractor, filter and scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from epp.framework.handle import PluginContext
from epp.framework.interfaces import LocatesEndpoints
from epp.framework.keys import PEER_ENDPOINT, TOPOLOGY, Topology
from epp.framework.types import Endpoint, InferenceRequest

PEER_HEADER = "x-peer-topology"
"""Request header that llm-d's coordinator sets where another picker chose the peer."""

Locate = Callable[[Endpoint], Topology]


class Nearness(IntEnum):
    """The smallest unit that two endpoints share; more is nearer."""

    NONE = 0
    REGION = 1
    ZONE = 2
    RACK = 3
    HOST = 4


@dataclass(frozen=True, slots=True)
class TopologyLabels:
    """The labels that tell where an endpoint runs."""

    hostname: str = "kubernetes.io/hostname"
    rack: str = "topology.kubernetes.io/rack"
    zone: str = "topology.kubernetes.io/zone"
    region: str = "topology.kubernetes.io/region"

    def topology(self, endpoint: Endpoint) -> Topology:
        """Where the endpoint runs; without a host label its node's address is the host."""
        label = endpoint.labels.get
        return Topology(
            hostname=label(self.hostname) or endpoint.node_address,
            rack=label(self.rack) or "",
            zone=label(self.zone) or "",
            region=label(self.region) or "",
        )


def nearness(one: Topology, other: Topology) -> Nearness:
    """The smallest unit that both name alike; what either does not know is not shared."""
    if one.hostname and one.hostname == other.hostname:
        return Nearness.HOST
    if one.rack and one.rack == other.rack:
        return Nearness.RACK
    if one.zone and one.zone == other.zone:
        return Nearness.ZONE
    if one.region and one.region == other.region:
        return Nearness.REGION
    return Nearness.NONE


class PeerLocator:
    """Finds where the other side of a disaggregated request runs.

    Args:
        locate: of endpoints.
        header: request header to read where no profile of this picker chose the peer; "" = none.
    """

    def __init__(self, locate: Locate, header: str = "") -> None:
        self.locate = locate
        self._header = header.lower()

    def peer(self, request: InferenceRequest) -> Topology | None:
        """Where the peer runs; None if there is no peer."""
        endpoint = request.data.get(PEER_ENDPOINT)
        if endpoint is not None:
            return self.locate(endpoint)
        text = request.headers.get(self._header) if self._header else None
        return parse_topology(text) if text else None


def parse_topology(text: str) -> Topology:
    """The topology of ``host=…,rack=…,zone=…,region=…``; unknown keys and what is no pair are passed over."""
    pairs = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    return Topology(pairs.get("host", ""), pairs.get("rack", ""), pairs.get("zone", ""), pairs.get("region", ""))


def check_peer_header(name: str) -> str:
    """A name that can be used: upstream's coordinator knows only one.

    Raises:
        ValueError: another.
    """
    if name and name.lower() != PEER_HEADER:
        raise ValueError(f"peerTopologyHeader must be {PEER_HEADER}, which coordinators send; it is {name!r}")
    return name


def make_locator(context: PluginContext, producer: str, header: str) -> PeerLocator:
    """The locator of a plugin with these parameters.

    Raises:
        ValueError: the named producer does not know where endpoints run.
    """
    extractor = context.writer(TOPOLOGY, producer)
    if isinstance(extractor, LocatesEndpoints):
        return PeerLocator(extractor.topology, header)
    if producer:
        raise ValueError(f"topologyProducerName {producer!r} is not an extractor of topology")
    return PeerLocator(TopologyLabels().topology, header)
