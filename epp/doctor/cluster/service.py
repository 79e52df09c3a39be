"""Findings about the Service that a pool names as its picker: whether gateways reach a picker by it."""

from __future__ import annotations

from collections.abc import Iterator

from epp.doctor.catalogue import finding
from epp.doctor.cluster.pool import nearest, place_of
from epp.doctor.cluster.pools_file import entry_of
from epp.doctor.cluster.view import ClusterView, condition, name_of, some
from epp.doctor.cluster.workload import Workload
from epp.doctor.documents import Json, mapping, mappings, number
from epp.errors import Finding

_SPEAKS_NO_HTTP2 = ("http", "kubernetes.io/ws", "kubernetes.io/wss")


def check_service(view: ClusterView, workload: Workload | None) -> list[Finding]:
    """All findings.

    Args:
        workload: the picker behind the Service, if that is known.
    """
    reference, place = view.picker_ref, f"{place_of(view)}: endpointPickerRef"
    if not reference.get("name"):
        message = "it names no picker, so a gateway has nobody to ask"
        fix = "set spec.endpointPickerRef to the picker's Service and its port"
        return [finding("KUB010", view.source, place, message, fix)]
    found = list(_failure_mode(view, place, reference))
    kind = str(reference.get("kind") or "Service")
    if kind != "Service" or reference.get("group"):
        what = f"{kind} {reference.get('name')}"
        return [
            *found,
            finding("DOC003", view.source, place, f"the picker is a {what}, which is not looked at", "look at it by hand"),
        ]
    if not view.services.is_known:
        return found
    service = view.service
    if service is None:
        name = str(reference["name"])
        hint = nearest(name, [name_of(item) for item in view.services.items])
        message = f"the namespace {view.namespace} has no Service {name}, so no request reaches a picker; {hint}"
        return [*found, finding("KUB011", view.source, place, message, "create it, or correct the name", value=name)]
    spec = mapping(service.get("spec"))
    if spec.get("type") == "ExternalName":
        message = f"the Service {name_of(service)} is an ExternalName, which gateways must not follow"
        return [*found, finding("KUB012", view.source, place, message, "use a Service with a selector")]
    return [*found, *_port(view, place, service, workload), *_endpoints(view, service)]


def _failure_mode(view: ClusterView, place: str, reference: Json) -> Iterator[Finding]:
    if reference.get("failureMode") == "FailOpen":
        message = "failureMode is FailOpen: while no picker answers, the gateway chooses endpoints by itself and nobody notices"
        yield finding("KUB018", view.source, place, message, "set FailClose where such requests do harm", value="FailOpen")


def _port(view: ClusterView, place: str, service: Json, workload: Workload | None) -> Iterator[Finding]:
    wanted = number(mapping(view.picker_ref.get("port")).get("number"), 0)
    ports = mappings(mapping(service.get("spec")).get("ports"))
    port = next((entry for entry in ports if entry.get("port") == wanted), None)
    if port is None:
        known = ", ".join(f"{entry.get('port')} ({entry.get('name', 'unnamed')})" for entry in ports) or "none"
        message = f"the Service {name_of(service)} has no port {wanted}; it has {known}"
        fix = "name the Service's port, which need not be the container's"
        yield finding("KUB013", view.source, place, message, fix, value=wanted)
        return
    protocol = str(port.get("appProtocol") or "").lower()
    at = f"Service {name_of(service)}: port {wanted}"
    if protocol in _SPEAKS_NO_HTTP2:
        message = f"appProtocol {port['appProtocol']} is not HTTP/2 to gateways that read it, and the picker speaks gRPC"
        yield finding(
            "KUB014", view.source, at, message, "set it to kubernetes.io/h2c, or leave it out", value=port["appProtocol"]
        )
    if workload is not None:
        yield from _target(view, at, port, workload)


def _target(view: ClusterView, at: str, port: Json, workload: Workload) -> Iterator[Finding]:
    """Whether the port leads to where the picker listens."""
    target, declared = port.get("targetPort", port.get("port")), workload.declared_ports
    if isinstance(target, str) and not target.isdecimal():
        if target not in declared:
            message = f"no container of {workload.title} names a port {target!r}, so the Service leads nowhere"
            fix = f"name one of {', '.join(map(str, declared))}, or its number" if declared else "give the port's number"
            yield finding("KUB015", view.source, at, message, fix, value=target)
            return
        target = declared[target]
    listens, said_by = number(workload.flag("grpc-port"), 0), "--grpc-port"
    entry = entry_of(view, workload)
    if entry is not None and entry.grpc_port:
        listens, said_by = entry.grpc_port, "grpcPort of the pool in its pools file"
    if listens and number(target, listens) != listens:
        message = f"it leads to port {target}, but the picker serves ext_proc on {listens} ({said_by})"
        yield finding("KUB015", view.source, at, message, f"set targetPort to {listens}", value=target)


def _endpoints(view: ClusterView, service: Json) -> Iterator[Finding]:
    at = f"Service {name_of(service)}"
    if not view.slices.is_known:
        return
    addresses = [entry for piece in view.slices.items for entry in mappings(piece.get("endpoints"))]
    # What is not known counts as ready. Source: Kubernetes API reference, EndpointConditions.
    if any(mapping(entry.get("conditions")).get("ready") is not False and entry.get("addresses") for entry in addresses):
        return
    selector = mapping(mapping(service.get("spec")).get("selector"))
    fix = "start the picker; if it runs, look at /readyz on its metrics port"
    if not selector:
        why, fix = "it has no selector, and nobody has written its EndpointSlices", "give it the labels of the picker's pods"
    elif view.pods.is_known and not view.picker_pods:
        shown = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        why, fix = f"no pod has its labels {shown}", "correct spec.selector, or start the picker with these labels"
    else:
        unready = [
            name_of(pod) for pod in view.picker_pods if condition(mapping(pod.get("status")), "Ready").get("status") != "True"
        ]
        why = f"none of its pods is ready: {some(unready)}" if unready else "its EndpointSlices have no address that is ready"
    message = f"it leads to no picker that is ready, so every request fails or passes without a decision: {why}"
    yield finding("KUB016", view.source, at, message, fix)
