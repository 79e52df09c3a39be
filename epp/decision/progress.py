"""How far the decision about one request has come: it runs at once as far as nothing waits.

The decision is one coroutine. ``Progress`` drives it: to its end if nothing waits; into a task at the first plugin that waits,
under one deadline; or to a ``Hold``, where it ends, and another one goes on with it later. Whatever happens, a decision whose
stream has ended does not go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Protocol

from epp.flowcontrol.admission import Hold
from epp.hooks.runner import Spawn

DECISION_DEADLINE_S = 5.0
"""Longest time from the complete request to its decision, where a plugin waits (protocol decision D15); holds do not count."""

Work = Coroutine[Any, Any, None]
_ENDED = object()


class Waits(Protocol):
    """A request that waits for its turn, without a coroutine."""

    def withdrawn(self) -> None:
        """Its stream has ended."""
        ...


class Progress:
    """Drives one decision. Implements ``MayWait``.

    Args:
        spawn: starts a task.
        clock: seconds, monotonic.
    """

    __slots__ = (
        "_begun_s",
        "_clock",
        "_expiry",
        "_hold",
        "_is_in_task",
        "_parked",
        "_spawn",
        "_work",
        "is_late",
        "is_over",
        "task",
    )

    def __init__(self, spawn: Spawn, clock: Callable[[], float] = time.monotonic) -> None:
        self.task: asyncio.Task[None] | None = None
        """Runs the decision since a plugin waited."""
        self.is_late = False
        """The deadline has passed."""
        self.is_over = False
        """The stream has ended."""
        self._spawn = spawn
        self._clock = clock
        self._work: Work | None = None
        self._is_in_task = False
        self._hold: Hold | None = None
        self._parked: Waits | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def begin(self, work: Work) -> None:
        """Run ``work``, which answers the request, as far as it goes; called once."""
        self._begun_s = self._clock()
        self._work = work
        self._go_on()

    def withdraw(self) -> None:
        """The stream has ended: what still waits is given up."""
        self.is_over = True
        if self.task is not None:
            self.task.cancel()
        if self._hold is not None:
            self._hold.withdraw()
        if self._parked is not None:
            parked, self._parked = self._parked, None
            parked.withdrawn()

    @property
    def is_in_task(self) -> bool:
        """A plugin has waited, so that the decision runs in a task."""
        return self._is_in_task

    def park(self, parked: Waits) -> None:
        """The work ends here, and another one goes on with it when the request has had its turn; the deadline stands still."""
        self._parked = parked

    def go_on(self, hold: Hold, since_s: float, work: Work) -> None:
        """Run what is left of a parked decision.

        Args:
            hold: that has ended, and then knows for how long it was held.
            since_s: when it began.
        """
        self._parked = None
        hold.held_s = held_s = self._clock() - since_s
        self._begun_s += held_s
        self._work = work
        self._go_on()

    async def hold(self, hold: Hold) -> None:
        """Stay here, in a task, until ``hold`` ends, which then knows for how long; the deadline stands still."""
        since_s = self._clock()
        self._hold = hold
        if self._expiry is not None:
            self._expiry.cancel()
        try:
            await _ended(hold)
        finally:
            hold.held_s = held_s = self._clock() - since_s
        self._hold = None
        self._begun_s += held_s
        self._watch_deadline()

    # ── MayWait ──

    async def enter(self) -> None:
        """Go on in a task, if this is not one already."""
        if not self._is_in_task:
            self._is_in_task = True
            await _suspend()

    def check(self) -> None:
        """To be asked after each wait.

        Raises:
            CancelledError: the stream has ended, or the deadline has passed.
        """
        if self.is_over or self.is_late:
            raise asyncio.CancelledError

    # ── inside ──

    def _go_on(self) -> None:
        work = self._work
        assert work is not None
        if next(work.__await__(), _ENDED) is _ENDED:  # unlike ``send``, this ends without an exception
            self._work = None
            return
        if self._is_in_task:
            self._work = None
            self.task = task = self._spawn(work, "decision")
            self._watch_deadline()
            task.add_done_callback(self._task_ended)

    def _watch_deadline(self) -> None:
        left_s = self._begun_s + DECISION_DEADLINE_S - self._clock()
        self._expiry = asyncio.get_running_loop().call_later(max(left_s, 0.0), self._expire)

    def _expire(self) -> None:
        self.is_late = True
        if self.task is not None:
            self.task.cancel()

    def _task_ended(self, _task: asyncio.Task[None]) -> None:
        if self._expiry is not None:
            self._expiry.cancel()


async def _ended(hold: Hold) -> None:
    ended = asyncio.Event()
    hold.when_ended(ended.set)
    await ended.wait()


@coroutine
def _suspend() -> Generator[None, None, None]:
    """Give control back to whoever drives the coroutine."""
    yield
