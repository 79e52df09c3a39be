"""The last minutes of a pool: a ring of samples, taken by the clock and never by a request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

from epp.telemetry.pool import PoolSnapshot
from epp.telemetry.totals import Totals

EVERY_S = 5.0
"""Between two samples: coarse enough to cost nothing, fine enough to see a burst."""
KEPT = 180
"""Samples: the last quarter of an hour, some 100 KB, however large the pool is."""

_Number = TypeVar("_Number", int, float)


class Sample(NamedTuple):
    """One moment. None = nobody knows, or nothing happened to measure."""

    at_s: float
    """Unix time."""
    endpoints: int
    ready: int
    """Of these, with fresh metrics; all that follows about servers is of these."""
    in_flight: int
    """Requests scheduled and not over."""
    waiting: int | None
    """Requests in the servers' queues, of all servers together."""
    waiting_most: int | None
    """Of the server with the longest queue."""
    running: int | None
    kv_mean: float | None
    """Use of the KV cache, 0 to 1: mean, least and most of the servers."""
    kv_least: float | None
    kv_most: float | None
    requests_per_s: float | None
    errors_per_s: float | None
    output_tokens_per_s: float | None
    cached_share: float | None
    """Of the prompt tokens of responses that ended since the last sample, 0 to 1."""
    ttft_p50_s: float | None
    """Of responses that began since the last sample, as precise as the histogram's buckets."""
    ttft_p95_s: float | None


class History:
    """Keeps samples.

    Args:
        clock: monotonic seconds.
        wall_clock: Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: tuple[float, Totals] | None = None
        self.count = 0
        """Samples so far, those that are gone included."""

    def add(self, pool: PoolSnapshot, in_flight: int, totals: Totals) -> None:
        """Take a sample."""
        now = self._clock()
        before_s, before = self._before or (now, totals)
        self._before = (now, totals)
        self.count += 1
        self._samples.append(_sample(self._wall_clock(), pool, in_flight, _Since(now - before_s, before, totals)))

    def as_json(self) -> dict[str, object]:
        """A column for each number, the oldest sample first."""
        samples = list(self._samples)
        columns = {name: [sample[index] for sample in samples] for index, name in enumerate(Sample._fields)}
        return {"everySeconds": EVERY_S, "kept": KEPT, "columns": columns}


class _Since(NamedTuple):
    """What happened since the last sample."""

    seconds: float
    before: Totals
    now: Totals

    def rate(self, before: float, now: float) -> float | None:
        """Per second."""
        return round((now - before) / self.seconds, 3) if self.seconds > 0 else None

    def cached_share(self) -> float | None:
        prompts = self.now.input_tokens - self.before.input_tokens
        return round((self.now.cached_tokens - self.before.cached_tokens) / prompts, 4) if prompts > 0 else None

    def ttft(self, quantile: float) -> float | None:
        counts = self.now.ttft_counts
        if self.before.ttft_counts:
            counts = tuple(now - before for now, before in zip(counts, self.before.ttft_counts, strict=True))
        return quantile_of(self.now.ttft_bounds, counts, quantile)


def _sample(at_s: float, pool: PoolSnapshot, in_flight: int, since: _Since) -> Sample:
    fresh = [endpoint for endpoint in pool.endpoints if endpoint.is_fresh]
    waiting = _known(endpoint.waiting_queue for endpoint in fresh)
    running = _known(endpoint.running_requests for endpoint in fresh)
    kv = _known(endpoint.kv_cache_usage for endpoint in fresh)
    _, before, now = since
    return Sample(
        at_s=round(at_s, 3),
        endpoints=len(pool.endpoints),
        ready=len(fresh),
        in_flight=in_flight,
        waiting=sum(waiting) if waiting else None,
        waiting_most=max(waiting, default=None),
        running=sum(running) if running else None,
        kv_mean=round(sum(kv) / len(kv), 4) if kv else None,
        kv_least=min(kv, default=None),
        kv_most=max(kv, default=None),
        requests_per_s=since.rate(before.scheduled, now.scheduled),
        errors_per_s=since.rate(before.errors, now.errors),
        output_tokens_per_s=since.rate(before.output_tokens, now.output_tokens),
        cached_share=since.cached_share(),
        ttft_p50_s=since.ttft(0.5),
        ttft_p95_s=since.ttft(0.95),
    )


def quantile_of(bounds: Sequence[float], counts: Sequence[int], quantile: float) -> float | None:
    """A quantile of counted observations, as if they were spread evenly within a bucket; None of none.

    Args:
        bounds: upper bounds, ascending.
        counts: of each bucket and of what is above the last bound, for which the last bound is given.
        quantile: 0 to 1.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank = quantile * total
    for index, (count, seen) in enumerate(zip(counts[:-1], accumulate(counts), strict=False)):
        if count > 0 and seen >= rank:
            lower = bounds[index - 1] if index else 0.0
            return round(lower + (bounds[index] - lower) * (rank - (seen - count)) / count, 6)
    return bounds[-1]


def _known(values: Iterable[_Number | None]) -> list[_Number]:
    return [value for value in values if value is not None]
