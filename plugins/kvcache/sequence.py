"""One publisher's messages by their numbers: what was missed, and how it is fetched again. Without sockets and clocks.

A publisher numbers its messages from 0 and drops them for subscribers that are too slow. With a replay socket it sends the last
some thousand again; then nothing is applied out of its order. Without one, and while replaying fails, messages are applied as
they come: a pod of which a little was missed is still better known than one of which nothing is.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import NamedTuple

MAX_MISSED = 1000
"""Beyond this what is known of a pod is more wrong than right."""
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64 * 1024 * 1024
"""Live messages that wait for a replay."""
IDLE_S, TOTAL_S, BACK_OFF_S = 2.0, 120.0, 0.1
"""Of an attempt without a message, of a replay, between attempts."""
MAX_ATTEMPTS = 3
"""Without any progress."""
COOL_DOWN_S, MAX_COOL_DOWN_S = 30.0, 600.0
"""After a failure; twice as long after each further one."""
END = (1 << 64) - 1
"""Number of the message behind the last one of a replay."""


class Apply(NamedTuple):
    """Apply this payload."""

    payload: bytes


class Clear(NamedTuple):
    """Forget what the publisher said before."""


class StartReplay(NamedTuple):
    """Ask for all messages from this number on, in place of what was asked for before."""

    start: int


class StopReplay(NamedTuple):
    """Ask no longer."""


Action = Apply | Clear | StartReplay | StopReplay


class _Phase(Enum):
    LIVE = auto()
    """Each message is applied, or shows what is missing."""
    PLAIN = auto()
    """Each message is applied: nothing can be replayed, or not now."""
    REPLAYING = auto()


class Sequence:
    """The numbers of one publisher's messages. Every method returns what is to be done, in order.

    Args:
        replays: there is a replay socket.
    """

    def __init__(self, *, replays: bool = False) -> None:
        self._replays = replays
        self._phase = _Phase.LIVE if replays else _Phase.PLAIN
        self._last_live: int | None = None
        self._applied: int | None = None
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._start = 0
        self._began_s: float | None = None
        self._active_s: float | None = None
        self._attempts = 0
        self._got = False
        self._clear_first = False
        self._retry_s: float | None = None
        self._cool_down_s = COOL_DOWN_S
        self.gaps = 0
        self.missed = 0
        """Messages."""
        self.restarts = 0
        self.replays_done = 0
        self.replays_failed = 0

    @property
    def deadline_s(self) -> float | None:
        """When ``tick`` is due; None = never."""
        if self._phase is _Phase.REPLAYING:
            return None if self._active_s is None else self._active_s + IDLE_S
        return self._retry_s

    @property
    def is_replaying(self) -> bool:
        """Messages are being fetched again."""
        return self._phase is _Phase.REPLAYING

    def connected(self) -> list[Action]:
        """Fetch what was said before anybody listened."""
        return self._replay(0) if self._replays else []

    def live(self, number: int, payload: bytes, now_s: float) -> list[Action]:
        """A message as it was published."""
        before, self._last_live = self._last_live, number
        if self._phase is _Phase.PLAIN:
            return self._plain(number, payload)
        if before is not None and number < before:
            self.restarts += 1
            self._forget_waiting()
            self._applied = None
            self._wait(number, payload)
            return [Clear(), *self._replay(0)]
        if self._phase is _Phase.REPLAYING:
            self._wait(number, payload)
            full = len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES
            return self._fail(now_s) if full else []
        if self._applied is not None and number <= self._applied:
            return []
        expected = 0 if self._applied is None else self._applied + 1
        if number == expected:
            self._applied = number
            return [Apply(payload)]
        self._note_gap(number - expected, self._applied is not None)
        self._wait(number, payload)
        return self._replay(expected)

    def replay_started(self, now_s: float) -> None:
        """The request of ``StartReplay`` was sent."""
        self._active_s = now_s
        self._began_s = now_s if self._began_s is None else self._began_s

    def replayed(self, number: int, payload: bytes, now_s: float) -> list[Action]:
        """A message that was sent again."""
        if self._phase is not _Phase.REPLAYING:
            return []
        actions: list[Action] = []
        if self._clear_first:
            self._clear_first = False
            self._applied = None
            actions.append(Clear())
        self._active_s = now_s
        if self._applied is not None and number <= self._applied:
            self._got = True
            return actions
        # From 0 on: what a publisher no longer has is gone, the rest is worth having.
        expected = self._applied + 1 if self._applied is not None else number if self._start == 0 else self._start
        if number != expected:
            return [*actions, *self._fail(now_s)]
        self._got = True
        self._attempts = 0
        self._applied = number
        return [*actions, Apply(payload)]

    def replay_ended(self, now_s: float) -> list[Action]:
        """No further message will be sent again."""
        if self._phase is not _Phase.REPLAYING:
            return []
        if self._start and not self._got:
            return self._fail(now_s)
        self.replays_done += 1
        self._phase = _Phase.LIVE
        self._active_s = self._began_s = None
        self._clear_first = False
        self._attempts = 0
        self._cool_down_s = COOL_DOWN_S
        return [StopReplay(), *self._drain()]

    def replay_broke(self, now_s: float) -> list[Action]:
        """The replay socket failed."""
        return self._try_again(now_s) if self._phase is _Phase.REPLAYING else []

    def tick(self, now_s: float) -> list[Action]:
        """Time has passed."""
        if self._phase is _Phase.REPLAYING:
            if self._active_s is None or now_s < self._active_s + IDLE_S:
                return []
            return self._try_again(now_s)
        if self._retry_s is None or now_s < self._retry_s:
            return []
        self._clear_first = self._applied is not None
        return self._replay(0)

    # ── steps ──

    def _plain(self, number: int, payload: bytes) -> list[Action]:
        last, self._applied = self._applied, number
        if last is None:
            return [Apply(payload)]
        if number == last:
            return []
        if number < last:
            self.restarts += 1
            return [Clear(), Apply(payload)]
        missed = number - last - 1
        self._note_gap(missed, missed > 0)
        return [Clear(), Apply(payload)] if missed > MAX_MISSED else [Apply(payload)]

    def _replay(self, start: int) -> list[Action]:
        self._phase = _Phase.REPLAYING
        self._start = start
        self._got = False
        self._active_s = self._began_s = self._retry_s = None
        self._attempts = 0
        return [StartReplay(start)]

    def _try_again(self, now_s: float) -> list[Action]:
        """An attempt brought nothing more; the next one goes on where it ended."""
        self._attempts += 1
        began_s = self._began_s if self._began_s is not None else now_s
        if self._attempts >= MAX_ATTEMPTS or now_s >= began_s + TOTAL_S:
            return self._fail(now_s)
        if not self._clear_first and self._applied is not None:
            self._start = self._applied + 1
        self._got = False
        self._active_s = None
        return [StartReplay(self._start)]

    def _fail(self, now_s: float) -> list[Action]:
        """Replaying is given up for a while, and with it what is known, unless that came without a replay."""
        self.replays_failed += 1
        self._retry_s = now_s + self._cool_down_s
        self._cool_down_s = min(2 * self._cool_down_s, MAX_COOL_DOWN_S)
        self._phase = _Phase.PLAIN
        self._active_s = self._began_s = None
        keeps = self._clear_first
        self._clear_first = False
        actions: list[Action] = [StopReplay()]
        if not keeps:
            self._applied = None
            actions.append(Clear())
        waiting = list(self._waiting)
        self._forget_waiting()
        for number, payload in waiting:
            actions += self._plain(number, payload)
        return actions

    def _drain(self) -> list[Action]:
        """What waited for a replay that has ended."""
        actions: list[Action] = []
        while self._waiting:
            number, payload = self._waiting[0]
            if self._applied is not None and number > self._applied + 1:
                self._note_gap(number - self._applied - 1, True)
                return [*actions, *self._replay(self._applied + 1)]
            self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            if self._applied is None or number > self._applied:
                self._applied = number
                actions.append(Apply(payload))
        return actions

    def _wait(self, number: int, payload: bytes) -> None:
        self._waiting.append((number, payload))
        self._waiting_bytes += len(payload)

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def _note_gap(self, missed: int, is_gap: bool) -> None:
        if is_gap:
            self.gaps += 1
            self.missed += missed
