"""Documents of Envoy → findings. Every case is one of the shipped bootstrap files with one thing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from epp.demo.envoy import Bootstrap, bootstrap_names, cluster, listener, render
from epp.doctor.envoy_counters import check_counters, check_hosts
from epp.doctor.envoy_dump import EnvoySetup, is_envoy_config, read_setup
from epp.doctor.envoy_filter import check_filters
from epp.doctor.envoy_routes import check_routes
from epp.doctor.known import Picker
from epp.errors import Finding, Severity

FILTER = "envoy.filters.http.ext_proc"
PLACE = f"listeners[inference].http_filters[{FILTER}]"
Change = Callable[[Bootstrap], object]


def manager(bootstrap: Bootstrap) -> dict[str, Any]:
    """The HttpConnectionManager, to be changed in place."""
    config: dict[str, Any] = listener(bootstrap)["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def ext_proc(bootstrap: Bootstrap) -> dict[str, Any]:
    """The filter's configuration, to be changed in place."""
    config: dict[str, Any] = next(f for f in manager(bootstrap)["http_filters"] if f["name"] == FILTER)["typed_config"]
    return config


def mode(bootstrap: Bootstrap) -> dict[str, Any]:
    modes: dict[str, Any] = ext_proc(bootstrap)["processing_mode"]
    return modes


def route(bootstrap: Bootstrap) -> dict[str, Any]:
    first: dict[str, Any] = manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"][0]
    return first


def without_removal(bootstrap: Bootstrap) -> None:
    manager(bootstrap)["http_filters"] = [f for f in manager(bootstrap)["http_filters"] if "header_mutation" not in f["name"]]


def by_metadata(bootstrap: Bootstrap) -> None:
    key = {"key": "envoy.lb", "path": [{"key": "x-gateway-destination-endpoint"}]}
    policy = cluster(bootstrap, "picked_endpoint")["load_balancing_policy"]["policies"][0]
    policy["typed_extension_config"]["typed_config"]["override_host_sources"] = [{"metadata": key}]
    ext_proc(bootstrap)["metadata_options"]["receiving_namespaces"] = {}


def one_plain_route(bootstrap: Bootstrap) -> None:
    routes = manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, {"match": {"prefix": "/ui"}, "route": {"cluster": "epp", "timeout": "0s"}})


def check(name: str, change: Change = lambda _: None, picker: Picker | None = None) -> list[Finding]:
    """The findings about a shipped file with one thing changed."""
    bootstrap = copy.deepcopy(render(name, epp_port=9002, endpoints=["127.0.0.1:8000"]))
    change(bootstrap)
    setup = read_setup(bootstrap, "envoy")
    return [*check_filters(setup, picker or Picker()), *check_routes(setup, picker or Picker())]


def short(findings: list[Finding]) -> dict[str, str]:
    """Code → path; notes left out."""
    return {found.code: found.path for found in findings if found.severity is not Severity.INFO}


@pytest.mark.parametrize("name", bootstrap_names())
def test_the_files_that_come_with_the_picker_have_nothing_to_say_but_notes(name: str) -> None:
    findings = check(name)
    assert short(findings) == {}
    assert {found.code for found in findings} <= {"ENV009"}


