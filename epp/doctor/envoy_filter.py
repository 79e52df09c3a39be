"""Findings about the ``ext_proc`` filter: modes, timeouts, failure mode, metadata, mutation rules, buffers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from epp.doctor.catalogue import finding
from epp.doctor.documents import Json, mapping, mappings, number
from epp.doctor.envoy_dump import EnvoySetup, Use, seconds
from epp.doctor.known import Picker
from epp.errors import Finding
from epp.framework.params import format_duration
from epp.request.headers import DESTINATION, LB_NAMESPACE, SUBSET_NAMESPACE

FULL_DUPLEX = "FULL_DUPLEX_STREAMED"
_MESSAGE_TIMEOUT_S = 0.2
"""Envoy's default. Source: envoy: api/envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto."""
_BUFFER_BYTES = 1024 * 1024
"""Envoy's default. Source: envoy: api/envoy/config/listener/v3/listener.proto."""
_BLIND_MODES = ("NONE", "STREAMED")
_BUFFERING = ("BUFFERED", "BUFFERED_PARTIAL")


def check_filters(setup: EnvoySetup, picker: Picker) -> list[Finding]:
    """All findings about all ``ext_proc`` filters of an Envoy."""
    if not setup.uses:
        return [
            finding(
                "ENV001",
                setup.source,
                "",
                "no listener has an active ext_proc filter, so no request reaches a picker",
                "take the filter from config/envoy/full-duplex.yaml",
            )
        ]
    found: list[Finding] = []
    for use in setup.uses:
        for check in (_calls_grpc, _modes, _timeout, _failure_mode, _rules, _metadata, _buffer):
            found += check(setup, use, picker)
    return found


def request_mode(use: Use) -> str:
    """The request body mode; absent is ``NONE``."""
    return str(_mode(use).get("request_body_mode", "NONE"))


def picker_cluster(use: Use) -> str:
    """Name of the cluster that the filter calls; empty if it calls none."""
    service = mapping(use.filter.get("grpc_service"))
    return str(mapping(service.get("envoy_grpc")).get("cluster_name", ""))


def _mode(use: Use) -> Json:
    return mapping(use.filter.get("processing_mode"))


def _calls_grpc(setup: EnvoySetup, use: Use, _picker: Picker) -> Iterator[Finding]:
    if not mapping(use.filter.get("grpc_service")):
        yield finding(
            "ENV001", setup.source, use.place, "the filter calls no gRPC service", "set grpc_service to the picker's cluster"
        )
    if use.filter.get("observability_mode"):
        yield finding(
            "ENV002",
            setup.source,
            f"{use.place}.observability_mode",
            "Envoy sends copies and ignores every answer, so the picker decides nothing",
            "remove observability_mode",
            value=True,
        )


def _modes(setup: EnvoySetup, use: Use, _picker: Picker) -> Iterator[Finding]:
    mode, place = _mode(use), f"{use.place}.processing_mode"
    request, response = request_mode(use), str(mode.get("response_body_mode", "NONE"))
    headers, trailers = str(mode.get("response_header_mode", "DEFAULT")), str(mode.get("response_trailer_mode", "DEFAULT"))

    def found(code: str, name: str, message: str, fix: str) -> Finding:
        return finding(code, setup.source, f"{place}.{name}", message, fix, value=mode.get(name))

    if mode.get("request_header_mode") == "SKIP":
        yield found("ENV003", "request_header_mode", "the picker sees no request and decides nothing", "set it to SEND")
    if request in _BLIND_MODES:
        why = f"with {request} the picker must decide at the headers, without knowing model and prompt"
        yield found("ENV004", "request_body_mode", why, f"set it to {FULL_DUPLEX}, with request_trailer_mode: SEND")
    if request == "BUFFERED_PARTIAL":
        why = "of a body above the listener's buffer the picker sees only the beginning, which no parser can read"
        yield found("ENV005", "request_body_mode", why, f"set it to {FULL_DUPLEX} or BUFFERED")
    if request == FULL_DUPLEX and mode.get("request_trailer_mode") != "SEND":
        why = f"Envoy refuses {FULL_DUPLEX} without trailers"
        yield found("ENV006", "request_trailer_mode", why, "set it to SEND")
    if response == FULL_DUPLEX and trailers != "SEND":
        why = f"Envoy refuses {FULL_DUPLEX} without trailers"
        yield found("ENV006", "response_trailer_mode", why, "set it to SEND")
    if response in _BUFFERING:
        why = "a streamed answer reaches its client only when it is over, and one above the buffer fails"
        yield found(
            "ENV007", "response_body_mode", why, f"set it to {FULL_DUPLEX}, or to NONE with response_trailer_mode: SEND"
        )
    if response == "NONE" and trailers != "SEND":
        after = "after the response headers" if headers != "SKIP" else "once the request is answered"
        why = f"Envoy ends the stream {after}, so requests that still run count as finished and servers look idle"
        yield found("ENV008", "response_trailer_mode", why, "set it to SEND, which sends no body and keeps the stream open")
    elif response == "NONE":
        why = "token counts, time to first token, the model's name after a rewrite and hooks on the response body are lost"
        yield found("ENV009", "response_body_mode", why, f"where they are wanted, set it to {FULL_DUPLEX}")


