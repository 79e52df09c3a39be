"""Prometheus text as prometheus_client writes it: the constant parts are made once, values are filled in later.

A template is a text with one ``%s`` for each value; everything else in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from epp.simulate.statistics import Histogram

Labels = Mapping[str, str]


def number(value: float) -> str:
    """A sample value or bucket bound."""
    return repr(float(value))


def series(name: str, labels: Labels) -> str:
    """``name{a="x",b="y"}``, labels sorted by name."""
    if not labels:
        return name
    pairs = ",".join(f'{key}="{_escape(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"


def header(name: str, kind: str, help_text: str) -> str:
    """The two comment lines of a family."""
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


def constant(name: str, kind: str, help_text: str, samples: Sequence[tuple[Labels, float]]) -> str:
    """A family whose values never move."""
    lines = [f"{series(name, labels)} {number(value)}\n" for labels, value in samples]
    return header(name, kind, help_text) + "".join(lines)


def gauge_template(name: str, help_text: str, labels: Labels) -> str:
    """A gauge with one open value."""
    return quoted(header(name, "gauge", help_text) + series(name, labels)) + " %s\n"


def counter_template(name: str, help_text: str, labels: Sequence[Labels], created_s: float) -> str:
    """A counter with one open value for each label set, and when it was created.

    Args:
        name: without ``_total``.
        help_text: of the family.
        labels: one set for each series.
        created_s: unix time.
    """
    total, created = f"{name}_total", f"{name}_created"
    open_values = "".join(f"{quoted(series(total, each))} %s\n" for each in labels)
    return quoted(header(total, "counter", help_text)) + open_values + quoted(_created(created, help_text, labels, created_s))


def quoted(text: str) -> str:
    """Text that means itself inside a template."""
    return text.replace("%", "%%")


class HistogramText:
    """Renders one histogram series; labels and bounds are written once.

    Args:
        name: of the family.
        help_text: of the family.
        labels: of the series.
        bounds: upper bounds without infinity.
        created_s: unix time of creation.
    """

    def __init__(self, name: str, help_text: str, labels: Labels, bounds: Sequence[float], created_s: float) -> None:
        les = [*(number(bound) for bound in bounds), "+Inf"]
        names = [series(f"{name}_bucket", {**labels, "le": le}) for le in les]
        names += [series(f"{name}_count", labels), series(f"{name}_sum", labels)]
        self._header = header(name, "histogram", help_text)
        self._template = "".join(quoted(each) + " %s\n" for each in names)
        self._created = _created(f"{name}_created", help_text, [labels], created_s)

    def render(self, histogram: Histogram) -> str:
        """The family with the values of now."""
        return self._header + self.samples(histogram) + self._created

    def samples(self, histogram: Histogram) -> str:
        """The same without comments and creation time, for families of several series."""
        counts = [float(count) for count in accumulate(histogram.counts)]
        return self._template % (*counts, counts[-1], histogram.total)


def _created(name: str, help_text: str, labels: Sequence[Labels], created_s: float) -> str:
    return constant(name, "gauge", help_text, [(each, created_s) for each in labels])


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
