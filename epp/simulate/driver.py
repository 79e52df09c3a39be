"""Runs an engine in real time: one timer, set for the next thing that happens in it; none while it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Many
from typing import Self

from epp.simulate.engine import Engine
from epp.simulate.sequence import Phase, Sequence

_MIN_SLEEP_S = 0.001
"""Resolution of the loop's timers: events that are closer together are handled in one wake-up."""


class EngineDriver:
    """One engine on the running event loop.

    Args:
        engine: driven by nobody else.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0

    def submit(self, sequences: Many[Sequence]) -> None:
        """Put requests into the queue.

        Raises:
            ValueError: one of them can never fit; none is queued.
        """
        now_s = self._loop.time()
        submitted: list[Sequence] = []
        try:
            for sequence in sequences:
                self.engine.submit(sequence, now_s)
                submitted.append(sequence)
        except ValueError:
            self.abort(submitted)
            raise
        self._set_timer()

    def abort(self, sequences: Many[Sequence]) -> None:
        """Drop those that have not ended."""
        for sequence in sequences:
            if not sequence.ended:
                self.engine.abort(sequence, self._loop.time())
        self._set_timer()

    def free(self, sequences: Many[Sequence]) -> None:
        """Give up the blocks of kept sequences."""
        for sequence in sequences:
            self.engine.free(sequence, self._loop.time())
        self._set_timer()

    def forget(self) -> bool:
        """Forget the prefix cache; False while a request holds a block of it."""
        forgotten = self.engine.forget(self._loop.time())
        self._set_timer()
        return forgotten

    def settle(self) -> None:
        """Bring counters and gauges up to now."""
        if self.engine.due_s is not None:
            self.engine.settle(self._loop.time())
            self._set_timer()

    def stop(self) -> None:
        """Drop everything; no timer is left."""
        self.engine.reset(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        due_s = self.engine.due_s
        if due_s is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if due_s == self._timer_due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = self._loop.call_at(max(due_s, self._loop.time() + _MIN_SLEEP_S), self._wake)

    def _wake(self) -> None:
        self._timer = None
        # Timers are rounded to milliseconds and may come early; waiting again for the rest would only spin.
        self.engine.advance(max(self._loop.time(), self._timer_due_s))
        self._set_timer()


class Generation:
    """Answers being produced for one HTTP request; a context manager that leaves nothing behind in the engine.

    Args:
        driver: of the engine that works on it.
        sequences: prompts with their answers; ``on_progress`` is set here.

    Raises:
        ValueError: a prompt can never fit.
    """

    def __init__(self, driver: EngineDriver, sequences: Many[Sequence]) -> None:
        self.sequences = sequences
        self._driver = driver
        self._changed = asyncio.Event()
        self._is_handed_over = False
        for sequence in sequences:
            sequence.on_progress = self._changed.set
        driver.submit(sequences)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.abort([s for s in self.sequences if not s.ended])
        if not self._is_handed_over:
            self._driver.free([s for s in self.sequences if s.kept])

    def hand_over(self) -> Many[Sequence]:
        """The sequences; their kept blocks are given up by who calls this."""
        self._is_handed_over = True
        return self.sequences

    async def progress(self) -> bool:
        """Wait until there is something new; False when all have ended.

        Raises:
            EngineStoppedError: the server was killed meanwhile.
        """
        await self._changed.wait()
        self._changed.clear()
        if any(s.phase is Phase.ABORTED for s in self.sequences):
            raise EngineStoppedError
        return not all(s.ended for s in self.sequences)

    async def finish(self) -> None:
        """Wait until all have ended.

        Raises:
            EngineStoppedError: the server was killed meanwhile.
        """
        while await self.progress():
            pass


class EngineStoppedError(Exception):
    """The engine dropped the request because its server stops."""
