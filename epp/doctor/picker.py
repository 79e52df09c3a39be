"""Findings about the picker itself, from its metrics port: readiness, event loop, plugins, memory, what it has decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings
from epp.errors import Finding
from epp.framework.prometheus_text import FamilyReader, Sample
from epp.process.options import Options
from epp.telemetry.catalogue import PREFIX

LATE_S = 0.1
"""A page without content takes a millisecond; the budget of one plugin call is ten."""
MAX_SKEW_S = 5.0
"""``Date`` counts whole seconds, and a look takes some time; more than this is no rounding."""
_FULL_SHARE = 0.8
_FEW_ATTEMPTS = 20
"""With fewer decisions a share says nothing."""
_MUCH_SHARE = 0.05
_FAILED = "failure"
_FOLLOWS = "not the leader"
_WAITS_LONG_S = 0.025
"""A pass over a full batch of decisions takes some 8 ms."""
_RARE_SHARE = 0.01
_MANY_REQUESTS = 1000
"""From here on a share of one in a hundred, the default, has kept some."""


@dataclass(frozen=True, slots=True)
class PickerPages:
    """What the metrics port answered; None where a page could not be had."""

    url: str
    ready: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    endpoints: Mapping[str, Any] | None = None
    plugins: Mapping[str, Any] | None = None
    queues: Mapping[str, Any] | None = None
    shadow: Mapping[str, Any] | None = None
    kept: Mapping[str, Any] | None = None
    """Decisions that were kept as part of the share."""
    metrics: bytes | None = None
    response_s: float | None = None
    """The quickest of some answers of ``/healthz``, seconds."""
    skew_s: float | None = None
    """Its clock less ours."""


def check_picker(pages: PickerPages) -> list[Finding]:
    """All findings about the process."""
    found = [*_ready(pages), *_loop(pages), *_clock(pages)]
    if pages.metrics is not None:
        url, page = pages.url, pages.metrics
        found += [*_handover(url, page), *_plugins(url, page), *_overruns(url, page), *_memory(url, page)]
        found += [*_caches(pages, page), *_attempts(url, page), *_kept(pages, page)]
    return found


def samples(page: bytes, name: str) -> Sequence[Sample]:
    """All series of one of the picker's families."""
    return FamilyReader(f"{PREFIX}{name}").read(page)


def total(page: bytes, name: str) -> float:
    """The sum of all series of one of the picker's families."""
    return sum(sample.value for sample in samples(page, name))


def _ready(pages: PickerPages) -> Iterator[Finding]:
    reasons = mapping(pages.ready).get("reasons")
    if reasons == [_FOLLOWS]:
        message = "it is not ready, because another replica leads; this one knows all endpoints and takes over"
        yield finding("PCK020", pages.url, "/readyz", message, "look at the leader, too: only that one decides")
    elif isinstance(reasons, list) and reasons:
        message = f"it tells the data plane not to send requests: {', '.join(map(str, reasons))}"
        fix = "remove the reasons; docs/operations.md tells what readiness depends on"
        yield finding("PCK001", pages.url, "/readyz", message, fix, value=", ".join(map(str, reasons)))


def _loop(pages: PickerPages) -> Iterator[Finding]:
    if pages.response_s is not None and pages.response_s > LATE_S:
        message = f"/healthz took {pages.response_s * 1000:.0f} ms at best, and every request waits as long at each step"
        fix = "give the picker a core of its own, look for slow plugins, or raise --refresh-metrics-interval in a big pool"
        yield finding("PCK002", pages.url, "/healthz", message, fix, value=round(pages.response_s, 3))


def _clock(pages: PickerPages) -> Iterator[Finding]:
    if pages.skew_s is not None and abs(pages.skew_s) > MAX_SKEW_S:
        yield finding("PCK011", pages.url, "", skew_message(pages.skew_s), SKEW_FIX, value=round(pages.skew_s, 1))


SKEW_FIX = "run a time service (NTP) on both machines"


def skew_message(skew_s: float) -> str:
    """What it means that a clock is ahead (positive) or behind."""
    side = "ahead" if skew_s > 0 else "behind"
    return f"its clock is {abs(skew_s):.0f} s {side}, so logs and traces cannot be put in order and certificates may be refused"


def _handover(url: str, page: bytes) -> Iterator[Finding]:
    name = "extproc_handover_duration_seconds"
    calls = total(page, f"{name}_count")
    quick = max((s.value for s in samples(page, f"{name}_bucket") if float(s.labels["le"]) <= _WAITS_LONG_S), default=0.0)
    late = calls - quick
    if calls >= _FEW_ATTEMPTS and late / calls > _RARE_SHARE:
        limit = f"{_WAITS_LONG_S * 1000:g} ms"
        message = f"{late / calls:.1%} of {calls:.0f} calls since the start waited longer than {limit} for the event loop"
        fix = "give the picker a core of its own, look for slow plugins, or run more pickers"
        yield finding("PCK012", url, name, message, fix, value=round(late / calls, 3))


