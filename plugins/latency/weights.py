"""Weights of endpoints by their headrooms, for a weighted draw.

Source of all formulas: gateway-api-inference-extension: pkg/epp/framework/plugins/scheduling/scorer/predictedlatency/, with two
corrections: the composite that inverts is used in the negative tier too, and draws from the sum of its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_EPSILON = 1e-9
HIGHEST = 100
"""Composite weights lie between 1 and this."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Weights of the two latencies; they are used in relation to each other."""

    ttft: float
    tpot: float

    def shares(self) -> tuple[float, float]:
        """The weights with the sum 1; both 0 = the first token alone."""
        total = self.ttft + self.tpot
        return (self.ttft / total, self.tpot / total) if total > 0 else (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class CompositeBlend:
    """Weights of what is known without a prediction; they are used in relation to each other."""

    kv: float
    queue: float
    prefix: float

    def shares(self) -> tuple[float, float, float]:
        """The weights with the sum 1; all 0 = free KV cache alone."""
        total = self.kv + self.queue + self.prefix
        return (self.kv / total, self.queue / total, self.prefix / total) if total > 0 else (1.0, 0.0, 0.0)


def positive(ttft_ms: Sequence[float], tpot_ms: Sequence[float], shares: tuple[float, float], *, least: bool) -> list[int]:
    """Weights of endpoints that meet the objectives.

    Args:
        ttft_ms, tpot_ms: headrooms, shape ``(n,)``.
        shares: of the two latencies.
        least: little headroom is preferred, so that much stays free for requests that need it.

    Returns:
        2 to 101, shape ``(n,)``.
    """
    first, further = _normalised(ttft_ms, 0.5), _normalised(tpot_ms, 0.5)
    blended = [shares[0] * a + shares[1] * b for a, b in zip(first, further, strict=True)]
    return [int((1.0 - c if least else c) * 99) + 2 for c in blended]


def negative(ttft_ms: Sequence[float], tpot_ms: Sequence[float], shares: tuple[float, float]) -> list[int]:
    """Weights of endpoints that miss an objective: the smaller the deficit, the greater.

    Deficits are compared among endpoints that miss the same: both, the first token's, the further tokens'.

    Args:
        ttft_ms, tpot_ms: headrooms, shape ``(n,)``.
        shares: of the two latencies.

    Returns:
        2 to 82, or 1 for an endpoint without deficit, shape ``(n,)``.
    """
    weights = [1] * len(ttft_ms)
    missed = [(a < 0, b < 0) for a, b in zip(ttft_ms, tpot_ms, strict=True)]
    for kind in ((True, True), (True, False), (False, True)):
        bucket = [position for position, misses in enumerate(missed) if misses == kind]
        first = _normalised([max(0.0, -ttft_ms[i]) for i in bucket], 0.0)
        further = _normalised([max(0.0, -tpot_ms[i]) for i in bucket], 0.0)
        for position, a, b in zip(bucket, first, further, strict=True):
            weights[position] = int((1.0 - shares[0] * a - shares[1] * b) * 80) + 2
    return weights


def composite(
    queue: Sequence[int], kv_usage: Sequence[float], prefix: Sequence[float], shares: tuple[float, float, float]
) -> list[int]:
    """Weights by free KV cache, short queue and cached prefix.

    Args:
        queue: waiting requests.
        kv_usage, prefix: fractions in [0, 1].
        shares: of the three, with the sum 1.

    Returns:
        1 to 100, shape ``(n,)``.
    """
    if not queue:
        return []
    low, high = min(queue), max(queue)
    span = high - low
    short = [(high - q) / span for q in queue] if span else [1.0] * len(queue)
    by_kv, by_queue, by_prefix = shares
    return [
        round(1 + 99 * (by_kv * (1.0 - kv) + by_queue * q + by_prefix * p))
        for q, kv, p in zip(short, kv_usage, prefix, strict=True)
    ]


def inverted(weights: Sequence[int]) -> list[int]:
    """Composite weights that prefer what they put last."""
    return [HIGHEST + 1 - weight for weight in weights]


def _normalised(values: Sequence[float], without_range: float) -> list[float]:
    """Values moved into [0, 1]; ``without_range`` for all if they are equal."""
    if not values:
        return []
    low = min(values)
    span = max(values) - low
    if span <= _EPSILON:
        return [without_range] * len(values)
    return [(value - low) / (span + _EPSILON) for value in values]
