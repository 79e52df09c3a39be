"""Findings about routes behind the picker and the clusters they and the filter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from epp.doctor.catalogue import finding, unique
from epp.doctor.documents import Json, mapping, mappings, number
from epp.doctor.envoy_dump import EnvoySetup, Use, seconds
from epp.doctor.envoy_filter import forwards_served, picker_cluster, receives_decision
from epp.doctor.known import Picker
from epp.errors import Finding
from epp.request.headers import DESTINATION, LB_NAMESPACE

DEFAULT_BREAKER = 1024
"""Envoy's limit of connections, pending and running requests of a cluster.
Source: envoy: api/envoy/config/cluster/v3/circuit_breaker.proto.
"""
_BREAKERS = ("max_connections", "max_pending_requests", "max_requests")
_DEFAULT_RETRIES = 3
_ROUTE_TIMEOUT_S = 15.0
"""Envoy's default of a route. Source: envoy: api/envoy/config/route/v3/route_components.proto."""
_SHORT_ROUTE_S = 600.0
"""Long answers of reasoning models take minutes; a limit above this was chosen."""
_IDLE_TIMEOUT_S = 300.0
_NO_TRAFFIC_S = 60.0
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_OVERRIDE_HOST = ".override_host.v3.OverrideHost"
_FAR_INTERVAL_S = 30.0


def check_routes(setup: EnvoySetup, picker: Picker) -> list[Finding]:
    """All findings about routes and clusters; each cluster is told of once."""
    found: list[Finding] = []
    for use in setup.uses:
        found += _idle(setup, use)
        found += _destinations(setup, use, picker)
        found += _picker_side(setup, use)
        for place, route in use.routes:
            found += _route(setup, place, route)
    return unique(found)


def _idle(setup: EnvoySetup, use: Use) -> Iterator[Finding]:
    text = use.manager.get("stream_idle_timeout")
    idle_s = seconds(text, _IDLE_TIMEOUT_S)
    if 0 < idle_s <= _IDLE_TIMEOUT_S:
        place = f"listeners[{use.listener.get('name', '')}].stream_idle_timeout"
        message = (
            f"a request is ended after {idle_s:g} s of silence{'' if text else ' (the default)'}, as a long prefill is silent"
        )
        yield finding("ENV037", setup.source, place, message, "set it to 0s", value=text)


def _destinations(setup: EnvoySetup, use: Use, picker: Picker) -> Iterator[Finding]:
    """Where the routes lead, and whether that is where the picker says."""
    ignoring: list[tuple[str, str]] = []
    followed = 0
    for place, name in _routed(use):
        cluster = setup.clusters.get(name)
        if cluster is None:
            message = f"the route leads to the cluster {name!r}, which does not exist"
            yield finding(
                "ENV032", setup.source, place, message, "define the cluster, or wait until it is delivered", value=name
            )
        elif follows_picker(cluster):
            followed += 1
            yield from _following(setup, use, name, cluster, picker)
            yield from _breakers(setup, name, cluster, retries=_has_retries(use))
        else:
            ignoring.append((place, name))
    code = "ENV031" if followed else "ENV030"
    for place, name in ignoring:
        message = f"the cluster {name!r} balances by itself, whatever the picker decides"
        fix = f"make it ORIGINAL_DST with use_http_header and http_header_name: {DESTINATION}, or give it override_host"
        yield finding(code, setup.source, place, message, fix, value=name)


def _routed(use: Use) -> Iterator[tuple[str, str]]:
    for place, route in use.routes:
        action = mapping(route.get("route"))
        if "cluster" in action:
            yield f"{place}.route.cluster", str(action["cluster"])
        for entry in mappings(mapping(action.get("weighted_clusters")).get("clusters")):
            yield f"{place}.route.weighted_clusters", str(entry.get("name", ""))


def follows_picker(cluster: Json) -> bool:
    """Whether the cluster sends a request where the picker says."""
    original = mapping(cluster.get("original_dst_lb_config"))
    if cluster.get("type") == "ORIGINAL_DST":
        by_header = original.get("use_http_header") and str(original.get("http_header_name", "")).lower() == DESTINATION
        return bool(by_header) or _is_destination(original.get("metadata_key"))
    return any(
        str(source.get("header", "")).lower() == DESTINATION or _is_destination(source.get("metadata"))
        for source in mappings(_override_host(cluster).get("override_host_sources"))
    )


def _override_host(cluster: Json) -> Json:
    for policy in mappings(mapping(cluster.get("load_balancing_policy")).get("policies")):
        config = mapping(mapping(policy.get("typed_extension_config")).get("typed_config"))
        if str(config.get("@type", "")).endswith(_OVERRIDE_HOST):
            return config
    return {}


def _is_destination(key: object) -> bool:
    steps = mappings(mapping(key).get("path"))
    return mapping(key).get("key") == LB_NAMESPACE and [step.get("key") for step in steps] == [DESTINATION]


