"""Pods → endpoints: the store equals what the pods say, whatever happened before, and servers keep what is known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.cluster.watch import Change
from epp.datalayer.objects import LEGACY_GROUP, POOL_GROUP
from epp.datalayer.store import EndpointStore
from epp.discovery.kube_containers import Container, Run, read_containers, serving
from epp.discovery.kube_objects import VERSIONS, Pod, PoolSpec, Rank, ranks_of, read_pod, read_pool
from epp.discovery.kube_sync import PoolSync
from epp.framework.types import EndpointChange, EndpointId, EndpointMetrics


def pod(name: str = "a", **more: Any) -> Pod:
    """A ready pod."""
    fields: dict[str, Any] = {
        "namespace": "n", "uid": f"uid-{name}", "address": "10.0.0.1", "node_address": "", "labels": {"app": "m"},
        "active_ports": None, "is_ready": True,
    }  # fmt: skip
    return Pod(name=name, **(fields | more))


PORTS = ranks_of((8000,))


class Listener:
    """Remembers what plugins are told."""

    def __init__(self) -> None:
        self.changes: list[tuple[list[str], list[str], list[str]]] = []

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.changes.append(
            ([e.name for e in change.added], [e.name for e in change.updated], [e.name for e in change.removed])
        )


class Rig:
    """A store that a PoolSync fills."""

    def __init__(self, metrics_port: int = 0) -> None:
        self.store = EndpointStore()
        self.listener = Listener()
        self.store.subscribe(self.listener)
        self.sync = PoolSync(self.store, metrics_port)

    @property
    def addresses(self) -> dict[str, str]:
        """Name → address:port."""
        return {endpoint.name: endpoint.host_port for endpoint in self.store}


def test_metadata_of_an_endpoint() -> None:
    rig = Rig()
    rig.sync.replace([pod(node_address="10.9.9.9")], ranks_of((8000, 8001)))
    endpoint = rig.store.get(EndpointId("n/a-rank-1"))
    assert endpoint is not None
    assert (endpoint.name, endpoint.pod_name, endpoint.namespace, endpoint.rank_index) == ("a-rank-1", "a", "n", 1)
    assert (endpoint.address, endpoint.port, endpoint.metrics_host) == ("10.0.0.1", 8001, "10.0.0.1:8001")
    assert (endpoint.node_address, dict(endpoint.labels)) == ("10.9.9.9", {"app": "m"})


def test_k37_ipv6() -> None:
    rig = Rig()
    rig.sync.replace([pod(address="fd00::1")], PORTS)
    (endpoint,) = rig.store
    assert (endpoint.address, endpoint.metrics_host) == ("fd00::1", "[fd00::1]:8000")


@pytest.mark.parametrize(("ports", "host"), [((8000,), "10.0.0.1:9400"), ((8000, 8001), "10.0.0.1:8000")])
def test_the_metrics_port_counts_for_one_target_port_only(ports: tuple[int, ...], host: str) -> None:
    rig = Rig(metrics_port=9400)
    rig.sync.replace([pod()], ranks_of(ports))
    assert next(iter(rig.store)).metrics_host == host


def test_k11_k12_a_change_of_labels_keeps_the_metrics_and_an_equal_pod_is_no_change() -> None:
    rig = Rig()
    rig.sync.replace([pod()], PORTS)
    rig.store.set_metrics(EndpointId("n/a-rank-0"), EndpointMetrics(waiting_queue=3), 1.0)
    rig.sync.change([Change(pod(labels={"app": "m", "color": "red"}), is_deleted=False)])
    rig.sync.change([Change(pod(labels={"app": "m", "color": "red"}), is_deleted=False)])
    assert rig.listener.changes == [(["a-rank-0"], [], []), ([], ["a-rank-0"], [])]
    assert rig.store.metrics(EndpointId("n/a-rank-0")).waiting_queue == 3


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.2"])
def test_k13_another_pod_of_the_same_name_starts_from_nothing(address: str) -> None:
    rig = Rig()
    rig.sync.replace([pod()], PORTS)
    rig.store.set_metrics(EndpointId("n/a-rank-0"), EndpointMetrics(waiting_queue=3), 1.0)
    again = pod(uid="another", address=address)
    rig.sync.change([Change(pod(), is_deleted=True), Change(again, is_deleted=False)])
    assert rig.listener.changes[1:] == [(["a-rank-0"], [], ["a-rank-0"])]
    assert rig.store.metrics(EndpointId("n/a-rank-0")).waiting_queue is None
    assert rig.store.updated_s(EndpointId("n/a-rank-0")) is None


def test_k30_a_new_list_leaves_alone_what_stays() -> None:
    rig = Rig()
    rig.sync.replace([pod("a"), pod("b")], PORTS)
    before = rig.store.get(EndpointId("n/a-rank-0"))
    rig.sync.replace([pod("a"), pod("c")], PORTS)
    assert rig.store.get(EndpointId("n/a-rank-0")) is before
    assert rig.listener.changes[1:] == [(["c-rank-0"], [], ["b-rank-0"])]


MODEL = EndpointId("n/a-rank-0")


def run(container: str = "x", restarts: int = 0, ready: str = "True", **statuses: Any) -> dict[str, Any]:
    """A pod as the API server sends it: a routing sidecar with the pool's port in front of an engine.

    Args:
        container: id of the engine's container; "" = not told.
        restarts: of the engine; negative = not told.
        statuses: the whole status of other containers, by name.
    """
    engine = {"name": "vllm"} | ({"containerID": container} if container else {})
    engine |= {"restartCount": restarts} if restarts >= 0 else {}
    others = [{"name": name, "containerID": told, "restartCount": 0} for name, told in statuses.items()]
    spec = {
        "initContainers": [
            {"name": "routing-proxy", "image": "p", "restartPolicy": "Always", "ports": [{"containerPort": 8000}]}
        ],
        "containers": [
            {"name": "vllm", "image": "e", "ports": [{"containerPort": 8200}]},
            {"name": "istio-proxy", "image": "m", "ports": [{"containerPort": 8000}]},
            {"name": "proxy", "image": "ghcr.io/llm-d/llm-d-routing-sidecar:v1", "ports": [{"containerPort": 8000}]},
        ],
    }
    status = {
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [engine, *others],
        "initContainerStatuses": [{"name": "routing-proxy", "containerID": others[0]["containerID"] if others else "i"}],
    }
    return {"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": spec, "status": status}


ANEW, GONE_AND_BACK = [(["a-rank-0"], [], ["a-rank-0"])], [([], [], ["a-rank-0"]), (["a-rank-0"], [], [])]


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        pytest.param([run("x"), run("x")], [], id="the same container"),
        pytest.param([run("x"), run("y", 1)], ANEW, id="a restart whose unready time was not heard of"),
        pytest.param([run("x"), run("y", 0)], ANEW, id="the count began anew"),
        pytest.param([run("x"), run("x", 1)], [], id="the id goes before the count"),
        pytest.param([run("", 0), run("", 1)], ANEW, id="counts alone"),
        pytest.param([run("", 1), run("", 0)], [], id="a count that fell"),
        pytest.param([run("", -1), run("x")], [], id="told for the first time"),
        pytest.param([run("", -1), run("", 3)], [], id="counted for the first time"),
        pytest.param([run("x"), run("", -1), run("x")], [], id="not told for a while"),
        pytest.param([run("x"), run("", -1), run("y", 1)], ANEW, id="restarted while it was not told"),
        pytest.param([run("x"), run("", 1), run("y", 1)], ANEW, id="counted first, then named"),
        pytest.param([run("x"), run("x", ready="False"), run("y", 1, ready="False"), run("y", 1)], GONE_AND_BACK, id="unready"),
        pytest.param([run("x"), run("y", 1, ready="False"), run("y", 1)], GONE_AND_BACK, id="unready with a new container"),
        pytest.param([run(proxy="p"), run(proxy="q")], [], id="a routing sidecar"),
        pytest.param([run(**{"istio-proxy": "p"}), run(**{"istio-proxy": "q"})], [], id="a mesh's sidecar"),
    ],
)
def test_a_container_that_is_started_anew_is_another_server(steps: list[Any], changes: list[Any]) -> None:
    rig = Rig()
    rig.sync.replace([read_pod(steps[0])], PORTS)
    rig.store.set_metrics(MODEL, EndpointMetrics(waiting_queue=3), 1.0)
    for step in steps[1:]:
        rig.sync.change([Change(read_pod(step), is_deleted=False)])
    assert rig.listener.changes[1:] == changes
    assert rig.store.metrics(MODEL).waiting_queue == (None if changes else 3)


def test_a_restart_is_seen_in_a_new_list_too() -> None:
    rig = Rig()
    rig.sync.replace([read_pod(run("x"))], PORTS)
    rig.sync.replace([read_pod(run("y", 1))], PORTS)
    assert rig.listener.changes[1:] == ANEW


@pytest.mark.parametrize(
    ("containers", "port", "names"),
    [
        ({"vllm": [8000], "logs": [9000]}, 8000, ["vllm"]),
        ({"vllm": [], "logs": [9000]}, 8000, ["vllm", "logs"]),
        ({"one": [8000], "two": [8001]}, 8001, ["two"]),
        ({"vllm": [8200], "routing-proxy": [8000]}, 8000, ["vllm"]),
        ({"vllm": [8200], "my-routing-sidecar": [8000], "linkerd-proxy": [8000]}, 8000, ["vllm"]),
        ({}, 8000, []),
    ],
)
def test_the_container_behind_a_port(containers: dict[str, list[int]], port: int, names: list[str]) -> None:
    spec = {"containers": [{"name": n, "ports": [{"containerPort": p} for p in ports]} for n, ports in containers.items()]}
    assert [container.name for container in serving(read_containers(spec, {}), port)] == names


def test_only_the_ranks_of_the_container_that_was_started_anew() -> None:
    spec = {"containers": [{"name": n, "ports": [{"containerPort": p}]} for n, p in (("one", 8000), ("two", 8001))]}

    def ranks(*ids: str) -> Pod:
        statuses = [{"name": n, "containerID": told} for n, told in zip(("one", "two"), ids, strict=True)]
        return pod(containers=read_containers(spec, {"containerStatuses": statuses}))

    rig = Rig()
    rig.sync.replace([ranks("x", "y")], ranks_of((8000, 8001)))
    rig.sync.change([Change(ranks("x", "z"), is_deleted=False)])
    assert rig.listener.changes[1:] == [(["a-rank-1"], [], ["a-rank-1"])]


PODS = st.builds(
    pod,
    name=st.sampled_from("abc"),
    uid=st.sampled_from(["one", "two"]),
    address=st.sampled_from(["", "10.0.0.1", "10.0.0.2"]),
    labels=st.sampled_from([{}, {"x": "1"}]),
    active_ports=st.sampled_from([None, frozenset[int](), frozenset({8001})]),
    is_ready=st.booleans(),
    containers=st.sampled_from([(), (Container("c", frozenset(), Run("x", 0)),), (Container("c", frozenset(), Run("y", 1)),)]),
)
RANKS = st.lists(st.sampled_from([8000, 8001, 8002]), max_size=4).map(lambda ports: ranks_of(tuple(ports)))
STEPS = st.one_of(
    st.tuples(st.just("replace"), st.lists(PODS, unique_by=lambda found: found.name), RANKS),
    st.tuples(st.just("change"), st.lists(st.builds(Change, PODS, st.booleans()), min_size=1, max_size=4)),
    st.tuples(st.just("ranks"), RANKS),
)


def expected(pods: dict[str, Pod], ranks: tuple[Rank, ...]) -> dict[str, tuple[str, dict[str, str]]]:
    """What must be in the store."""
    return {
        f"{found.name}-rank-{rank.position}": (f"{found.address}:{rank.port}", dict(found.labels))
        for found in pods.values()
        if found.is_ready and found.address
        for rank in ranks
        if found.active_ports is None or rank.port in found.active_ports
    }


@given(st.lists(STEPS, max_size=12))
def test_the_store_equals_what_the_pods_say(steps: list[Any]) -> None:
    rig = Rig()
    pods: dict[str, Pod] = {}
    ranks: tuple[Rank, ...] = ()
    for step in steps:
        match step:
            case ("replace", listed, new_ranks):
                pods, ranks = {found.name: found for found in listed}, new_ranks
                rig.sync.replace(listed, ranks)
            case ("change", changes):
                for found, is_deleted in changes:
                    pods.pop(found.name, None)
                    if not is_deleted:
                        pods[found.name] = found
                rig.sync.change(changes)
            case ("ranks", ranks):
                rig.sync.use_ranks(ranks)
        assert {e.name: (e.host_port, dict(e.labels)) for e in rig.store} == expected(pods, ranks)
    known: set[str] = set()
    for added, updated, removed in rig.listener.changes:
        assert set(removed) <= known
        known -= set(removed)
        assert not known & set(added)
        assert set(updated) <= known
        known |= set(added)
        assert added or updated or removed
    assert known == set(rig.addresses)


# ── reading ──


def test_an_object_of_a_pod_that_says_nothing() -> None:
    read = read_pod({"metadata": {"name": "a", "namespace": "n"}})
    assert read == pod(uid="", address="", labels={}, is_ready=False)
    assert not read.is_eligible


@pytest.mark.parametrize(
    ("annotations", "active"),
    [
        ({}, None),
        ({"llm-d.ai/active-ports": ""}, set()),
        ({"llm-d.ai/active-ports": " 8000x, +8001 ,y,-2"}, {8000, 8001, -2}),
        ({"inference.networking.k8s.io/active-ports": "1"}, {1}),
        ({"inference.networking.k8s.io/active-ports": "1", "llm-d.ai/active-ports": "2"}, {2}),
    ],
)
def test_ports_of_a_pod(annotations: dict[str, str], active: set[int] | None) -> None:
    assert read_pod({"metadata": {"name": "a", "namespace": "n", "annotations": annotations}}).active_ports == active


def test_both_groups_of_pools() -> None:
    metadata = {"name": "p", "namespace": "n", "uid": "u"}
    ports = [{"number": 8000}, {"number": 8001}]
    current = {"selector": {"matchLabels": {"b": "2", "a": "1"}}, "targetPorts": ports, "appProtocol": "http"}
    older = {"selector": {"b": "2", "a": "1"}, "targetPortNumber": 8000}
    expected_pool = PoolSpec("p", "n", "u", "a=1,b=2", ranks_of((8000, 8001)), "http")
    assert read_pool({"metadata": metadata, "spec": current}) == expected_pool
    assert read_pool({"metadata": metadata, "spec": older}) == replace(expected_pool, ranks=ranks_of((8000,)), app_protocol="")
    assert set(VERSIONS) == {POOL_GROUP, LEGACY_GROUP}


@pytest.mark.parametrize(
    ("ports", "ranks"),
    [
        ([8000, 0, 8000, 8001, 70000, None], [(0, 8000), (3, 8001)]),
        ([], []),
    ],
)
def test_ports_that_a_definition_would_have_refused(ports: list[int], ranks: list[tuple[int, int]]) -> None:
    assert list(ranks_of(ports)) == ranks


@pytest.mark.parametrize("spec", [{}, {"selector": {}}, {"selector": {"matchLabels": {}}}, {"selector": None}])
def test_k38_a_pool_that_selects_nothing(spec: dict[str, Any]) -> None:
    assert read_pool({"metadata": {"name": "p"}, "spec": spec}).selector == ""
