"""One look at a set-up: reads what there is, gives it to the checks, collects what they find.

Each subject is read apart, so that one that cannot be reached hides nothing of the others.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from epp.doctor.catalogue import finding, unique
from epp.doctor.certificates import check_agreement, check_served
from epp.doctor.cluster.look import ClusterLook, ClusterQuestion, look_at_cluster
from epp.doctor.configuration import check_configuration
from epp.doctor.documents import mapping, mappings, number
from epp.doctor.engine_pages import engine_reading, look_at_engines
from epp.doctor.engines import check_engines
from epp.doctor.envoy_counters import STATS_FILTER, check_counters, check_hosts
from epp.doctor.envoy_dump import EnvoySetup, is_envoy_config, read_setup
from epp.doctor.envoy_filter import check_filters, picker_cluster
from epp.doctor.envoy_routes import addresses, check_routes, speaks_tls, verifies
from epp.doctor.known import Picker, picker_of
from epp.doctor.kv_events import check_kv_events
from epp.doctor.picker import PickerPages, check_picker
from epp.doctor.pool import check_pool
from epp.doctor.probes import Answer, Pages, UnreadableError, served_certificate
from epp.doctor.profiles import check_profiles
from epp.doctor.queues import check_queues, longest_ttl_s
from epp.errors import Finding
from epp.framework.handle import MetricsFlags
from epp.framework.types import Endpoint

_ROUND_TRIPS = 5
"""Answers of ``/healthz`` of which the quickest counts: one late answer is the network's, five are the loop's."""
_NOT_THERE = 404


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at."""

    picker_url: str = ""
    """Base URL of the metrics port, without a slash at its end; empty = not looked at."""
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    """How https pages of the picker are verified; None = by the system's authorities."""
    envoy_admin: str = ""
    """Base URL of Envoy's admin interface."""
    envoy_config: Path | None = None
    """A config dump or a bootstrap document instead."""
    cluster: ClusterQuestion | None = None
    """Which pool of which cluster; None = not looked at."""
    grpc: tuple[str, int] | None = None
    """Host and port of ext_proc; None = as Envoy's configuration has it, or the pool."""
    endpoints: tuple[Endpoint, ...] = ()
    """Model servers beside those that the picker knows."""
    metrics_flags: MetricsFlags = field(default_factory=MetricsFlags)
    stale_s: float = 2.0
    timeout_s: float = 5.0


@dataclass(slots=True)
class Examination:
    """What was found, and what was looked at."""

    findings: list[Finding] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """Such as ``3 model servers``."""


async def examine(look: Look) -> Examination:
    """Look at everything that is named; nothing is changed anywhere."""
    result = Examination()
    async with Pages(look.timeout_s, look.token, look.tls) as own, Pages(look.timeout_s) as others:
        pages = await _picker(look, own, result)
        effective = mapping(mapping(pages.config).get("effective"))
        picker = picker_of(effective, longest_ttl_s(pages.queues or {})) if effective else Picker()
        setup = await _envoy(look, others, picker, result)
        cluster = await _cluster(look, pages, result)
        await _ports(look, setup, cluster, result)
        endpoints = _endpoints(look, pages, cluster)
        await _engines(look, endpoints, pages, effective or None, picker, others, result)
    result.findings = unique(result.findings)
    return result


