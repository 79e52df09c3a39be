"""When flow control looks again: in the next turn of the event loop, or at one time to come. One timer, whatever waits."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from epp.flowcontrol.timers import Handle, Timers


class Alarm:
    """Calls back once for all that asked for the same turn, and at the earliest of the times that were asked for.

    Args:
        timers: call back.
        callback: looks.
    """

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self._callback = callback
        self._is_due = False
        self._timer: Handle | None = None
        self._at_s = inf

    def soon(self) -> None:
        """Look in the next turn of the event loop."""
        if not self._is_due:
            self._is_due = True
            self._timers.call_soon(self._turned)

    def at(self, when_s: float) -> None:
        """Look at this time, or at an earlier one that was asked for before: who looks asks again."""
        if when_s >= self._at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timers.call_at(when_s, self._rang)
        self._at_s = when_s

    def cancel(self) -> None:
        """No time is asked for any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._at_s = inf

    def _turned(self) -> None:
        self._is_due = False
        self._callback()

    def _rang(self) -> None:
        self._timer = None
        self._at_s = inf
        self._callback()