MODE = f"{PLACE}.processing_mode"
CASES: list[tuple[str, str, Change, dict[str, str]]] = [
    ("no filter", "full-duplex", lambda b: manager(b).update(http_filters=[]), {"ENV001": ""}),
    ("a filter that calls nobody", "full-duplex", lambda b: ext_proc(b).pop("grpc_service"), {"ENV001": PLACE}),
    ("a filter that is off", "full-duplex", lambda b: manager(b)["http_filters"][1].update(disabled=True), {"ENV001": ""}),
    (
        "observability",
        "full-duplex",
        lambda b: ext_proc(b).update(observability_mode=True),
        {"ENV002": f"{PLACE}.observability_mode"},
    ),
    (
        "no request headers",
        "full-duplex",
        lambda b: mode(b).update(request_header_mode="SKIP"),
        {"ENV003": f"{MODE}.request_header_mode"},
    ),
    (
        "no request body, which is the default",
        "full-duplex",
        lambda b: mode(b).pop("request_body_mode"),
        {"ENV004": f"{MODE}.request_body_mode"},
    ),
    (
        "streamed request body",
        "full-duplex",
        lambda b: mode(b).update(request_body_mode="STREAMED"),
        {"ENV004": f"{MODE}.request_body_mode"},
    ),
    (
        "partial request body",
        "buffered",
        lambda b: mode(b).update(request_body_mode="BUFFERED_PARTIAL"),
        {"ENV005": f"{MODE}.request_body_mode"},
    ),
    (
        "full duplex without request trailers",
        "full-duplex",
        lambda b: mode(b).pop("request_trailer_mode"),
        {"ENV006": f"{MODE}.request_trailer_mode"},
    ),
    (
        "full duplex without response trailers",
        "full-duplex",
        lambda b: mode(b).pop("response_trailer_mode"),
        {"ENV006": f"{MODE}.response_trailer_mode"},
    ),
    (
        "buffered responses",
        "full-duplex",
        lambda b: mode(b).update(response_body_mode="BUFFERED"),
        {"ENV007": f"{MODE}.response_body_mode"},
    ),
    (
        "bypass that loses the end",
        "bypass",
        lambda b: mode(b).update(response_trailer_mode="SKIP"),
        {"ENV008": f"{MODE}.response_trailer_mode"},
    ),
    (
        "Envoy's default timeout, in a mode where it counts",
        "buffered",
        lambda b: ext_proc(b).pop("message_timeout"),
        {"ENV010": f"{PLACE}.message_timeout"},
    ),
    ("just enough time", "buffered", lambda b: ext_proc(b).update(message_timeout="5s"), {}),
    (
        "just too little time",
        "buffered",
        lambda b: ext_proc(b).update(message_timeout="4.999s"),
        {"ENV010": f"{PLACE}.message_timeout"},
    ),
    (
        "little time in full duplex",
        "full-duplex",
        lambda b: ext_proc(b).update(message_timeout="1s"),
        {"ENV011": f"{PLACE}.message_timeout"},
    ),
    (
        "fail open, with the header removed",
        "full-duplex",
        lambda b: ext_proc(b).update(failure_mode_allow=True),
        {"ENV013": f"{PLACE}.failure_mode_allow"},
    ),
    (
        "fail open, and clients may choose",
        "full-duplex",
        lambda b: (without_removal(b), ext_proc(b).update(failure_mode_allow=True)),
        {"ENV013": f"{PLACE}.failure_mode_allow", "ENV014": f"{PLACE}.failure_mode_allow"},
    ),
    (
        "rules that forbid everything",
        "full-duplex",
        lambda b: ext_proc(b).update(mutation_rules={"disallow_all": True}),
        {"ENV016": f"{PLACE}.mutation_rules.disallow_all"},
    ),
    (
        "rules that forbid everything but the destination",
        "full-duplex",
        lambda b: ext_proc(b).update(mutation_rules={"disallow_all": True, "allow_expression": {"regex": "x-gateway-.*"}}),
        {},
    ),
    (
        "a rule that forbids the destination wins",
        "full-duplex",
        lambda b: ext_proc(b).update(
            mutation_rules={"disallow_expression": {"regex": "x-gateway.*"}, "allow_expression": {"regex": "x-.*"}}
        ),
        {"ENV016": f"{PLACE}.mutation_rules.disallow_expression"},
    ),
    (
        "no immediate responses",
        "full-duplex",
        lambda b: ext_proc(b).update(disable_immediate_response=True),
        {"ENV017": f"{PLACE}.disable_immediate_response"},
    ),
    (
        "destination in metadata that is dropped",
        "override-host-retry",
        by_metadata,
        {"ENV018": f"{PLACE}.metadata_options.receiving_namespaces.untyped"},
    ),
    (
        "served endpoint that is not told",
        "override-host-retry",
        lambda b: ext_proc(b)["metadata_options"].update(forwarding_namespaces={"untyped": ["envoy.lb.subset_hint"]}),
        {"ENV019": f"{PLACE}.metadata_options.forwarding_namespaces.untyped"},
    ),
    (
        "the default buffer",
        "buffered",
        lambda b: listener(b).pop("per_connection_buffer_limit_bytes"),
        {"ENV021": "listeners[inference].per_connection_buffer_limit_bytes"},
    ),
    (
        "a small buffer where nothing is buffered",
        "full-duplex",
        lambda b: listener(b).update(per_connection_buffer_limit_bytes=1),
        {},
    ),
    (
        "no route follows the picker",
        "full-duplex",
        lambda b: cluster(b, "picked_endpoint").update(type="STRICT_DNS"),
        {"ENV030": "routes[all#0].route.cluster"},
    ),
    (
        "another header than the picker's",
        "full-duplex",
        lambda b: cluster(b, "picked_endpoint")["original_dst_lb_config"].update(http_header_name="x-other"),
        {"ENV030": "routes[all#0].route.cluster"},
    ),
    ("one route does not follow the picker", "full-duplex", one_plain_route, {"ENV031": "routes[all#0].route.cluster"}),
    (
        "a route that leads nowhere",
        "full-duplex",
        lambda b: route(b)["route"].update(cluster="gone"),
        {"ENV032": "routes[all#0].route.cluster"},
    ),
    (
        "a picker that is nowhere",
        "full-duplex",
        lambda b: ext_proc(b)["grpc_service"]["envoy_grpc"].update(cluster_name="gone"),
        {"ENV032": f"{PLACE}.grpc_service"},
    ),
    (
        "default breakers towards the servers",
        "full-duplex",
        lambda b: cluster(b, "picked_endpoint").pop("circuit_breakers"),
        {"ENV033": "clusters[picked_endpoint].circuit_breakers"},
    ),
    (
        "default breakers towards the picker",
        "full-duplex",
        lambda b: cluster(b, "epp").update(circuit_breakers={"thresholds": [{"max_connections": 9999}]}),
        {"ENV033": "clusters[epp].circuit_breakers"},
    ),
    (
        "breakers of the other priority",
        "full-duplex",
        lambda b: cluster(b, "epp")["circuit_breakers"]["thresholds"][0].update(priority="HIGH"),
        {"ENV033": "clusters[epp].circuit_breakers"},
    ),
    (
        "three retries for all",
        "override-host-retry",
        lambda b: cluster(b, "picked_endpoint")["circuit_breakers"]["thresholds"][0].pop("max_retries"),
        {"ENV034": "clusters[picked_endpoint].circuit_breakers"},
    ),
    (
        "gRPC over HTTP/1.1",
        "full-duplex",
        lambda b: cluster(b, "epp").pop("typed_extension_protocol_options"),
        {"ENV035": "clusters[epp]"},
    ),
    (
        "Envoy's default timeout of routes",
        "full-duplex",
        lambda b: route(b)["route"].pop("timeout"),
        {"ENV036": "routes[all#0].route.timeout"},
    ),
]


