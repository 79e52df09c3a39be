"""When waiting requests have waited long enough: two budgets, of which one counts at a time.

While the pool has endpoints a request waits for room, while it has none for the first endpoint. Whenever that changes,
everybody's budget begins again, so that nobody is refused in the moment in which it could be served; a hard limit bounds that
for a pool that keeps changing. Source: llm-d-router: pkg/epp/flowcontrol/controller.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf

from epp.flowcontrol.queues import MIN_DEAD
from epp.flowcontrol.tickets import State, Ticket

HARD_LIMIT_S = 2.0
"""On top of the larger budget; two of llm-d-router's sweeps."""


class Deadlines:
    """The deadlines of all waiting tickets; those without one are not kept."""

    def __init__(self) -> None:
        self.pool_is_empty = False
        self._since_s = -inf
        """When the pool became empty or got its first endpoint."""
        self._heap: list[tuple[float, int, Ticket]] = []
        self._dead = 0

    def add(self, ticket: Ticket) -> None:
        """A ticket waits."""
        deadline_s = ticket.deadline_s = self._deadline(ticket)
        if deadline_s < inf:
            heappush(self._heap, (deadline_s, ticket.seq, ticket))

    def remove(self, ticket: Ticket) -> None:
        """It waits no more; its state says so already."""
        if ticket.deadline_s == inf:
            return
        self._dead += 1
        if self._dead > MIN_DEAD and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].state is State.WAITING]
            heapify(self._heap)
            self._dead = 0

    def begin(self, *, pool_is_empty: bool) -> None:
        """What the pool is at the start; budgets count from arrival."""
        self.pool_is_empty = pool_is_empty

    def switch(self, now_s: float, waiting: Iterable[Ticket], *, pool_is_empty: bool) -> None:
        """The pool became empty, or got its first endpoint: all deadlines are others now."""
        self.pool_is_empty = pool_is_empty
        self._since_s = now_s
        self._heap = []
        self._dead = 0
        for ticket in waiting:
            ticket.deadline_s = self._deadline(ticket)
            if ticket.deadline_s < inf:
                self._heap.append((ticket.deadline_s, ticket.seq, ticket))
        heapify(self._heap)

    def next_s(self) -> float:
        """The earliest deadline; infinity if there is none."""
        heap = self._heap
        while heap:
            deadline_s, _, ticket = heap[0]
            if ticket.state is State.WAITING:
                return deadline_s
            heappop(heap)
            self._dead -= 1
        return inf

    def pop(self, now_s: float) -> Ticket | None:
        """A ticket whose time is up, which keeps no deadline here; None if there is none."""
        if self.next_s() > now_s:
            return None
        ticket = heappop(self._heap)[2]
        ticket.deadline_s = inf
        return ticket

    def _deadline(self, ticket: Ticket) -> float:
        budget_s = ticket.empty_pool_ttl_s if self.pool_is_empty else ticket.ttl_s
        deadline_s = ticket.last_s
        if budget_s > 0:
            deadline_s = min(deadline_s, max(ticket.enqueued_s, self._since_s) + budget_s)
            if ticket.ttl_s > 0 and ticket.empty_pool_ttl_s > 0:
                longest_s = max(ticket.ttl_s, ticket.empty_pool_ttl_s)
                deadline_s = min(deadline_s, ticket.enqueued_s + longest_s + HARD_LIMIT_S)
        return deadline_s
