"""One line a second about requests that flow control did not let go, whatever their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from epp.flowcontrol.outcomes import Outcome
from epp.flowcontrol.timers import Timers
from epp.framework import log

PAUSE_S = 1.0

_logger = log.get("epp.flowcontrol")


class RefusalLog:
    """Counts, and writes the counts down.

    Args:
        clock: seconds, monotonic.
        timers: call back.
    """

    def __init__(self, clock: Callable[[], float], timers: Timers) -> None:
        self._clock = clock
        self._timers = timers
        self._counts: Counter[str] = Counter()

    def count(self, outcome: Outcome) -> None:
        """A request was not let go."""
        if not self._counts:
            self._timers.call_at(self._clock() + PAUSE_S, self.flush)
        self._counts[outcome.value] += 1

    def flush(self) -> None:
        """Write down what was counted, if anything was."""
        counts, self._counts = self._counts, Counter()
        if counts:
            _logger.info("requests not served by flow control", details=dict(counts))