@pytest.mark.parametrize(("name", "change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_thing_that_is_wrong_is_found_where_it_is(name: str, change: Change, expected: dict[str, str]) -> None:
    findings = check(name, change)
    assert short(findings) == expected
    assert all(found.fix and found.message and found.file == "envoy" for found in findings)


NOTES: list[tuple[str, Change, str]] = [
    ("full-duplex", without_removal, "ENV015"),
    ("full-duplex", lambda b: ext_proc(b).pop("metadata_options"), "ENV020"),
    ("full-duplex", lambda b: manager(b).pop("stream_idle_timeout"), "ENV037"),
    ("full-duplex", lambda b: cluster(b, "epp")["health_checks"][0].pop("no_traffic_interval"), "ENV038"),
]


@pytest.mark.parametrize(("name", "change", "code"), NOTES, ids=[case[2] for case in NOTES])
def test_what_is_only_worth_knowing_is_a_note(name: str, change: Change, code: str) -> None:
    findings = check(name, change)
    assert short(findings) == {}
    assert code in {found.code for found in findings}


OF_PICKERS: list[tuple[str, Picker, str, dict[str, str]]] = [
    ("queue shorter than the timeout", Picker(queue_ttl_s=60), "full-duplex", {}),
    ("queue longer than the timeout", Picker(queue_ttl_s=600), "full-duplex", {"ENV012": f"{PLACE}.message_timeout"}),
    (
        "several addresses for ORIGINAL_DST",
        Picker(max_endpoints=3),
        "full-duplex",
        {"ENV039": "clusters[picked_endpoint].original_dst_lb_config"},
    ),
    ("several addresses for override_host", Picker(max_endpoints=3), "override-host-retry", {}),
    (
        "smaller bodies than the buffer",
        Picker(max_body_bytes=2**30),
        "buffered",
        {"ENV021": "listeners[inference].per_connection_buffer_limit_bytes"},
    ),
]


@pytest.mark.parametrize(("picker", "name", "expected"), [c[1:] for c in OF_PICKERS], ids=[c[0] for c in OF_PICKERS])
def test_envoy_is_compared_with_what_the_picker_does(picker: Picker, name: str, expected: dict[str, str]) -> None:
    assert short(check(name, picker=picker)) == expected


def test_what_a_route_overrides_holds_for_that_route_alone() -> None:
    def change(bootstrap: Bootstrap) -> None:
        routes = manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"]
        chat = copy.deepcopy(routes[0])
        chat.update(name="chat", match={"prefix": "/chat"})
        overrides = {"failure_mode_allow": True, "processing_mode": {"request_header_mode": "SEND"}}
        chat["typed_per_filter_config"] = {FILTER: {"overrides": overrides}}
        off = copy.deepcopy(routes[0])
        off.update(match={"prefix": "/ui"}, typed_per_filter_config={FILTER: {"disabled": True}})
        off["route"]["cluster"] = "not looked at, as no picker decides there"
        routes[:0] = [chat, off]

    place = f"routes[chat].{FILTER}"
    expected = {
        "ENV004": f"{place}.processing_mode.request_body_mode",
        "ENV008": f"{place}.processing_mode.response_trailer_mode",
        "ENV013": f"{place}.failure_mode_allow",
    }
    assert short(check("full-duplex", change)) == expected


def as_dump(bootstrap: Bootstrap) -> dict[str, Any]:
    """The same as ``/config_dump`` of an Envoy that gets everything from a control plane, its routes apart."""
    routes = manager(bootstrap).pop("route_config")
    manager(bootstrap)["rds"] = {"route_config_name": routes["name"]}
    static = bootstrap["static_resources"]
    return {
        "configs": [
            {"dynamic_listeners": [{"name": "l", "active_state": {"listener": each}} for each in static["listeners"]]},
            {"dynamic_active_clusters": [{"cluster": each} for each in static["clusters"]]},
            {"dynamic_route_configs": [{"route_config": routes}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"},
        ]
    }


@pytest.mark.parametrize("change", [lambda _: None, *(case[2] for case in CASES if case[1] == "full-duplex")])
def test_a_dump_of_a_control_plane_gives_the_findings_of_the_bootstrap(change: Change) -> None:
    bootstrap = render("full-duplex", epp_port=9002)
    change(bootstrap)
    plain = read_setup(bootstrap, "envoy")
    dumped = read_setup(as_dump(copy.deepcopy(bootstrap)), "envoy")
    assert check_filters(dumped, Picker()) == check_filters(plain, Picker())
    assert check_routes(dumped, Picker()) == check_routes(plain, Picker())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"configs": None},
        {"configs": [1, {"static_listeners": [{"listener": {"filter_chains": [{"filters": [{"typed_config": []}]}]}}]}]},
        {"static_resources": {"listeners": {}, "clusters": "none"}},
    ],
)
def test_a_document_of_another_shape_has_no_filter(document: dict[str, Any]) -> None:
    assert [found.code for found in check_filters(read_setup(document, "envoy"), Picker())] == ["ENV001"]


def test_a_document_is_known_by_its_members() -> None:
    assert is_envoy_config({"configs": []})
    assert is_envoy_config({"static_resources": {}})
    assert not is_envoy_config({"listeners": []})
    assert not is_envoy_config([])


SETUP = read_setup(render("full-duplex", epp_port=9002), "envoy")


def host(**health: Any) -> dict[str, Any]:
    return {"health_status": {"eds_health_status": "HEALTHY", **health}}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([host()], []),
        ([host(failed_active_health_check=True), host()], []),
        ([host(failed_active_health_check=True)], ["ENV050"]),
        ([{"health_status": {"eds_health_status": "UNHEALTHY"}}], ["ENV050"]),
        ([], ["ENV050"]),
    ],
)
def test_a_picker_without_a_healthy_host_is_told(hosts: list[dict[str, Any]], expected: list[str]) -> None:
    page = {"cluster_statuses": [{"name": "epp", "host_statuses": hosts}, {"name": "picked_endpoint"}]}
    assert [found.code for found in check_hosts(SETUP, page)] == expected


