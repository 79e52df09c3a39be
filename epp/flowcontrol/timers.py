"""How flow control is called back: by the running event loop, or by a test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """A callback to come."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Calls back, each time once."""

    def call_soon(self, callback: Callable[[], object]) -> Handle:
        """In the next turn of the event loop."""
        ...

    def call_at(self, when_s: float, callback: Callable[[], object]) -> Handle:
        """At a time of the clock, at the earliest a millisecond before."""
        ...


class LoopTimers:
    """The event loop that runs. Its own clock may be another one, so that only durations are given to it.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def call_soon(self, callback: Callable[[], object]) -> Handle:
        """As ``Timers.call_soon``."""
        return asyncio.get_running_loop().call_soon(callback)

    def call_at(self, when_s: float, callback: Callable[[], object]) -> Handle:
        """As ``Timers.call_at``."""
        return asyncio.get_running_loop().call_later(max(when_s - self._clock(), 0.0), callback)
