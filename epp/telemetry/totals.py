"""The numbers of all requests together, whatever their labels: what a chart of the whole pool is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from operator import add
from typing import NamedTuple

from epp.telemetry.catalogue import Bounds
from epp.telemetry.instruments import Counter, Gauge, Histogram, LabelValues
from epp.telemetry.metrics import Metrics

_PAUSE_AFTER = 100
"""Children that are added up before other threads may run: some 0.2 ms of histograms, less of counters."""
Children = Mapping[LabelValues, Counter | Gauge | Histogram]


class Totals(NamedTuple):
    """Since the start of the process."""

    scheduled: float = 0.0
    """Requests that got an endpoint."""
    errors: float = 0.0
    input_tokens: float = 0.0
    cached_tokens: float = 0.0
    """Prompt tokens that model servers had cached; like all tokens, as far as they said."""
    output_tokens: float = 0.0
    ttft_bounds: Bounds = ()
    """Seconds; empty while no response has begun."""
    ttft_counts: tuple[int, ...] = ()
    """Responses by time to the first byte, shape ``(len(ttft_bounds) + 1,)``, not cumulative."""


def totals_of(metrics: Metrics) -> Callable[[], Totals]:
    """Look at the metrics; on the event loop, and cheap.

    Returns:
        Adds up; in any thread, as there may be as many label sets as clients could invent, and it lets others run in between.
    """
    scheduled = metrics.children("request_total")
    errors = metrics.children("request_error_total")
    prompt, cached, output = [metrics.children(f"request_{kind}_tokens") for kind in ("input", "cached", "output")]
    ttft = metrics.children("request_ttft_seconds")

    def add_up() -> Totals:
        bounds, counts = _counts(ttft)
        return Totals(_sum(scheduled), _sum(errors), _sum(prompt), _sum(cached), _sum(output), bounds, counts)

    return add_up


def _sum(children: Children) -> float:
    total = 0.0
    for number, child in enumerate(children.values()):
        total += child.sum if isinstance(child, Histogram) else child.value
        if number % _PAUSE_AFTER == _PAUSE_AFTER - 1:
            time.sleep(0)
    return total


def _counts(children: Children) -> tuple[Bounds, tuple[int, ...]]:
    bounds: Bounds = ()
    counts: list[int] = []
    for number, child in enumerate(children.values()):
        if isinstance(child, Histogram) and child.sum:  # half of them never count: a label says whether a response streams
            bounds = child.bounds
            counts = list(map(add, counts, child.counts)) if counts else list(child.counts)
        if number % _PAUSE_AFTER == _PAUSE_AFTER - 1:
            time.sleep(0)
    return bounds, tuple(counts)
