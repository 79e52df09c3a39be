"""Counters, gauges and histograms that cost little to write.

All are written on one thread, the event loop's, and so need no lock; another thread may read them while they are written,
as each read is one step of the interpreter. Children are bound once and kept by whoever writes them often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from epp.telemetry.cardinality import clean
from epp.telemetry.catalogue import Bounds

LabelValues = tuple[str, ...]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``, at least 0."""
        self.value += amount


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Subtract ``amount``."""
        self.value -= amount


class Histogram:
    """Observations counted by bucket.

    Args:
        bounds: upper bounds, ascending, without +Inf.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Per bucket, not cumulative; the last is for all above the last bound."""
        self.sum: float = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; a value equal to a bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_counts(self, counts: Sequence[int], total: float) -> None:
        """Add observations that were already counted by the same bounds.

        Args:
            counts: shape ``(len(bounds) + 1,)``, not cumulative.
            total: sum of the observations.

        Raises:
            ValueError: the length differs from this histogram's.
        """
        own = self.counts
        if len(counts) != len(own):
            msg = f"counts of {len(counts)} buckets added to a histogram of {len(own)}: both must be counted by the same bounds"
            raise ValueError(msg)
        for index, count in enumerate(counts):
            if count:
                own[index] += count
        self.sum += total


Child = TypeVar("Child", Counter, Gauge, Histogram)


class Family(Generic[Child]):
    """All children of one metric, by label values."""

    __slots__ = ("_new", "children")

    def __init__(self, new: Callable[[], Child]) -> None:
        self._new: Callable[[], Child] = new
        self.children: dict[LabelValues, Child] = {}

    def child(self, values: LabelValues) -> Child:
        """The child with these label values, made if it does not exist. Values are cleaned but not capped."""
        found = self.children.get(values)
        if found is None:
            found = self.children.setdefault(tuple(map(clean, values)), self._new())
        return found
