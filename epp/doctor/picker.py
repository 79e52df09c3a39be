"""Findings about the picker itself, from its metrics port: readiness, event loop, plugins, configuration, memory."""

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


@dataclass(frozen=True, slots=True)
class PickerPages:
    """What the metrics port answered; None where a page could not be had."""

    url: str
    ready: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    endpoints: Mapping[str, Any] | None = None
    metrics: bytes | None = None
    response_s: float | None = None
    """The quickest of some answers of ``/healthz``, seconds."""
    skew_s: float | None = None
    """Its clock less ours."""


def check_picker(pages: PickerPages) -> list[Finding]:
    """All findings about the process."""
    found = [*_ready(pages), *_loop(pages), *_clock(pages), *_config(pages)]
    if pages.metrics is not None:
        found += [*_plugins(pages.url, pages.metrics), *_reload(pages.url, pages.metrics)]
        found += [*_memory(pages.url, pages.metrics), *_caches(pages.url, pages.metrics), *_attempts(pages.url, pages.metrics)]
    return found


def samples(page: bytes, name: str) -> Sequence[Sample]:
    """All series of one of the picker's families."""
    return FamilyReader(f"{PREFIX}{name}").read(page)


def _ready(pages: PickerPages) -> Iterator[Finding]:
    reasons = mapping(pages.ready).get("reasons")
    if isinstance(reasons, list) and reasons:
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


def _config(pages: PickerPages) -> Iterator[Finding]:
    for entry in mappings(mapping(pages.config).get("findings")):
        if entry.get("severity") == "warning":
            message = f"{entry.get('code')}: {entry.get('message')}"
            yield finding("PCK007", pages.url, str(entry.get("path", "")), message, str(entry.get("fix", "")))


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


def _reload(url: str, page: bytes) -> Iterator[Finding]:
    if any(not sample.value for sample in samples(page, "config_last_reload_successful")):
        message = "the file was changed to something that cannot be used; what was loaded before is in use"
        yield finding("PCK006", url, "/metrics", message, "run `epp check` on the file")


def _memory(url: str, page: bytes) -> Iterator[Finding]:
    limit = Options().max_buffered_bytes
    for sample in samples(page, "extproc_buffered_bytes"):
        if sample.value > _FULL_SHARE * limit:
            message = f"{sample.value:.0f} bytes of request bodies are held; from {limit} on (the default) requests get 503"
            fix = "raise --max-buffered-bytes and the memory limit, or lower --max-request-body-bytes"
            yield finding("PCK008", url, "extproc_buffered_bytes", message, fix, value=int(sample.value))


def _caches(url: str, page: bytes) -> Iterator[Finding]:
    for sample in samples(page, "prefix_cache_mismatch"):
        if sample.value:
            labels = sample.labels
            place = f"{labels.get('namespace', '')}/{labels.get('endpoint_name', '')}"
            message = f"{labels.get('plugin_name', '')} predicts cached tokens that differ from what the endpoint reports"
            fix = "/debug/endpoints names the likely cause, such as a block size or a cache that was cleared"
            yield finding("PCK009", url, place, message, fix)


def _attempts(url: str, page: bytes) -> Iterator[Finding]:
    failed = total = 0.0
    for sample in samples(page, "scheduler_attempts_total"):
        total += sample.value
        failed += sample.value if sample.labels.get("status") == _FAILED else 0
    if total >= _FEW_ATTEMPTS and failed / total > _MUCH_SHARE:
        message = f"{failed:.0f} of {total:.0f} decisions since the start found no endpoint, or filters left none"
        fix = "run with -v 4 for a moment: 'Filtered out' names the filter"
        yield finding("PCK010", url, "scheduler_attempts_total", message, fix, value=int(failed))
