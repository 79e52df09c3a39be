"""All priority bands: which exist, in which order, and when one that nobody needs goes away.

Band 0, configured bands and those of an objective stay; one that only requests brought about goes when it was idle for long.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count as counter

from epp.flowcontrol.queues import Band
from epp.flowcontrol.settings import DefectSink, FlowControlSettings, Named
from epp.flowcontrol.tickets import Ticket
from epp.framework.flow_control import Turns
from epp.framework.types import InferenceRequest

IDLE_S = 600.0
"""After which an idle band goes. Source: llm-d-router: pkg/epp/flowcontrol/registry."""


class Bands:
    """The bands of one pool.

    Args:
        settings: limits and policies of each.
        on_defect: told of policies that fail.
    """

    def __init__(self, settings: FlowControlSettings, on_defect: DefectSink) -> None:
        self._settings = settings
        self._on_defect = on_defect
        self._by_priority: dict[int, Band] = {}
        self._wanted: frozenset[int] = frozenset()
        self._sequence = counter()
        self.ordered: list[Band] = []
        """From the highest priority."""
        self.priorities: list[int] = []
        """Theirs."""
        self._provide({0, *settings.bands})

    # ── what waits ──

    @property
    def count(self) -> int:
        """Waiting requests of all bands."""
        return sum([band.count for band in self.ordered])

    @property
    def bytes(self) -> int:
        """Their bodies."""
        return sum([band.bytes for band in self.ordered])

    def waiting(self) -> Iterator[Ticket]:
        """All waiting tickets, in no order."""
        for band in self.ordered:
            yield from band.waiting()

    def ahead_of(self, band: Band) -> int:
        """Requests that wait in a band and in those above it."""
        return sum([other.count for other in self.ordered[: band.index + 1]])

    def next_sequence(self) -> int:
        """Number of the next arrival."""
        return next(self._sequence)

    def shortage(self, request: InferenceRequest, band: Band) -> str:
        """The limit that one more request would pass, as a client reads it; "" = there is room."""
        limits = self._settings
        if limits.max_bytes and self.bytes + request.size_bytes > limits.max_bytes:
            return "all queues together hold as many bytes as they may"
        if limits.max_requests and self.count >= limits.max_requests:
            return "all queues together are at capacity"
        return band.shortage(request.fairness_id, request.size_bytes)

    # ── which there are ──

    def of(self, priority: int, now_s: float) -> Band:
        """The band of a priority; one that nobody knows begins on the spot, by the template."""
        band = self._by_priority.get(priority)
        if band is None:
            self._provide({priority})
            band = self._by_priority[priority]
            band.idle_since_s = now_s
        return band

    def imagined(self, priority: int) -> tuple[Band, list[int]]:
        """The band of a priority and all priorities with it, descending; one that is not there is made, and not kept."""
        band = self._by_priority.get(priority)
        if band is not None:
            return band, self.priorities
        settings = self._settings.band(priority)
        alone = replace(settings, fairness=Named(_OneQueue(), settings.fairness.type, settings.fairness.name))
        return Band(priority, alone, self._on_defect), sorted([*self.priorities, priority], reverse=True)

    def want(self, priorities: Collection[int], now_s: float) -> None:
        """Objectives name these priorities: their bands stay, and those of priorities named no longer may go."""
        for priority in self._wanted.difference(priorities):
            self._by_priority[priority].idle_since_s = now_s
        self._wanted = frozenset(priorities)
        self._provide(self._wanted)

    def use(self, settings: FlowControlSettings, now_s: float) -> None:
        """Go on by other settings; a band that is configured no longer stays until it was idle for long."""
        for priority in self._settings.bands.keys() - settings.bands.keys():
            self._by_priority[priority].idle_since_s = now_s
        self._settings = settings
        for band in self.ordered:
            band.use(settings.band(band.priority))
        self._provide(set(settings.bands))

    def collect(self, now_s: float) -> bool:
        """Remove the bands that nobody needs.

        Returns:
            Whether one is left that may go later.
        """
        dynamic = [band for band in self.ordered if not self._stays(band.priority)]
        gone = [band for band in dynamic if not band.count and now_s - band.idle_since_s >= IDLE_S]
        for band in gone:
            del self._by_priority[band.priority]
        if gone:
            self._sort()
        return len(gone) < len(dynamic)

    def _stays(self, priority: int) -> bool:
        return priority == 0 or priority in self._settings.bands or priority in self._wanted

    def _provide(self, priorities: Collection[int]) -> None:
        missing = [priority for priority in priorities if priority not in self._by_priority]
        for priority in missing:
            self._by_priority[priority] = Band(priority, self._settings.band(priority), self._on_defect)
        if missing:
            self._sort()

    def _sort(self) -> None:
        self.priorities = sorted(self._by_priority, reverse=True)
        self.ordered = [self._by_priority[priority] for priority in self.priorities]
        for index, band in enumerate(self.ordered):
            band.index = index


class _OneQueue:
    """A fairness policy without turns, for a band in which nothing will ever wait."""

    by_flow = False

    def new_turns(self) -> Turns:
        raise AssertionError("there are none to take")