async def _picker(look: Look, http: Pages, result: Examination) -> PickerPages:
    url = look.picker_url
    if not url:
        result.findings.append(_not_looked("the picker", "--picker"))
        return PickerPages("")
    try:
        trips = [await http.get(f"{url}/healthz") for _ in range(_ROUND_TRIPS)]
    except UnreadableError as error:
        result.findings.append(_unreadable(url, error, "give the address of the picker's metrics port with --picker"))
        return PickerPages(url)
    result.seen.append("the picker")
    metrics = await _page(http, f"{url}/metrics", result)
    pages = PickerPages(
        url,
        ready=await _json(http, f"{url}/readyz", result, accept=(200, 503)),
        config=await _json(http, f"{url}/debug/config", result),
        endpoints=await _json(http, f"{url}/debug/endpoints", result),
        plugins=await _newer(http, f"{url}/debug/plugins/state", result),
        queues=await _newer(http, f"{url}/debug/queues", result),
        shadow=await _newer(http, f"{url}/debug/shadow", result),
        kept=await _newer(http, f"{url}/debug/decisions?why=share&limit=1", result),
        metrics=metrics.body if metrics else None,
        response_s=min(trip.took_s for trip in trips),
        skew_s=trips[-1].skew_s,
    )
    result.findings += [*check_picker(pages), *check_configuration(pages), *check_queues(url, pages.queues or {})]
    result.findings += check_kv_events(url, pages.plugins or {}, pages.metrics or b"")
    if pages.endpoints is not None:
        result.findings += check_pool(url, pages.endpoints, look.stale_s)
        entries = mappings(pages.endpoints.get("endpoints"))
        effective = mapping(mapping(pages.config).get("effective"))
        result.findings += check_profiles(url, effective, [(_endpoint(entry), entry) for entry in entries])
    return pages


async def _envoy(look: Look, http: Pages, picker: Picker, result: Examination) -> EnvoySetup | None:
    admin = look.envoy_admin
    if look.envoy_config is not None:
        document, source = _file(look.envoy_config, result), str(look.envoy_config)
    elif admin:
        document, source = await _json(http, f"{admin}/config_dump", result), admin
    else:
        result.findings.append(_not_looked("Envoy", "--envoy-admin or --envoy-config"))
        return None
    if document is None:
        return None
    if not is_envoy_config(document):
        problem = "this is neither a config dump nor a bootstrap document of Envoy"
        result.findings.append(finding("DOC001", source, "", problem, "save what /config_dump of the admin interface answers"))
        return None
    setup = read_setup(document, source)
    result.seen.append("Envoy")
    result.findings += [*check_filters(setup, picker), *check_routes(setup, picker)]
    if admin and setup.uses:
        hosts = await _json(http, f"{admin}/clusters?format=json", result)
        stats = await _json(http, f"{admin}/stats?format=json&filter={quote(STATS_FILTER)}", result)
        result.findings += [*check_hosts(setup, hosts or {}), *check_counters(setup, stats or {})]
    return setup


async def _ports(look: Look, setup: EnvoySetup | None, cluster: ClusterLook, result: Examination) -> None:
    """The picker's ports with TLS: ext_proc, and the metrics port if it has it."""
    now = datetime.now(UTC)
    names = {picker_cluster(use) for use in setup.uses} if setup is not None else set()
    known = {name: setup.clusters[name] for name in sorted(names) if name in setup.clusters} if setup is not None else {}
    targets = [look.grpc] if look.grpc else [address for each in known.values() for address in _reachable(look, each)]
    targets = targets or ([cluster.grpc] if cluster.grpc else [])
    if not targets:
        result.findings.append(_not_looked("the picker's gRPC port", "--grpc"))
    for host, port in targets:
        served = await served_certificate(host, port, look.timeout_s)
        result.findings += check_served(served, now)
        for name, each in known.items():
            if look.grpc or (host, port) in addresses(each):
                encrypts, checks = speaks_tls(each), verifies(each)
                result.findings += check_agreement(served, f"clusters[{name}]", envoy_encrypts=encrypts, envoy_verifies=checks)
    url = urlsplit(look.picker_url)
    if url.scheme == "https" and url.hostname:
        result.findings += check_served(await served_certificate(url.hostname, url.port or 443, look.timeout_s), now)


