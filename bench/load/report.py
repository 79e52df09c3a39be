"""Summaries of segments, as numbers for a file and as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations

from bench.load.payload import SSE_CHUNKS
from bench.load.pickers import BARE_READER
from bench.load.proxy import DIRECT
from bench.load.run import Measured, Results, Segment
from bench.load.stats import Estimate, estimate, ratio
from bench.load.workloads import Workload

_MIB = 1 << 20

Figure = Callable[[Segment], float]

_TRAFFIC: dict[str, Figure] = {
    "requests/s": lambda s: s.requests / s.elapsed_s,
    "p50 ms": lambda s: s.p50_ms,
    "p99 ms": lambda s: s.p99_ms,
}
_COST: dict[str, Figure] = {
    "picker us/req": lambda s: _per_request_us(s, s.picker_cpu_s),
    "envoy us/req": lambda s: _per_request_us(s, s.envoy_cpu_s),
}
_OPEN: dict[str, Figure] = {
    "client late p99 ms": lambda s: s.late_p99_ms,
    "client cores": lambda s: s.client_cpu_s / s.elapsed_s,
}
"""Whether the client kept its times; if not, its own slowness is in the latencies."""
_STREAM: dict[str, Figure] = {
    "first byte ms": lambda s: s.first_p50_ms,
    "picker us/chunk": lambda s: _per_request_us(s, s.picker_cpu_s) / SSE_CHUNKS,
}
_IDLE: dict[str, Figure] = {
    "picker cores": lambda s: s.picker_cpu_s / s.elapsed_s,
    "scrapes/s": lambda s: s.scrapes / s.elapsed_s,
    "picker us/scrape": lambda s: s.picker_cpu_s / max(1, s.scrapes) * 1e6,
}
_MEMORY: dict[str, Figure] = {"resident MiB": lambda s: s.picker_resident_bytes / _MIB}
_BUSY_CLIENT_CORES = 0.8
"""The client has one thread; above this it queues requests itself."""
_OF_PICKER = ("picker us/req", "picker us/chunk", "resident MiB")
"""What makes no sense without a picker."""
_COMPARED = ("requests/s", "p50 ms", "p99 ms", "picker us/req", "envoy us/req", "picker cores", "resident MiB")

Summary = dict[str, dict[str, Estimate]]
"""Estimate of each figure, by picker and by figure."""


def summarize(results: Results, workload: Workload) -> Summary:
    """Median and interval of each figure over the segments of each picker."""
    summary = {}
    for name, segments in results.items():
        series = _series(segments, workload)
        summary[name] = {
            label: estimate(values) for label, values in series.items() if name != DIRECT or label not in _OF_PICKER
        }
        if name != DIRECT and DIRECT in results:
            summary[name] |= _added(segments, results[DIRECT])
        if name != BARE_READER and BARE_READER in results:
            summary[name] |= _added_cores(segments, results[BARE_READER])
    return summary


def ratios(results: Results, workload: Workload) -> Summary:
    """For each pair of pickers ``a / b`` the ratio of each figure that can be compared."""
    found: Summary = {}
    for upper, lower in combinations([name for name in results if name != DIRECT], 2):
        above, below = (_series(results[name], workload) for name in (upper, lower))
        pairs = {label: ratio(above[label], below[label]) for label in _COMPARED if label in above}
        found[f"{upper} / {lower}"] = {label: value for label, value in pairs.items() if value is not None}
    return found


def errors(results: Results) -> dict[str, int]:
    """Failed requests by picker."""
    return {name: sum(segment.errors for segment in segments) for name, segments in results.items()}


def as_text(measured: Measured) -> str:
    """Tables: one for the pickers, one for their ratios; and what a reader should know of the load."""
    results, workload = measured.results, measured.workload
    tables = [_table("picker", summarize(results, workload)), _table("ratio", ratios(results, workload))]
    failed = ", ".join(f"{name} {count}" for name, count in errors(results).items())
    notes = [*_rate(measured), *_too_slow(results, workload), f"errors: {failed}"]
    return "\n\n".join([*(table for table in tables if table), "\n".join(notes)])


def as_document(measured: Measured) -> dict[str, object]:
    """The same for JSON, with every segment."""
    results, workload = measured.results, measured.workload
    return {
        "load": asdict(workload),
        "held": measured.held,
        "summary": _plain(summarize(results, workload)),
        "ratios": _plain(ratios(results, workload)),
        "errors": errors(results),
        "segments": {name: [asdict(segment) for segment in segments] for name, segments in results.items()},
    }


def _series(segments: Sequence[Segment], workload: Workload) -> dict[str, list[float]]:
    figures = dict(_IDLE) if workload.connections == 0 else _TRAFFIC | _COST
    if workload.response == "sse":
        figures |= _STREAM
    if workload.connections and workload.rate:
        figures |= _OPEN
    return {label: [figure(segment) for segment in segments] for label, figure in (figures | _MEMORY).items()}


def _added(segments: Sequence[Segment], direct: Sequence[Segment]) -> dict[str, Estimate]:
    """Latency beyond that of the direct listener in the same round."""
    pairs = list(zip(segments, direct, strict=True))
    return {
        "added p50 ms": estimate([segment.p50_ms - other.p50_ms for segment, other in pairs]),
        "added p99 ms": estimate([segment.p99_ms - other.p99_ms for segment, other in pairs]),
    }


def _added_cores(segments: Sequence[Segment], bare: Sequence[Segment]) -> dict[str, Estimate]:
    """Cores beyond those of the bare reader in the same round."""
    cores = _IDLE["picker cores"]
    return {"added cores": estimate([cores(segment) - cores(other) for segment, other in zip(segments, bare, strict=True)])}


def _rate(measured: Measured) -> list[str]:
    """The rate of an open loop, and what it was chosen by."""
    workload, held = measured.workload, measured.held
    if not (workload.connections and workload.rate):
        return []
    line = f"rate: {workload.rate:.0f} requests/s in an open loop, the same for all"
    if held:
        weakest = min(held, key=held.__getitem__)
        closed = ", ".join(f"{name} {rate:.0f}" for name, rate in held.items())
        line += f"; {workload.rate / held[weakest]:.2f} of what {weakest} holds in a closed one ({closed})"
    return [line]


def _too_slow(results: Results, workload: Workload) -> list[str]:
    """Warnings of an open loop that somebody did not keep up with."""
    if not (workload.connections and workload.rate):
        return []
    lines = []
    for name, segments in results.items():
        behind = sum(segment.is_behind for segment in segments)
        cores = estimate([_OPEN["client cores"](segment) for segment in segments]).median
        if behind:
            lines.append(f"warning: {name} could not keep the rate in {behind} of {len(segments)} segments")
        if cores > _BUSY_CLIENT_CORES:
            lines.append(f"warning: the client needed {cores:.2f} cores beside {name}; its own slowness is in the latencies")
    return lines


def _per_request_us(segment: Segment, cpu_s: float) -> float:
    return cpu_s / max(1, segment.requests) * 1e6


def _table(title: str, summary: Summary) -> str:
    """One line for each figure, one column for each picker: grows downwards, never too wide."""
    if not summary:
        return ""
    labels = list(dict.fromkeys(label for figures in summary.values() for label in figures))
    rows = [[title, *summary]]
    rows += [[label, *(_cell(figures.get(label)) for figures in summary.values())] for label in labels]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _cell(value: Estimate | None) -> str:
    if value is None:
        return "-"
    return f"{_number(value.median)} [{_number(value.low)}, {_number(value.high)}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _plain(summary: Summary) -> dict[str, object]:
    return {name: {label: value._asdict() for label, value in figures.items()} for name, figures in summary.items()}
