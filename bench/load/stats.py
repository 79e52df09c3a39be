"""Percentiles, medians and their intervals."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A median with its interval; all three are equal for a single value."""

    median: float
    low: float
    high: float


def percentile(values: Sequence[float], fraction: float) -> float:
    """Nearest-rank percentile of unsorted values; 0.0 of none.

    Args:
        fraction: between 0 and 1; 0.99 is the 99th percentile.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def estimate(values: Sequence[float]) -> Estimate:
    """Median and its bootstrap 95 % interval over segments; the same values always give the same interval.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("an estimate needs at least one segment")
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return Estimate(statistics.median(values), medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1])


def ratio(upper: Sequence[float], lower: Sequence[float]) -> Estimate | None:
    """Ratio of two pickers, paired by round, so that what slows the machine for a while cancels out.

    Returns:
        None when a segment of the lower one is 0: nothing to compare with.
    """
    if not lower or not all(lower):
        return None
    return estimate([above / below for above, below in zip(upper, lower, strict=True)])