def _plugins(url: str, page: bytes) -> Iterator[Finding]:
    now = {_plugin(sample) for sample in samples(page, "plugin_skipped") if sample.value}
    for plugin in sorted(now):
        message = "it is left out for 30 s at a time, because it was too slow too often; requests go on as if it were not there"
        yield finding("PCK003", url, plugin, message, "make it faster, or remove it from the configuration")
    for sample in samples(page, "plugin_skipped_calls_total"):
        if sample.value and _plugin(sample) not in now:
            message = f"{sample.value:.0f} of its calls were left out since the start, because it was too slow too often"
            fix = "look for 'plugin left out' in the log; make the plugin faster, or give the picker more CPU"
            yield finding("PCK004", url, _plugin(sample), message, fix, value=int(sample.value))
    for sample in samples(page, "plugin_errors_total"):
        if sample.value:
            message = f"{sample.value:.0f} of its calls raised or broke the plugin's contract since the start"
            yield finding("PCK005", url, _plugin(sample), message, "the log has the traceback", value=int(sample.value))


def _plugin(sample: Sample) -> str:
    labels = sample.labels
    return f"{labels.get('plugin_name', '')} ({labels.get('extension_point', '')})"


def _overruns(url: str, page: bytes) -> Iterator[Finding]:
    calls = {_plugin(sample): sample.value for sample in samples(page, "plugin_duration_seconds_count")}
    for sample in samples(page, "plugin_overruns_total"):
        made = calls.get(_plugin(sample), 0.0)
        if made >= _FEW_ATTEMPTS and sample.value / made > _RARE_SHARE:
            message = f"{sample.value / made:.1%} of {made:.0f} calls took longer than their budget, and every request waits"
            fix = "make it faster, or take it out before the picker leaves it out"
            yield finding("PCK014", url, _plugin(sample), message, fix, value=int(sample.value))


def _memory(url: str, page: bytes) -> Iterator[Finding]:
    limit = Options().max_buffered_bytes
    for sample in samples(page, "extproc_buffered_bytes"):
        if sample.value > _FULL_SHARE * limit:
            message = f"{sample.value:.0f} bytes of request bodies are held; from {limit} on (the default) requests get 503"
            fix = "raise --max-buffered-bytes and the memory limit, or lower --max-request-body-bytes"
            yield finding("PCK008", url, "extproc_buffered_bytes", message, fix, value=int(sample.value))


def _caches(pages: PickerPages, page: bytes) -> Iterator[Finding]:
    causes = {
        (entry.get("id"), known.get("producer")): known
        for entry in mappings(mapping(pages.endpoints).get("endpoints"))
        for known in mappings(entry.get("cachedPrefixes"))
    }
    for sample in samples(page, "prefix_cache_mismatch"):
        if sample.value:
            labels = sample.labels
            place, producer = f"{labels.get('namespace', '')}/{labels.get('endpoint_name', '')}", labels.get("plugin_name", "")
            known = causes.get((place, producer), {})
            kind = f" ({known['mismatch']})" if known.get("mismatch") else ""
            cause = f"; likely cause: {known['likelyCause']}" if known.get("likelyCause") else ""
            message = f"{producer} predicts cached tokens that differ from what the endpoint reports{kind}{cause}"
            fix = "repair the cause; docs/troubleshooting.md tells how prefixes are looked at"
            yield finding("PCK009", pages.url, place, message, fix, value=known.get("mismatch"))


def _attempts(url: str, page: bytes) -> Iterator[Finding]:
    failed = total = 0.0
    for sample in samples(page, "scheduler_attempts_total"):
        total += sample.value
        failed += sample.value if sample.labels.get("status") == _FAILED else 0
    if total >= _FEW_ATTEMPTS and failed / total > _MUCH_SHARE:
        message = f"{failed:.0f} of {total:.0f} decisions since the start found no endpoint, or filters left none"
        fix = "run with -v 4 for a moment: 'Filtered out' names the filter"
        yield finding("PCK010", url, "scheduler_attempts_total", message, fix, value=int(failed))


def _kept(pages: PickerPages, page: bytes) -> Iterator[Finding]:
    requests = total(page, "request_total")
    if pages.kept is not None and not mappings(pages.kept.get("decisions")) and requests >= _MANY_REQUESTS:
        message = f"of {requests:.0f} requests none is kept that was served, so `epp explain` knows refusals and errors only"
        fix = "raise --explain-share, such as 0.01, or --explain-memory if what is kept is gone too soon"
        yield finding("PCK019", pages.url, "/debug/decisions", message, fix)