COUNTERS = [
    ("http.inference.ext_proc.message_timeouts", "ENV051"),
    ("http.inference.ext_proc.failure_mode_allowed", "ENV052"),
    ("http.inference.ext_proc.rejected_header_mutations", "ENV053"),
    ("cluster.epp.upstream_rq_pending_overflow", "ENV054"),
    ("cluster.picked_endpoint.upstream_cx_overflow", "ENV054"),
    ("cluster.other.upstream_cx_overflow", None),
    ("http.inference.ext_proc.streams_started", None),
    ("cluster.epp.http2.header_overflow", None),
]


@pytest.mark.parametrize(("name", "code"), COUNTERS)
@pytest.mark.parametrize("count", [0, "7"])
def test_what_envoy_counted_is_told_once_it_happened(name: str, code: str | None, count: object) -> None:
    found = list(check_counters(SETUP, {"stats": [{"name": name, "value": count}, {"histograms": {}}]}))
    assert [each.code for each in found] == ([code] if code and count else [])
    assert all(each.value == 7 for each in found)


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    expected = [case[3] for case in (*CASES, *OF_PICKERS)]
    codes = {code for each in expected for code in each}
    return codes | {case[2] for case in NOTES} | {code for _, code in COUNTERS if code} | {"ENV009", "ENV050"}


def test_an_empty_setup_has_no_counters() -> None:
    empty = EnvoySetup("envoy")
    assert list(check_hosts(empty, {})) == []
    assert list(check_counters(empty, {})) == []
