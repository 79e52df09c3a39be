"""Leaves a plugin out for a while that is too slow, too often.

All plugins share one event loop: while a plugin that is no coroutine works or sleeps, every other request waits. A call over
its budget is an overrun. ``OVERRUNS`` of them within ``WINDOW_S``, if at least every ``ONE_IN``-th call was one, and the plugin
is left out at this extension point for ``SKIP_S``; then a single call is let through. If that is quick, the plugin is back.

What stands in for a plugin that is left out is the business of the caller; where nothing can, as for what may refuse a request,
the guard only reports. A call that is in time costs one comparison, and one look at ``is_out``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

BUDGET_S = 0.010
"""Of one call that is no coroutine. The slowest types take under 1 ms with 1,000 endpoints, so this is a defect or a wait."""
OVERRUNS = 5
"""A pause of the process (garbage, a neighbour on the machine, a CPU limit) hits one call; the same plugin five times is no
accident."""
WINDOW_S = 10.0
"""Slower than that, five overruns of the budget are not worth a plugin's absence."""
ONE_IN = 10
"""Keeps pauses of a busy process apart from slow plugins: of thousands of calls they soon hit five, but never a tenth."""
SKIP_S = 30.0
"""Long enough for the trial calls not to be felt, short enough that nobody needs to restart the process after a repair."""
LEFT_OUT = "left out: too slow"


class GuardReport(Protocol):
    """Where a guard tells what it sees and does."""

    def overran(self) -> None:
        """A call was over its budget; called each time."""
        ...

    def skipped(self) -> None:
        """A call was left out; called each time."""
        ...

    def put_out(self, elapsed_s: float) -> None:
        """The plugin is left out from now on, or still, after a call that took so long."""
        ...

    def taken_back(self) -> None:
        """A trial was quick."""
        ...

    def stays_slow(self, elapsed_s: float) -> None:
        """The plugin would be left out if it could."""
        ...


class Guard:
    """Watches the calls of one plugin at one extension point.

    Usage: leave the call out if ``guard.is_out and guard.refuses()``; afterwards add 1 to ``calls``, and call
    ``guard.exceeded(elapsed_s)`` if ``elapsed_s > guard.limit_s``.

    Args:
        report: told of overruns.
        may_skip: False = only report.
        budget_s: longest time of a call.
        clock: seconds, monotonic.
    """

    __slots__ = ("_budget_s", "_clock", "_may_skip", "_overruns", "_report", "_retry_s", "calls", "is_out", "limit_s")

    def __init__(
        self,
        report: GuardReport,
        *,
        may_skip: bool,
        budget_s: float = BUDGET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.calls = 0
        """Calls so far."""
        self.is_out = False
        """Calls are left out, but for trials."""
        self.limit_s = budget_s
        """Below 0 during a trial, whose duration is told in any case."""
        self._report = report
        self._may_skip = may_skip
        self._budget_s = budget_s
        self._clock = clock
        self._overruns: deque[tuple[float, int]] = deque(maxlen=OVERRUNS)
        """Of the last ones: when, and how many calls there had been."""
        self._retry_s = 0.0

    def refuses(self) -> bool:
        """This call is left out; to be asked while ``is_out``. False once in ``SKIP_S``: a trial."""
        now = self._clock()
        if now < self._retry_s:
            self._report.skipped()
            return True
        self._retry_s = now + SKIP_S
        self.limit_s = -1.0
        return False

    def check(self, elapsed_s: float) -> None:
        """A call is over; where the speed of this look does not matter."""
        if elapsed_s > self.limit_s:
            self.exceeded(elapsed_s)

    def exceeded(self, elapsed_s: float) -> None:
        """A call took longer than ``limit_s``."""
        is_trial = self.limit_s < 0
        self.limit_s = self._budget_s
        if elapsed_s <= self._budget_s:
            self.is_out = False
            self._report.taken_back()
            return
        self._report.overran()
        if is_trial:
            self._report.put_out(elapsed_s)
        elif not self.is_out and self._is_habit():
            self._judge(elapsed_s)

    def _is_habit(self) -> bool:
        now, calls = self._clock(), self.calls
        self._overruns.append((now, calls))
        first_s, first_calls = self._overruns[0]
        return len(self._overruns) == OVERRUNS and now - first_s <= WINDOW_S and calls - first_calls < OVERRUNS * ONE_IN

    def _judge(self, elapsed_s: float) -> None:
        self._overruns.clear()
        if not self._may_skip:
            self._report.stays_slow(elapsed_s)
            return
        self.is_out = True
        self._retry_s = self._clock() + SKIP_S
        self._report.put_out(elapsed_s)


class _Silent:
    def overran(self) -> None: ...
    def skipped(self) -> None: ...
    def put_out(self, elapsed_s: float) -> None: ...
    def taken_back(self) -> None: ...
    def stays_slow(self, elapsed_s: float) -> None: ...


UNGUARDED = Guard(_Silent(), may_skip=False, budget_s=inf)
"""For plugins that nobody watches."""
