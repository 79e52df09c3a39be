"""Findings about the pods of a pool: which its selector matches, which of them are endpoints, and what they declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from epp.discovery.kube_containers import MESH_PROXIES
from epp.discovery.kube_objects import ACTIVE_PORTS, Pod, Rank, read_pod, read_pool
from epp.doctor.catalogue import finding
from epp.doctor.cluster.pool import place_of
from epp.doctor.cluster.view import ClusterView, condition, labels_of, matches, name_of, selector_of, some
from epp.doctor.documents import Json, mapping, mappings, number
from epp.errors import Finding
from epp.flowcontrol.saturation import ROLE_LABELS
from epp.framework.types import Endpoint

_ROLES = frozenset(
    {"prefill", "decode", "encode", "both", "encode-prefill", "prefill-decode", "encode-prefill-decode"},
)
"""Values of the role labels. Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/bylabel/roles.go."""
_RANK_FLAGS = ("--data-parallel-rank", "--data-parallel-external-lb")
"""vLLM: one server of its own for each data-parallel rank."""


def check_pods(view: ClusterView) -> list[Finding]:
    """All findings."""
    pool = view.pool
    if pool is None or not view.pods.is_known:
        return []
    selector, place = selector_of(pool), f"{place_of(view)}: selector"
    if not selector:
        message = "it is empty, which selects no pod, so the picker answers 503"
        return [finding("KUB030", view.source, place, message, "give spec.selector the labels of the model servers' pods")]
    pods = [pod for pod in view.pods.items if matches(selector, labels_of(pod))]
    if not pods:
        return list(_no_pods(view, place, selector))
    found = [*_readiness(view, place, pods), *_picker_itself(view, place, pods), *_other_pools(view, place, pods)]
    ranks = read_pool(pool).ranks
    return [
        *found,
        *_ports(view, ranks, pods),
        *_active_ports(view, ranks, pods),
        *_roles(view, pods),
        *_ranks(view, ranks, pods),
    ]


def endpoints_of(view: ClusterView) -> list[Endpoint]:
    """The endpoints that a picker makes of these pods: one for each ready pod and target port."""
    pool = view.pool
    if pool is None or not view.pods.is_known or not (selector := selector_of(pool)):
        return []
    pods = [read_pod(pod) for pod in view.pods.items if matches(selector, labels_of(pod))]
    return [
        Endpoint.of(f"{pod.name}-rank-{rank.position}", pod.address, rank.port, pod.labels, namespace=pod.namespace)
        for pod in pods
        if pod.is_eligible
        for rank in read_pool(pool).ranks
        if pod.active_ports is None or rank.port in pod.active_ports
    ]


def check_known(view: ClusterView, url: str, known: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the picker has the endpoints that it should have.

    Args:
        url: of the picker.
        known: id → ``host:port`` of its endpoints.
    """
    if view.pool is None or not view.pods.is_known:
        return
    expected = {endpoint.id: endpoint.host_port for endpoint in endpoints_of(view)}
    lacking = sorted(expected.items() - known.items())
    surplus = sorted(known.items() - expected.items())
    fix = "see that this is the pool's picker; what changes at this moment passes, else look for 'pool' in its log"
    if lacking:
        message = f"the picker does not know {some([f'{name} ({address})' for name, address in lacking])}, which the pool has"
        yield finding("KUB040", url, "/debug/endpoints", message, fix, value=len(lacking))
    if surplus:
        message = f"the picker knows {some([f'{name} ({address})' for name, address in surplus])}, which the pool has not"
        yield finding("KUB040", url, "/debug/endpoints", message, fix, value=len(surplus))


def _no_pods(view: ClusterView, place: str, selector: Json) -> Iterator[Finding]:
    shown = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    near = [
        f"{name_of(pod)} has {key}={labels_of(pod)[key]}"
        for pod in view.pods.items
        for key, value in selector.items()
        if key in labels_of(pod) and labels_of(pod)[key] != value
    ]
    hint = f"; {some(near)}" if near else ""
    message = f"no pod in the namespace {view.namespace} has the labels {shown}, so the picker answers 503{hint}"
    fix = "give the model servers' pods these labels, or correct spec.selector; pods of other namespaces never match"
    yield finding("KUB031", view.source, place, message, fix, value=shown)


def _readiness(view: ClusterView, place: str, pods: Sequence[Json]) -> Iterator[Finding]:
    unready = [pod for pod in pods if not read_pod(pod).is_eligible]
    if not unready:
        return
    shown = some([f"{name_of(pod)} ({_why_unready(pod)})" for pod in unready])
    if len(unready) == len(pods):
        message = f"it matches {len(pods)} pods and none is ready, so the picker answers 503: {shown}"
        yield finding("KUB032", view.source, place, message, "look at the pods' events and logs", value=len(pods))
    else:
        message = f"{len(unready)} of {len(pods)} pods are not ready and get no requests: {shown}"
        yield finding("KUB033", view.source, place, message, "look at the pods' events and logs", value=len(unready))


def _why_unready(pod: Json) -> str:
    status = mapping(pod.get("status"))
    if "deletionTimestamp" in mapping(pod.get("metadata")):
        return "is being deleted"
    for state in mappings(status.get("containerStatuses")):
        waiting = mapping(mapping(state.get("state")).get("waiting"))
        if waiting.get("reason"):
            return f"{state.get('name')}: {waiting['reason']}"
    if condition(status, "Ready").get("status") == "True":
        return "has no address"
    ready = condition(status, "Ready")
    scheduled = condition(status, "PodScheduled")
    reason = scheduled.get("reason") if scheduled.get("status") == "False" else ready.get("reason")
    return str(reason or status.get("phase") or "no condition Ready")