def _following(setup: EnvoySetup, use: Use, name: str, cluster: Json, picker: Picker) -> Iterator[Finding]:
    place = f"clusters[{name}]"
    is_original = cluster.get("type") == "ORIGINAL_DST"
    if is_original and picker.max_endpoints > 1:
        message = f"the picker may name {picker.max_endpoints} addresses, and Envoy answers 503 to a list"
        fix = "leave maxNumOfEndpoints of the picker at 1, or use override_host (config/envoy/override-host-retry.yaml)"
        yield finding("ENV039", setup.source, f"{place}.original_dst_lb_config", message, fix, value=picker.max_endpoints)
    policy = _override_host(cluster)
    sources = mappings(policy.get("override_host_sources"))
    by_header = any("header" in source for source in sources) or mapping(cluster.get("original_dst_lb_config")).get(
        "use_http_header"
    )
    if not by_header and not receives_decision(use):
        message = f"the cluster {name!r} reads the destination from metadata of {LB_NAMESPACE}, which the filter drops"
        fix = f"list {LB_NAMESPACE} in receiving_namespaces.untyped"
        yield finding("ENV018", setup.source, f"{use.place}.metadata_options.receiving_namespaces.untyped", message, fix)
    if policy.get("selected_host_key") and not forwards_served(use):
        message = f"the cluster {name!r} notes which endpoint answered, but the picker does not hear it"
        fix = f"list {LB_NAMESPACE} in forwarding_namespaces.untyped"
        yield finding("ENV019", setup.source, f"{use.place}.metadata_options.forwarding_namespaces.untyped", message, fix)


def _breakers(setup: EnvoySetup, name: str, cluster: Json, *, retries: bool) -> Iterator[Finding]:
    limits = _limits(cluster)
    low = [key for key in _BREAKERS if limits[key] <= DEFAULT_BREAKER]
    if low:
        message = f"{', '.join(low)} of {min(limits[key] for key in low)}: more open requests at once get 503"
        fix = "set them to 40000 in circuit_breakers.thresholds"
        yield finding("ENV033", setup.source, f"clusters[{name}].circuit_breakers", message, fix, value=", ".join(low))
    if retries and limits["max_retries"] <= _DEFAULT_RETRIES:
        message = f"max_retries is {limits['max_retries']} for the whole cluster: a server that dies under load uses it up"
        fix = "set max_retries as high as max_requests"
        yield finding("ENV034", setup.source, f"clusters[{name}].circuit_breakers", message, fix, value=limits["max_retries"])


def _limits(cluster: Json) -> Mapping[str, int]:
    """Those of the default priority."""
    thresholds = mappings(mapping(cluster.get("circuit_breakers")).get("thresholds"))
    given: Json = next((entry for entry in thresholds if entry.get("priority", "DEFAULT") == "DEFAULT"), {})
    limits = {
        key: number(given.get(key), DEFAULT_BREAKER) for key in ("max_connections", "max_pending_requests", "max_requests")
    }
    return {**limits, "max_retries": number(given.get("max_retries"), _DEFAULT_RETRIES)}


def _has_retries(use: Use) -> bool:
    return any(mapping(mapping(route.get("route")).get("retry_policy")).get("retry_on") for _, route in use.routes)


def _picker_side(setup: EnvoySetup, use: Use) -> Iterator[Finding]:
    name = picker_cluster(use)
    if not name:
        return
    place, cluster = f"clusters[{name}]", setup.clusters.get(name)
    if cluster is None:
        message = f"the filter calls the cluster {name!r}, which does not exist"
        yield finding("ENV032", setup.source, f"{use.place}.grpc_service", message, "define the picker's cluster", value=name)
        return
    if not _speaks_http2(cluster):
        message = "gRPC needs HTTP/2, but the cluster speaks HTTP/1.1, so every stream to the picker fails"
        fix = f"give it {_HTTP_OPTIONS} with explicit_http_config: {{http2_protocol_options: {{}}}}"
        yield finding("ENV035", setup.source, place, message, fix)
    yield from _breakers(setup, name, cluster, retries=False)
    checks = mappings(cluster.get("health_checks"))
    if checks and all(seconds(check.get("no_traffic_interval"), _NO_TRAFFIC_S) > _FAR_INTERVAL_S for check in checks):
        message = "before the first request Envoy looks every 60 s only, so a picker that starts after it is found late"
        yield finding("ENV038", setup.source, f"{place}.health_checks", message, "set no_traffic_interval: 5s")


def _speaks_http2(cluster: Json) -> bool:
    if "http2_protocol_options" in cluster:
        return True
    options = mapping(mapping(cluster.get("typed_extension_protocol_options")).get(_HTTP_OPTIONS))
    return "http2_protocol_options" in mapping(options.get("explicit_http_config")) or any(
        key in options for key in ("use_downstream_protocol_config", "auto_config")
    )


def _route(setup: EnvoySetup, place: str, route: Json) -> Iterator[Finding]:
    action = mapping(route.get("route"))
    if not action:
        return
    text = action.get("timeout")
    timeout_s = seconds(text, _ROUTE_TIMEOUT_S)
    if 0 < timeout_s < _SHORT_ROUTE_S:
        message = f"a response that is not complete after {timeout_s:g} s{'' if text else ' (the default)'} is cut"
        yield finding("ENV036", setup.source, f"{place}.route.timeout", message, "set timeout: 0s", value=text)


def speaks_tls(cluster: Json) -> bool:
    """Whether Envoy encrypts towards this cluster."""
    return "tls" in str(mapping(cluster.get("transport_socket")).get("name", ""))


def verifies(cluster: Json) -> bool:
    """Whether Envoy checks the certificate that this cluster shows."""
    config = mapping(mapping(cluster.get("transport_socket")).get("typed_config"))
    validation = mapping(mapping(config.get("common_tls_context")).get("validation_context"))
    return bool(validation.get("trusted_ca") or validation.get("system_root_certs"))


def addresses(cluster: Json) -> list[tuple[str, int]]:
    """(host, port) of the hosts that the configuration itself has."""
    found = []
    for group in mappings(mapping(cluster.get("load_assignment")).get("endpoints")):
        for entry in mappings(group.get("lb_endpoints")):
            socket = mapping(mapping(mapping(entry.get("endpoint")).get("address")).get("socket_address"))
            if socket.get("address"):
                found.append((str(socket["address"]), number(socket.get("port_value"), 0)))
    return found