def _reachable(look: Look, cluster: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The hosts of a cluster that mean the same here as where Envoy runs; those of a file may mean any machine."""
    if not look.envoy_admin:
        return []
    is_here = _is_loopback(urlsplit(look.envoy_admin).hostname or "")
    return [(host, port) for host, port in addresses(cluster) if is_here or not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


async def _cluster(look: Look, pages: PickerPages, result: Examination) -> ClusterLook:
    if look.cluster is None:
        result.findings.append(_not_looked("the cluster", "--pool-name"))
        return ClusterLook()
    known = None
    if pages.endpoints is not None:
        entries = mappings(pages.endpoints.get("endpoints"))
        known = {str(entry.get("id")): str(entry.get("address")) for entry in entries}
    seen = await look_at_cluster(look.cluster, pages.url, known, look.timeout_s)
    result.findings += seen.findings
    result.seen += [seen.seen] if seen.seen else []
    return seen


def _endpoints(look: Look, pages: PickerPages, cluster: ClusterLook) -> list[tuple[Endpoint, bool]]:
    """All model servers that can be looked at from here, each with whether the picker reads its page at the moment."""
    entries = mappings(mapping(pages.endpoints).get("endpoints"))
    found = [(_endpoint(entry), _is_read(entry)) for entry in entries]
    known = {endpoint.host_port for endpoint, _ in found}
    further = [endpoint for endpoint in cluster.endpoints if endpoint.host_port not in known]
    return [*((endpoint, False) for endpoint in (*look.endpoints, *further)), *found]


async def _engines(
    look: Look,
    endpoints: Sequence[tuple[Endpoint, bool]],
    pages: PickerPages,
    effective: Mapping[str, Any] | None,
    picker: Picker,
    http: Pages,
    result: Examination,
) -> None:
    if not endpoints:
        return
    source = pages.url or "--endpoint"
    reading = engine_reading(source, effective, look.metrics_flags)
    try:
        views = await look_at_engines(endpoints, reading, picker, http, look.timeout_s)
    finally:
        await reading.close()
    count = len(views)
    result.seen.append(f"{count} model server{'' if count == 1 else 's'}")
    result.findings += [*reading.findings, *check_engines(source, views, picker)]


def _is_read(entry: Mapping[str, Any]) -> bool:
    """Whether the picker reads the page of this endpoint at the moment."""
    return entry.get("ageSeconds") is not None and not mapping(entry.get("scraping")).get("failing")


def _endpoint(entry: Mapping[str, Any]) -> Endpoint:
    """The endpoint of an entry of ``/debug/endpoints``."""
    namespace, _, name = str(entry.get("id", "")).rpartition("/")
    host, _, port = str(entry.get("address", "")).rpartition(":")
    labels = {str(key): str(value) for key, value in mapping(entry.get("labels")).items()}
    return Endpoint.of(name, host.strip("[]"), number(port, 0), labels, namespace=namespace)


async def _page(http: Pages, url: str, result: Examination, accept: tuple[int, ...] = (200,)) -> Answer | None:
    try:
        return await http.get(url, accept=accept)
    except UnreadableError as error:
        result.findings.append(_unreadable(url, error, "see that the address is right and the way from here open"))
        return None


async def _json(http: Pages, url: str, result: Examination, accept: tuple[int, ...] = (200,)) -> Mapping[str, Any] | None:
    answer = await _page(http, url, result, accept)
    if answer is None or answer.status == _NOT_THERE:
        return None
    try:
        return answer.json(url)
    except UnreadableError as error:
        result.findings.append(_unreadable(url, error, "see that the address is that of the program that is meant"))
        return None


async def _newer(http: Pages, url: str, result: Examination) -> Mapping[str, Any] | None:
    """A page that pickers of an earlier release do not have."""
    return await _json(http, url, result, accept=(200, _NOT_THERE))


def _file(path: Path, result: Examination) -> Mapping[str, Any] | None:
    """A JSON or YAML document."""
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        result.findings.append(_unreadable(str(path), error.strerror or error, "name a file that exists"))
        return None
    except yaml.YAMLError as error:
        result.findings.append(_unreadable(str(path), error, "save what /config_dump of the admin interface answers"))
        return None
    return document if isinstance(document, Mapping) else {}


def _unreadable(source: str, error: object, fix: str) -> Finding:
    return finding("DOC001", source, "", str(error), fix)


def _not_looked(what: str, flag: str) -> Finding:
    return finding("DOC002", "", "", f"{what} was not looked at", f"give {flag}")