def _picker_itself(view: ClusterView, place: str, pods: Sequence[Json]) -> Iterator[Finding]:
    names = {name_of(pod) for pod in view.picker_pods}
    if own := [name_of(pod) for pod in pods if name_of(pod) in names]:
        message = f"it matches the picker's own pods, which then get requests that they cannot serve: {some(own)}"
        fix = "select by labels that only model servers have"
        yield finding("KUB034", view.source, place, message, fix, value=len(own))


def _other_pools(view: ClusterView, place: str, pods: Sequence[Json]) -> Iterator[Finding]:
    for group, read in view.pools.items():
        for other in read.items:
            if name_of(other) == view.name:  # told already where it is in the other group
                continue
            selector = selector_of(other)
            shared = [name_of(pod) for pod in pods if selector and matches(selector, labels_of(pod))]
            if shared:
                what = f"InferencePool {name_of(other)}" + (f" of {group}" if group != view.group else "")
                message = f"{len(shared)} of its pods are in {what}, too; each picker sees a part of their load: {some(shared)}"
                yield finding("KUB035", view.source, place, message, "let selectors differ in a label", value=name_of(other))


def _ports(view: ClusterView, ranks: Sequence[Rank], pods: Sequence[Json]) -> Iterator[Finding]:
    """Ports may be left out of a container's list; one that lists some and not this one is a mistake more often than not."""
    for rank in ranks:
        lacking: list[str] = []
        listed: set[int] = set()
        for pod in pods:
            active = read_pod(pod).active_ports
            ports = _declared(pod)
            if ports and rank.port not in ports and (active is None or rank.port in active):
                lacking.append(name_of(pod))
                listed |= ports
        if lacking:
            shown = ", ".join(map(str, sorted(listed)))
            message = f"{len(lacking)} pods list no such port, only {shown}: {some(lacking)}"
            fix = "correct spec.targetPorts, or list the port in the container if it listens there"
            place = f"{place_of(view)}: targetPorts[{rank.position}]={rank.port}"
            yield finding("KUB036", view.source, place, message, fix, value=rank.port)


def _declared(pod: Json) -> set[int]:
    spec = mapping(pod.get("spec"))
    containers = [*mappings(spec.get("containers")), *mappings(spec.get("initContainers"))]  # a proxy may be an init container
    ports = [port for each in containers if each.get("name") not in MESH_PROXIES for port in mappings(each.get("ports"))]
    return {number(port.get("containerPort"), 0) for port in ports}


def _active_ports(view: ClusterView, ranks: Sequence[Rank], pods: Sequence[Json]) -> Iterator[Finding]:
    targets = {rank.port for rank in ranks}
    for pod in map(read_pod, pods):
        if pod.active_ports is not None and not pod.active_ports & targets:
            named = ", ".join(map(str, sorted(pod.active_ports))) or "nothing"
            message = f"its annotation names {named}, which is none of the pool's ports, so it is no endpoint"
            fix = f"name some of {', '.join(map(str, sorted(targets)))} in {ACTIVE_PORTS[0]}, or remove the annotation"
            yield finding("KUB037", view.source, f"Pod {pod.name}", message, fix, value=named)


def _roles(view: ClusterView, pods: Sequence[Json]) -> Iterator[Finding]:
    problems: dict[str, list[str]] = {}
    for pod in map(read_pod, pods):
        for problem in _role_problems(pod):
            problems.setdefault(problem, []).append(pod.name)
    for problem, names in problems.items():
        fix = f"give each pod one of these labels, with one of {', '.join(sorted(_ROLES))}"
        yield finding("KUB038", view.source, f"{place_of(view)}: pods", f"{problem}: {some(names)}", fix)


def _role_problems(pod: Pod) -> Iterator[str]:
    given = {label: pod.labels[label] for label in ROLE_LABELS if label in pod.labels}
    if len(set(given.values())) > 1:
        shown = " and ".join(f"{label}={value}" for label, value in given.items())
        yield f"pods have {shown}, of which only the first counts"
    for label, value in given.items():
        if value not in _ROLES:
            yield f"pods have {label}={value}, which is no role, so no stage uses them"


def _ranks(view: ClusterView, ranks: Sequence[Rank], pods: Sequence[Json]) -> Iterator[Finding]:
    targets = {rank.port for rank in ranks}
    unknown: dict[int, list[str]] = {}
    for pod in pods:
        for container in mappings(mapping(pod.get("spec")).get("containers")):
            words = [str(word) for key in ("command", "args") for word in container.get(key) or ()]
            port = _port_of(words)
            if any(word.partition("=")[0] in _RANK_FLAGS for word in words) and port and port not in targets:
                unknown.setdefault(port, []).append(name_of(pod))
    for port, names in unknown.items():
        message = f"a data-parallel rank serves on port {port}, which is no target port, so it gets no requests: {some(names)}"
        fix = f"add {port} to spec.targetPorts"
        yield finding("KUB039", view.source, f"{place_of(view)}: targetPorts", message, fix, value=port)


def _port_of(words: Sequence[str]) -> int:
    for index, word in enumerate(words):
        if word.startswith("--port="):
            return number(word.partition("=")[2], 0)
        if word == "--port" and index + 1 < len(words):
            return number(words[index + 1], 0)
    return 0
