"""Findings about what a running Envoy has counted: the health of the picker's hosts, and requests that went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from epp.doctor.catalogue import finding
from epp.doctor.documents import Json, mapping, mappings, number
from epp.doctor.envoy_dump import EnvoySetup
from epp.doctor.envoy_filter import picker_cluster
from epp.errors import Finding

STATS_FILTER = r"ext_proc\.|upstream_(cx|rq)_.*overflow"
"""What is asked of ``/stats``: a regular expression."""
_FILTER_COUNTERS = {
    "message_timeouts": (
        "ENV051",
        "Envoy gave up waiting for the picker {count} times since its start",
        "raise message_timeout; if it is long already, look for what keeps the picker waiting",
    ),
    "failure_mode_allowed": (
        "ENV052",
        "{count} requests passed without a decision since Envoy's start",
        "find out why the picker failed (its log, its readiness), and set failure_mode_allow to false",
    ),
    "rejected_header_mutations": (
        "ENV053",
        "Envoy rejected {count} header changes of the picker since its start",
        "relax mutation_rules of the filter",
    ),
}
_OVERFLOWS = (
    "upstream_cx_overflow",
    "upstream_rq_pending_overflow",
    "upstream_rq_active_overflow",
    "upstream_rq_retry_overflow",
)


def check_hosts(setup: EnvoySetup, clusters: Json) -> Iterator[Finding]:
    """Of ``/clusters?format=json``: whether a picker is there."""
    names = {picker_cluster(use) for use in setup.uses}
    for status in mappings(clusters.get("cluster_statuses")):
        name = str(status.get("name", ""))
        hosts = mappings(status.get("host_statuses"))
        if name not in names or any(_is_healthy(mapping(host.get("health_status"))) for host in hosts):
            continue
        message = f"none of {len(hosts)} hosts is healthy" if hosts else "there is no host"
        fix = "start the picker; if it runs, compare address, port and TLS with the cluster, and look at its readiness"
        yield finding("ENV050", setup.source, f"clusters[{name}]", message, fix, value=len(hosts))


def _is_healthy(status: Json) -> bool:
    """No check has failed; also where nothing checks."""
    return not any(value is True for value in status.values()) and status.get("eds_health_status") in (
        None,
        "HEALTHY",
        "UNKNOWN",
    )


def check_counters(setup: EnvoySetup, stats: Json) -> Iterator[Finding]:
    """Of ``/stats?format=json``: what has happened since Envoy's start."""
    counts = {str(entry.get("name", "")): number(entry.get("value"), 0) for entry in mappings(stats.get("stats"))}
    yield from _filter_counts(setup, counts)
    for name in setup.clusters:
        turned_away = {key: count for key in _OVERFLOWS if (count := counts.get(f"cluster.{name}.{key}", 0))}
        if turned_away:
            what = ", ".join(f"{key} {count}" for key, count in turned_away.items())
            message = f"limits of the cluster were reached since Envoy's start: {what}"
            fix = "raise circuit_breakers.thresholds of the cluster"
            yield finding("ENV054", setup.source, f"clusters[{name}]", message, fix, value=sum(turned_away.values()))


def _filter_counts(setup: EnvoySetup, counts: Mapping[str, int]) -> Iterator[Finding]:
    for name, count in counts.items():
        head, _, counter = name.rpartition(".")
        if count and counter in _FILTER_COUNTERS and head.endswith("ext_proc"):
            code, message, fix = _FILTER_COUNTERS[counter]
            yield finding(code, setup.source, name, message.format(count=count), fix, value=count)
