"""What the receiver of KV events counts: written by its thread, read by the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from plugins.kvcache.sequence import Sequence as Numbers


class ReceiverCounts(NamedTuple):
    """What happened since the start; copies."""

    received: dict[str, int]
    """Messages by pod, "" for the central socket."""
    dropped: dict[str, int]
    """By reason: frames, topic, stranger, replay."""
    errors: dict[tuple[str, str], int]
    """By pod and operation."""
    reconnections: dict[str, int]
    """By pod."""
    subscribers: int
    gaps: int
    missed: int
    restarts: int
    replays: int
    replays_failed: int


class Tally:
    """The counters, and what publishers counted that are gone."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self._past: Counter[str] = Counter()

    def forget(self, pod: str) -> None:
        """A pod is gone, with its series."""
        self.received.pop(pod, None)
        for key in [key for key in self.errors if key[0] == pod]:
            del self.errors[key]

    def add_past(self, numbers: Numbers) -> None:
        """A publisher is gone; what it missed still counts."""
        for name, count in _of(numbers).items():
            self._past[name] += count

    def after(self, numbers: Iterable[Numbers]) -> Tally:
        """A copy for when these publishers are gone, too; nobody who reads this one meanwhile sees a part of it."""
        copy = Tally()
        copy.received.update(self.received)
        copy.dropped.update(self.dropped)
        copy.errors.update(self.errors)
        copy._past.update(self._past)
        for each in numbers:
            copy.add_past(each)
        return copy

    def counts(self, numbers: Iterable[Numbers], reconnections: dict[str, int], subscribers: int) -> ReceiverCounts:
        """A copy.

        Args:
            numbers: of the publishers that are there.
        """
        totals = Counter(self._past)
        for each in numbers:
            totals.update(_of(each))
        return ReceiverCounts(
            dict(self.received),
            dict(self.dropped),
            dict(self.errors),
            reconnections,
            subscribers,
            **{name: totals[name] for name in ("gaps", "missed", "restarts", "replays", "replays_failed")},
        )


def _of(numbers: Numbers) -> dict[str, int]:
    return {
        "gaps": numbers.gaps,
        "missed": numbers.missed,
        "restarts": numbers.restarts,
        "replays": numbers.replays_done,
        "replays_failed": numbers.replays_failed,
    }