def _timeout(setup: EnvoySetup, use: Use, picker: Picker) -> Iterator[Finding]:
    place, text = f"{use.place}.message_timeout", use.filter.get("message_timeout")
    timeout_s = seconds(text, _MESSAGE_TIMEOUT_S)
    shown = f"{format_duration(timeout_s)}{'' if text else ' (the default)'}"
    needed_s, why = picker.decision_deadline_s, "a decision may take"
    if timeout_s < needed_s:
        limit = f"{shown} is less than the {format_duration(needed_s)} that {why}"
        if request_mode(use) == FULL_DUPLEX:
            message = f"{limit}; Envoy 1.40 does not apply it in full duplex, others may"
            yield finding("ENV011", setup.source, place, message, "set it to 300s, as the files in config/envoy do", value=text)
        else:
            message = f"{limit}, after which Envoy answers by itself or, with failure_mode_allow, lets the request pass"
            yield finding("ENV010", setup.source, place, message, "set it to 300s, as the files in config/envoy do", value=text)
    elif picker.queue_ttl_s is not None and timeout_s < picker.queue_ttl_s:
        longest = format_duration(picker.queue_ttl_s)
        message = f"{shown} is less than the {longest} that flow control lets requests wait: those that still do are cut"
        yield finding("ENV012", setup.source, place, message, f"set it above {longest}, or lower the TTL", value=text)


def _failure_mode(setup: EnvoySetup, use: Use, _picker: Picker) -> Iterator[Finding]:
    place = f"{use.place}.failure_mode_allow"
    removes = any(_removes_destination(entry) for entry in use.before)
    remedy = f"put a header_mutation filter that removes {DESTINATION} before ext_proc"
    if not use.filter.get("failure_mode_allow"):
        if not removes:
            message = f"where ext_proc does not run, a client's own {DESTINATION} stays"
            yield finding("ENV015", setup.source, use.place, message, remedy)
        return
    message = "while the picker is down or late, requests go on without a decision instead of failing"
    fix = "set it to false, unless the cluster has a fallback of its own, as override_host has"
    yield finding("ENV013", setup.source, place, message, fix, value=True)
    if not removes:
        message = f"a request that passes without a decision keeps its client's {DESTINATION}, and goes to any address it names"
        yield finding("ENV014", setup.source, place, message, remedy, value=True)


def _removes_destination(entry: Json) -> bool:
    mutations = mapping(mapping(entry.get("typed_config")).get("mutations"))
    return any(str(m.get("remove", "")).lower() == DESTINATION for m in mappings(mutations.get("request_mutations")))


def _rules(setup: EnvoySetup, use: Use, _picker: Picker) -> Iterator[Finding]:
    rules = mapping(use.filter.get("mutation_rules"))
    if not _allows(rules, DESTINATION):
        name = "disallow_expression" if _matches(rules.get("disallow_expression"), DESTINATION) else "disallow_all"
        place = f"{use.place}.mutation_rules.{name}"
        message = f"Envoy drops {DESTINATION} from the picker's answers, so no request has a destination"
        fix = "remove the rule, or let allow_expression match the header"
        yield finding("ENV016", setup.source, place, message, fix, value=rules.get(name))
    if use.filter.get("disable_immediate_response"):
        message = "a refusal of the picker (429, 503, 400) becomes an error of the stream, which clients see as 500"
        place = f"{use.place}.disable_immediate_response"
        yield finding("ENV017", setup.source, place, message, "remove disable_immediate_response", value=True)


def _allows(rules: Json, header: str) -> bool:
    """Source: envoy: source/extensions/filters/common/mutation_rules/mutation_rules.cc, ``isAllowed``."""
    if _matches(rules.get("disallow_expression"), header):
        return False
    return _matches(rules.get("allow_expression"), header) or not rules.get("disallow_all")


def _matches(expression: object, header: str) -> bool:
    pattern = mapping(expression).get("regex")
    if not isinstance(pattern, str):
        return False
    try:
        return re.fullmatch(pattern, header) is not None
    except re.error:  # RE2 knows some forms that Python does not
        return False


def _metadata(setup: EnvoySetup, use: Use, _picker: Picker) -> Iterator[Finding]:
    forwarded = _namespaces(use, "forwarding_namespaces")
    if SUBSET_NAMESPACE not in forwarded:
        message = f"metadata of {SUBSET_NAMESPACE} does not reach the picker, so a restriction to some endpoints has no effect"
        fix = f"where the data plane sends subset hints, list {SUBSET_NAMESPACE} in it"
        yield finding("ENV020", setup.source, f"{use.place}.metadata_options.forwarding_namespaces.untyped", message, fix)


def receives_decision(use: Use) -> bool:
    """Whether dynamic metadata of the decision passes."""
    return LB_NAMESPACE in _namespaces(use, "receiving_namespaces")


def forwards_served(use: Use) -> bool:
    """Whether the picker is told which endpoint answered."""
    return LB_NAMESPACE in _namespaces(use, "forwarding_namespaces")


def _namespaces(use: Use, name: str) -> list[object]:
    names = mapping(mapping(use.filter.get("metadata_options")).get(name)).get("untyped")
    return names if isinstance(names, list) else []


def _buffer(setup: EnvoySetup, use: Use, picker: Picker) -> Iterator[Finding]:
    if request_mode(use) not in _BUFFERING:
        return
    given = use.listener.get("per_connection_buffer_limit_bytes")
    limit = number(given, _BUFFER_BYTES)
    if limit < picker.max_body_bytes:
        place = f"listeners[{use.listener.get('name', '')}].per_connection_buffer_limit_bytes"
        message = (
            f"Envoy answers 413 to bodies above {limit} bytes{'' if given else ' (the default)'}, "
            f"though the picker takes {picker.max_body_bytes}"
        )
        fix = f"set it to {picker.max_body_bytes}, or use {FULL_DUPLEX}, which does not collect bodies"
        yield finding("ENV021", setup.source, place, message, fix, value=given)
