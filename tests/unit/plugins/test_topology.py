"""topology-extractor, topology-affinity-filter, topology-affinity-scorer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.candidates import Candidates
from epp.framework.keys import PEER_ENDPOINT, Topology
from epp.framework.testing import make_candidates, make_context, make_endpoint, make_plugin, make_request
from epp.framework.types import UNSCRAPED, Endpoint, InferenceRequest
from plugins.datalayer import topology as topology_extractor
from plugins.filters import topology_affinity as topology_filter
from plugins.scorers import topology_affinity as topology_scorer

LABELS = {
    "host": "kubernetes.io/hostname",
    "rack": "topology.kubernetes.io/rack",
    "zone": "topology.kubernetes.io/zone",
    "region": "topology.kubernetes.io/region",
}


def at(**place: str) -> dict[str, str]:
    return {LABELS[unit]: value for unit, value in place.items()}


PLACES = [
    at(host="h1", rack="r1", zone="z1", region="g1"),
    at(host="h2", rack="r1", zone="z1", region="g1"),
    at(host="h3", rack="r2", zone="z1", region="g1"),
    at(host="h4", rack="r3", zone="z2", region="g1"),
    at(host="h5", rack="r4", zone="z3", region="g2"),
    {},
]
CANDIDATES = make_candidates(len(PLACES), PLACES)


def request_near(peer: Endpoint | None, **headers: str) -> InferenceRequest:
    request = make_request(headers={name.replace("_", "-"): value for name, value in headers.items()})
    if peer is not None:
        request.data.set(PEER_ENDPOINT, peer)
    return request


def peer(**place: str) -> Endpoint:
    return Endpoint.of("peer", "192.168.9.9", 8000, at(**place))


def score(request: InferenceRequest, candidates: Candidates = CANDIDATES, **parameters: Any) -> list[float]:
    return list(make_plugin(topology_scorer.PLUGIN, parameters).score(request, candidates))


@pytest.mark.parametrize(
    ("near", "expected"),
    [
        pytest.param(peer(host="h1", rack="r1", zone="z1", region="g1"), [1, 0.2, 0.05, 0.02, 0, 0], id="all units known"),
        pytest.param(peer(zone="z1"), [0.05, 0.05, 0.05, 0, 0, 0], id="only the zone known"),
        pytest.param(peer(rack="r9", zone="z2"), [0, 0, 0, 0.05, 0, 0], id="C49 same zone, other rack"),
        pytest.param(peer(), [0, 0, 0, 0, 0, 0], id="peer without topology: empty equals nothing"),
        pytest.param(None, [0, 0, 0, 0, 0, 0], id="no peer"),
    ],
)
def test_score(near: Endpoint | None, expected: list[float]) -> None:
    assert score(request_near(near)) == expected


@pytest.mark.parametrize(
    ("least", "kept"),
    [("host", [0]), ("rack", [0, 1]), ("zone", [0, 1, 2]), ("region", [0, 1, 2, 3])],
)
def test_filter(least: str, kept: list[int]) -> None:
    plugin = make_plugin(topology_filter.PLUGIN, {"minAffinity": least})
    request = request_near(peer(host="h1", rack="r1", zone="z1", region="g1"))
    assert list(plugin.filter(request, CANDIDATES)) == [CANDIDATES[position] for position in kept]


@pytest.mark.parametrize(
    "near",
    [
        pytest.param(None, id="F17 no peer"),
        pytest.param(peer(), id="peer without topology"),
        pytest.param(peer(host="h9", rack="r1"), id="nothing near enough"),
    ],
)
def test_the_filter_keeps_all_when_it_cannot_tell(near: Endpoint | None) -> None:
    plugin = make_plugin(topology_filter.PLUGIN)
    assert plugin.filter(request_near(near), CANDIDATES) is CANDIDATES


def test_a_smaller_unit_counts_even_if_the_asked_one_is_unknown() -> None:
    candidates = make_candidates(2, [at(host="h1"), at(host="h2")])
    plugin = make_plugin(topology_filter.PLUGIN, {"minAffinity": "zone"})
    assert list(plugin.filter(request_near(peer(host="h1")), candidates)) == [candidates[0]]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("host=h2,rack=r1,zone=z1,region=g1", [0.2, 1, 0.05, 0.02, 0, 0], id="complete"),
        pytest.param("zone=z1", [0.05, 0.05, 0.05, 0, 0, 0], id="one unit"),
        pytest.param("cell=c,host,zone=z1", [0.05, 0.05, 0.05, 0, 0, 0], id="unknown and broken parts are passed over"),
        pytest.param("nonsense", [0, 0, 0, 0, 0, 0], id="nothing in it"),
    ],
)
def test_a_coordinator_may_name_the_peers_place(header: str, expected: list[float]) -> None:
    request = request_near(None, x_peer_topology=header)
    assert score(request, peerTopologyHeader="X-Peer-Topology") == expected
    assert score(request) == [0.0] * len(PLACES)


def test_a_peer_of_this_picker_wins_over_the_header() -> None:
    request = request_near(peer(host="h5"), x_peer_topology="host=h1")
    assert score(request, peerTopologyHeader="x-peer-topology") == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("plugin_type", [topology_filter.PLUGIN, topology_scorer.PLUGIN], ids=lambda t: t.type)
def test_no_other_header_is_possible(plugin_type: Any) -> None:
    with pytest.raises(ValidationError, match="peerTopologyHeader must be x-peer-topology"):
        plugin_type.params.decode({"peerTopologyHeader": "x-mine"})


def test_without_a_host_label_the_node_is_the_host() -> None:
    extractor = make_plugin(topology_extractor.PLUGIN)
    endpoint = replace(make_endpoint(), node_address="192.168.0.7")
    assert extractor.topology(endpoint) == Topology(hostname="192.168.0.7")
    assert extractor.topology(replace(CANDIDATES[0], node_address="192.168.0.7")) == Topology("h1", "r1", "z1", "g1")


@pytest.mark.parametrize("producer", ["", "mine"], ids=["found by what it writes", "by name"])
def test_the_extractors_labels_are_used(producer: str) -> None:
    extractor = make_plugin(topology_extractor.PLUGIN, {"hostname": "node"})
    context = make_context(mine=extractor)
    context.writers = {"Topology": "mine"}
    scorer = make_plugin(topology_scorer.PLUGIN, {"topologyProducerName": producer}, context)
    candidates = make_candidates(2, [{"node": "n1"}, at(host="n1")])
    near = Endpoint.of("peer", "192.168.9.9", 8000, {"node": "n1"})
    assert scorer.score(request_near(near), candidates) == [1.0, 0.0]


def test_a_producer_that_knows_no_places_is_refused() -> None:
    with pytest.raises(ValueError, match="topologyProducerName 'x' is not an extractor of topology"):
        make_plugin(topology_scorer.PLUGIN, {"topologyProducerName": "x"}, make_context(x=object()))


def test_the_attribute_is_written_once() -> None:
    extractor = make_plugin(topology_extractor.PLUGIN)
    metrics, problems, is_fresh = extractor.extract(b"", CANDIDATES[0], UNSCRAPED)
    assert metrics.attributes == {"Topology": Topology("h1", "r1", "z1", "g1")}
    assert (problems, is_fresh) == ((), False)
    assert extractor.extract(b"", CANDIDATES[0], metrics)[0] is metrics
