"""Ending running requests of a low priority for waiting ones of a high one, a few at a time.

Each decision ends at most two requests and then waits until their streams are seen to end and until the detector must show what
that freed; only then the next one is made. What frees nothing that can be seen is thus never repeated blindly.
Source: llm-d-router: pkg/epp/flowcontrol/eviction, pkg/epp/flowcontrol/controller/internal/reclamation.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import ceil, inf, isfinite

from epp.flowcontrol.queues import MIN_DEAD, Band
from epp.flowcontrol.settings import DefectSink, EvictionSettings
from epp.flowcontrol.tickets import Ticket
from epp.telemetry.flow_control import FlowMetrics

MAX_REVOCATIONS = 2
"""Of one decision."""
CONFIRMATION_S = 10.0
"""A stream that has not ended by then counts as ended: its data plane may be gone."""


class Evictor:
    """The running requests of a pool, and those that were ended.

    Args:
        settings: filter, order, grace.
        metrics: where decisions are counted.
        on_defect: told of policies that fail.
    """

    def __init__(self, settings: EvictionSettings, metrics: FlowMetrics, on_defect: DefectSink) -> None:
        self._settings = settings
        self._metrics = metrics
        self._on_defect = on_defect
        self._running: dict[Ticket, Callable[[], None] | None] = {}
        """All of them; None = may not be ended."""
        self._heap: list[tuple[float, float, int, Ticket]] = []
        """Those that may be ended, the first one first, with dead entries."""
        self._evictable = 0
        self._outstanding: dict[Ticket, float] = {}
        """Ended requests whose stream was not seen to end → when they were ended."""
        self._cool_s = -inf
        """Until when what was freed may not show."""
        self.target = 0.0
        """What the last decision wanted to free."""
        self._pending = 0.0

    def use(self, settings: EvictionSettings) -> None:
        """Go on by other settings; what runs stays where it is in the order."""
        self._settings = settings

    # ── what runs ──

    def track(self, ticket: Ticket, evict: Callable[[], None]) -> None:
        """A request runs."""
        key = self._key(ticket)
        self._running[ticket] = evict if key is not None else None
        if key is not None:
            heappush(self._heap, (*key, -ticket.seq, ticket))
            self._evictable += 1

    def untrack(self, ticket: Ticket, now_s: float) -> None:
        """It is over; nothing happens if it was not tracked."""
        if self._running.pop(ticket, None) is not None:
            self._evictable -= 1
            dead = len(self._heap) - self._evictable
            if dead > MIN_DEAD and dead * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if self._may_end(entry[3])]
                heapify(self._heap)
        issued_s = self._outstanding.pop(ticket, None)
        if issued_s is not None:
            self._confirmed("confirmed", now_s)
            self._metrics.histogram("revocation_confirmation_seconds").observe(now_s - issued_s)

    @property
    def pending(self) -> float:
        """Saturation whose freeing does not show yet."""
        return self._pending

    def has_victim(self, priority: int) -> bool:
        """A request that may be ended for one of this priority runs. Looks through all of them."""
        return any(evict is not None and ticket.request.priority < priority for ticket, evict in self._running.items())

    def state(self) -> dict[str, object]:
        """For the debug page."""
        return {"running": len(self._running), "evictable": self._evictable, "outstanding": len(self._outstanding)}

    # ── decisions ──

    def give_up(self, now_s: float) -> None:
        """Ended requests whose streams do not end count as over."""
        late = [ticket for ticket, issued_s in self._outstanding.items() if now_s - issued_s >= CONFIRMATION_S]
        for ticket in late:
            del self._outstanding[ticket]
            self._confirmed("timed_out", now_s)
        if not self._outstanding and now_s >= self._cool_s:
            self._pending = 0.0

    def close(self, now_s: float) -> None:
        """Nobody is ended any more, and the streams of those who were are not waited for."""
        while self._outstanding:
            self._outstanding.popitem()
            self._confirmed("timed_out", now_s)

    def next_s(self) -> float:
        """When the next decision is possible; -infinity = at any time, infinity = once a stream ends."""
        if self._outstanding:
            return min(self._outstanding.values()) + CONFIRMATION_S
        return self._cool_s

    def reclaim(self, now_s: float, saturation: float, ceilings: Sequence[float], blocked: Sequence[Band]) -> int:
        """Perhaps end running requests.

        Args:
            saturation: of the pool.
            ceilings: of ``blocked``.
            blocked: the first band that is stopped, and all below.

        Returns:
            How many were ended.
        """
        self.give_up(now_s)
        if self._outstanding or now_s < self._cool_s:
            return 0
        demand = self._demand(saturation, ceilings, blocked)
        if demand is None:
            return 0
        band, ceiling = demand
        credit = saturation / len(self._running)
        if not (credit > 0 and isfinite(credit)):
            return 0
        self.target = saturation - ceiling
        wanted = min(max(1, ceil(self.target / credit - 1e-9)), MAX_REVOCATIONS)
        ended = 0
        while ended < wanted and (victim := self._first()) is not None and victim.request.priority < band.priority:
            self._end(victim, now_s)
            ended += 1
        if ended:
            self._pending = ended * credit
            self._metrics.counter("revocations_issued_total", priority=str(band.priority)).inc(ended)
        return ended

    def _demand(self, saturation: float, ceilings: Sequence[float], blocked: Sequence[Band]) -> tuple[Band, float] | None:
        """The band for which requests are ended, with its ceiling."""
        victim = self._first()
        if victim is None:
            return None
        for band, ceiling in zip(blocked, ceilings, strict=True):
            if band.priority <= victim.request.priority:
                return None
            if ceiling > 0 and saturation >= ceiling and band.count:
                return band, ceiling
        return None

    def _end(self, victim: Ticket, now_s: float) -> None:
        evict = self._running[victim]
        assert evict is not None
        heappop(self._heap)
        self._evictable -= 1
        self._running[victim] = None
        self._outstanding[victim] = now_s
        evict()

    def _first(self) -> Ticket | None:
        """The request that would be ended first."""
        while self._heap:
            ticket = self._heap[0][3]
            if self._may_end(ticket):
                return ticket
            heappop(self._heap)
        return None

    def _may_end(self, ticket: Ticket) -> bool:
        return self._running.get(ticket) is not None

    def _confirmed(self, outcome: str, now_s: float) -> None:
        self._cool_s = max(self._cool_s, now_s + self._settings.grace_s)
        self._metrics.counter("revocations_total", outcome=outcome).inc()

    def _key(self, ticket: Ticket) -> tuple[float, float] | None:
        """Its place in the order; None if it may not be ended."""
        policy = self._settings.filter
        try:
            if not policy.plugin.may_evict(ticket):
                return None
        except Exception as error:  # noqa: BLE001 — reported; the request is safe
            self._on_defect("EvictionFilter", policy, error)
            return None
        order = self._settings.order
        try:
            first, second = order.plugin.sort_key(ticket)
            if first == first and second == second:
                return float(first), float(second)
            self._on_defect("EvictionOrderPolicy", order, f"gave NaN as a sort key: {(first, second)}")
        except Exception as error:  # noqa: BLE001 — reported; the request is safe
            self._on_defect("EvictionOrderPolicy", order, error)
        return None
