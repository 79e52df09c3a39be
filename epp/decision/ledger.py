"""The requests that are scheduled and not over: state that decisions, plugins and telemetry read."""

from __future__ import annotations

from collections.abc import Mapping

from epp.telemetry.requests import RequestLabels


class Ledger:
    """Counts the requests in flight of one pool. Bounded by them: labels that nobody runs under are dropped."""

    __slots__ = ("_by_labels", "running")

    def __init__(self) -> None:
        self.running = 0
        """Of all labels together."""
        self._by_labels: dict[RequestLabels, int] = {}

    @property
    def by_labels(self) -> Mapping[RequestLabels, int]:
        """How many run under each set of labels, at least 1 each."""
        return self._by_labels

    def enter(self, labels: RequestLabels) -> None:
        """A request was scheduled."""
        self.running += 1
        self._by_labels[labels] = self._by_labels.get(labels, 0) + 1

    def leave(self, labels: RequestLabels) -> None:
        """It is over; exactly once for each ``enter``, with equal labels."""
        self.running -= 1
        left = self._by_labels[labels] - 1
        if left:
            self._by_labels[labels] = left
        else:
            del self._by_labels[labels]
