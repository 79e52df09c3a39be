"""Metrics as Prometheus text (format 0.0.4), with bucket bounds written as Go writes them.

``le="1"`` and ``le="1.0"`` are different series, so recording rules made for a Go picker need Go's form.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from epp.telemetry.catalogue import POOL_LABEL, Bounds, Kind, Metric
from epp.telemetry.instruments import Counter, Gauge, Histogram, LabelValues
from epp.telemetry.legacy_names import LEGACY, Legacy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_FIRST_EXPONENT = 1e6
"""From here on Go writes the shortest form with an exponent."""


class Points(NamedTuple):
    """A family with its children, by label values in the order of ``metric.labels``."""

    metric: Metric
    children: Mapping[LabelValues, Counter | Gauge | Histogram]


def text(families: Sequence[Points], *, legacy: bool) -> Iterator[str]:
    """The families, then their older names if ``legacy``, in pieces of at most one histogram.

    Families and histograms without an observation are left out.
    """
    for points in families:
        yield from _family(points)
    if not legacy:
        return
    by_name = {points.metric.name: points for points in families}
    for entry in LEGACY:
        current = by_name.get(entry.current)
        if current is not None and current.children:
            yield from _family(_under_legacy_name(entry, current))


def number(value: float) -> str:
    """``value`` as Go's ``strconv.FormatFloat(value, 'g', -1, 64)`` writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    shortest = repr(float(value))
    if abs(value) < _FIRST_EXPONENT or "e" in shortest:
        return shortest.removesuffix(".0")
    sign = "-" if value < 0 else ""
    whole, _, fraction = shortest.removeprefix("-").partition(".")
    digits = (whole + fraction).rstrip("0")
    return f"{sign}{digits[0]}.{digits[1:]}".removesuffix(".") + f"e+{len(whole) - 1:02d}"


def _family(points: Points) -> Iterator[str]:
    metric = points.metric
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    if metric.kind is not Kind.HISTOGRAM:
        lines = [_scalar_line(metric, values, child) for values, child in points.children.items()]
        if lines:
            yield head + "".join(lines)
        return
    for values, child in points.children.items():
        piece = _histogram_lines(metric, values, child)
        if piece:
            yield head + piece
            head = ""


def _scalar_line(metric: Metric, values: LabelValues, child: Counter | Gauge | Histogram) -> str:
    assert not isinstance(child, Histogram)
    labels = _label_pairs(metric.labels, values)
    return f"{metric.name}{{{labels}}} {number(child.value)}\n" if labels else f"{metric.name} {number(child.value)}\n"


def _histogram_lines(metric: Metric, values: LabelValues, child: Counter | Gauge | Histogram) -> str:
    assert isinstance(child, Histogram)
    cumulative = list(accumulate(child.counts))
    count = cumulative[-1]
    if not count:
        return ""
    labels = _label_pairs(metric.labels, values)
    bucket = f'{metric.name}_bucket{{{labels},le="' if labels else f'{metric.name}_bucket{{le="'
    plain = f"{{{labels}}}" if labels else ""
    exposed = _exposed_buckets(child.bounds, metric.buckets)
    lines = [f'{bucket}{le}"}} {cumulative[index]}\n' for le, index in exposed]
    lines.append(f'{bucket}+Inf"}} {count}\n{metric.name}_sum{plain} {number(child.sum)}\n{metric.name}_count{plain} {count}\n')
    return "".join(lines)


@lru_cache(maxsize=256)
def _exposed_buckets(counted: Bounds, exposed: Bounds) -> tuple[tuple[str, int], ...]:
    """``le`` and position of each exposed bound; the bounds counted by contain those exposed."""
    return tuple((number(bound), bisect_left(counted, bound)) for bound in exposed)


def _label_pairs(names: Iterable[str], values: LabelValues) -> str:
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)])


def _under_legacy_name(entry: Legacy, current: Points) -> Points:
    labels = [*entry.labels, *((label, label) for label in current.metric.labels if label == POOL_LABEL)]
    metric = replace(
        current.metric,
        name=entry.name,
        labels=tuple(exposed for exposed, _ in labels),
        buckets=entry.buckets or current.metric.buckets,
        help=f"[ALPHA] Deprecated: use {current.metric.name}. {current.metric.help.removeprefix('[ALPHA] ')}",
    )
    kept = [current.metric.labels.index(label) for _, label in labels]
    if kept == list(range(len(current.metric.labels))):
        return Points(metric, current.children)
    groups: dict[LabelValues, list[Counter | Gauge | Histogram]] = {}
    for values, child in current.children.items():
        groups.setdefault(tuple([values[index] for index in kept]), []).append(child)
    return Points(metric, {values: _added_up(children) for values, children in groups.items()})


def _added_up(children: Sequence[Counter | Gauge | Histogram]) -> Counter | Gauge | Histogram:
    first = children[0]
    if len(children) == 1:
        return first
    if not isinstance(first, Histogram):
        total = Gauge()
        total.set(sum(child.value for child in children if not isinstance(child, Histogram)))
        return total
    histogram = Histogram(first.bounds)
    for child in children:
        if isinstance(child, Histogram):
            histogram.add_counts(child.counts, child.sum)
    return histogram
