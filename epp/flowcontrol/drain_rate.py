"""How fast a band is served: the requests that left it over the last ten seconds."""

from __future__ import annotations

SLOTS = 10
"""Of one second. Shorter, and a band of slow requests has no rate; longer, and a pool that shrank is not noticed."""


class DrainRate:
    """Counts departures by second."""

    __slots__ = ("_begun", "_counts", "_last")

    def __init__(self) -> None:
        self._counts = [0] * SLOTS
        self._begun: int | None = None
        """The second of the first departure since there was none."""
        self._last = 0

    def count(self, now_s: float) -> None:
        """A request has left."""
        second = int(now_s)
        if second != self._last or self._begun is None:
            self._forget(second)
        self._counts[second % SLOTS] += 1

    def per_second(self, now_s: float) -> float:
        """Departures per second; 0 = none was seen for ten seconds."""
        second = int(now_s)
        if self._begun is None or second - self._last >= SLOTS:
            return 0.0
        if second != self._last:
            self._forget(second)
        span_s = min(now_s - max(self._begun, second - SLOTS + 1), float(SLOTS))
        return sum(self._counts) / max(span_s, 1.0)

    def _forget(self, second: int) -> None:
        """Go on to ``second``; what is older than ten counts no more."""
        if self._begun is None or second - self._last >= SLOTS:
            self._counts = [0] * SLOTS
            self._begun = second
        else:
            for passed in range(self._last + 1, second + 1):
                self._counts[passed % SLOTS] = 0
        self._last = second
