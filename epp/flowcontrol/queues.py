"""Tickets in the flows of a priority band: what waits, and whose turn it is.

What waits is in heaps whose keys never change. A ticket that leaves otherwise than by its turn (its client left, its time is
up) is counted out at once and stays in its heap as a dead entry, until it comes to the top or dead entries outnumber the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf

from epp.flowcontrol.drain_rate import DrainRate
from epp.flowcontrol.settings import BandSettings, DefectSink
from epp.flowcontrol.tickets import State, Ticket
from epp.framework.flow_control import Turns

MIN_DEAD = 64
"""Below that many dead entries a heap is not worth looking through."""


Entry = tuple[float, float, int, Ticket]


class Queue:
    """A heap of tickets, with dead entries."""

    __slots__ = ("_dead", "_heap")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._dead = 0

    def push(self, entry: Entry) -> None:
        """Add a ticket."""
        heappush(self._heap, entry)

    def first(self) -> Ticket | None:
        """The ticket whose turn it is."""
        heap = self._heap
        while heap:
            ticket = heap[0][3]
            if ticket.state is State.WAITING:
                return ticket
            heappop(heap)
            self._dead -= 1
        return None

    def pop(self) -> None:
        """Remove ``first``."""
        heappop(self._heap)

    def leave(self) -> None:
        """A ticket somewhere inside waits no more."""
        self._dead += 1
        if self._dead > MIN_DEAD and self._dead * 2 > len(self._heap):
            self._begin(list(self.live()))

    def reorder(self, entry: Callable[[Ticket], Entry]) -> None:
        """Go on by other keys."""
        self._begin([entry(old[3]) for old in self.live()])

    def live(self) -> Iterator[Entry]:
        """The entries that still wait, in no order."""
        return (entry for entry in self._heap if entry[3].state is State.WAITING)

    def _begin(self, heap: list[Entry]) -> None:
        heapify(heap)
        self._heap = heap
        self._dead = 0


class Flow:
    """The waiting requests of one fairness id in one band; exists only while there are some. A ``WaitingFlow``."""

    __slots__ = ("bytes", "count", "id", "queue")

    def __init__(self, flow_id: str, queue: Queue) -> None:
        self.id = flow_id
        self.queue = queue
        """Its own, or that of the whole band."""
        self.count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self.count

    @property
    def head(self) -> Ticket:
        """The first by the ordering policy."""
        first = self.queue.first()
        assert first is not None
        return first


class Band:
    """All requests of one priority.

    Args:
        priority: its own.
        settings: limits and policies.
        on_defect: told of policies that fail.
    """

    __slots__ = (
        "_on_defect",
        "_queue",
        "_turns",
        "bytes",
        "count",
        "deficit",
        "drain",
        "flows",
        "idle_since_s",
        "index",
        "priority",
        "settings",
    )

    def __init__(self, priority: int, settings: BandSettings, on_defect: DefectSink) -> None:
        self.priority = priority
        self.settings = settings
        self.index = 0
        """Position among all bands, from the highest priority."""
        self.count = 0
        self.bytes = 0
        self.flows: dict[str, Flow] = {}
        self.drain = DrainRate()
        self.deficit = 0.0
        """What is owed to its share, in requests."""
        self.idle_since_s = 0.0
        """When its last request left."""
        self._on_defect = on_defect
        self._queue = Queue()
        self._turns: Turns | None = None
        self._take_turns()

    def use(self, settings: BandSettings) -> None:
        """Go on by other settings: what waits is put in order by the policies that are new. Turns go on by the policy that made
        them.
        """
        former, self.settings = self.settings, settings
        if settings.fairness.plugin is former.fairness.plugin:
            if settings.ordering.plugin is not former.ordering.plugin:
                for queue in self._queues():
                    queue.reorder(self._entry)
            return
        waiting = sorted(self.waiting(), key=lambda ticket: ticket.seq)
        self._queue = Queue()
        self.flows = {}
        self.count = self.bytes = 0
        self._take_turns()
        for ticket in waiting:
            self.push(ticket)

    def waiting(self) -> Iterator[Ticket]:
        """Its waiting tickets, in no order."""
        return (entry[3] for queue in self._queues() for entry in queue.live())

    def shortage(self, flow_id: str, size_bytes: int) -> str:
        """The limit that one more request would pass, as a client reads it; "" = there is room."""
        limits = self.settings
        if self.bytes + size_bytes > limits.max_bytes:
            return "the queue of its priority holds as many bytes as it may"
        if self.count >= limits.max_requests:
            return "the queue of its priority is at capacity"
        if not limits.max_flow_requests and not limits.max_flow_bytes:
            return ""
        flow = self.flows.get(flow_id)
        count, held = (flow.count, flow.bytes) if flow is not None else (0, 0)
        if limits.max_flow_requests and count >= limits.max_flow_requests:
            return "the queue of its fairness id is at capacity"
        if limits.max_flow_bytes and held + size_bytes > limits.max_flow_bytes:
            return "the queue of its fairness id holds as many bytes as it may"
        return ""

    def push(self, ticket: Ticket) -> None:
        """A ticket waits from now on."""
        ticket.state = State.WAITING
        flow_id = ticket.request.fairness_id
        flow = self.flows.get(flow_id)
        begins = flow is None
        if flow is None:
            flow = self.flows[flow_id] = Flow(flow_id, self._queue if self._turns is None else Queue())
        ticket.flow = flow
        ticket.queue = flow.queue
        flow.queue.push(self._entry(ticket))
        flow.count += 1
        flow.bytes += ticket.size_bytes
        self.count += 1
        self.bytes += ticket.size_bytes
        if begins and self._turns is not None:
            self._tell(self._turns.begin, flow)

    def take(self, now_s: float) -> Ticket | None:
        """The ticket whose turn it is, which waits no more; None if no turn can be told."""
        queue = self._queue
        if self._turns is not None:
            flow = self._next(self._turns, now_s)
            if flow is None:
                return None
            queue = flow.queue
        ticket = queue.first()
        if ticket is None:
            return None
        queue.pop()
        self._count_out(ticket, now_s)
        return ticket

    def remove(self, ticket: Ticket, now_s: float) -> None:
        """A ticket waits no more, though it is not its turn; its state says so already."""
        self._count_out(ticket, now_s)
        ticket.queue.leave()

    def oldest_s(self) -> float:
        """When the oldest waiting request came; infinity if there is none. Looks through all of them."""
        return min((ticket.enqueued_s for ticket in self.waiting()), default=inf)

    def _queues(self) -> list[Queue]:
        return [self._queue] if self._turns is None else [flow.queue for flow in self.flows.values()]

    def _take_turns(self) -> None:
        policy = self.settings.fairness
        self._turns = None
        try:
            if policy.plugin.by_flow:
                self._turns = policy.plugin.new_turns()
        except Exception as error:  # noqa: BLE001 — reported; its flows are one queue then
            self._on_defect("FairnessPolicy", policy, error)

    def _entry(self, ticket: Ticket) -> Entry:
        policy = self.settings.ordering
        try:
            first, second = policy.plugin.sort_key(ticket)
            if first == first and second == second:
                return (float(first), float(second), ticket.seq, ticket)
            self._on_defect("OrderingPolicy", policy, f"gave NaN as a sort key: {(first, second)}")
        except Exception as error:  # noqa: BLE001 — reported; the request waits in the order of arrival
            self._on_defect("OrderingPolicy", policy, error)
        return (ticket.enqueued_s, 0.0, ticket.seq, ticket)

    def _next(self, turns: Turns, now_s: float) -> Flow | None:
        policy = self.settings.fairness
        try:
            chosen = turns.next(now_s)
            if chosen is None:
                return None
            flow = self.flows.get(chosen.id)
        except Exception as error:  # noqa: BLE001 — reported; the band is passed over
            self._on_defect("FairnessPolicy", policy, error)
            return None
        if flow is None:
            self._on_defect("FairnessPolicy", policy, f"chose the flow {chosen.id!r}, of which nothing waits")
        return flow

    def _count_out(self, ticket: Ticket, now_s: float) -> None:
        flow: Flow = ticket.flow
        flow.count -= 1
        flow.bytes -= ticket.size_bytes
        self.count -= 1
        self.bytes -= ticket.size_bytes
        if not flow.count:
            del self.flows[flow.id]
            if self._turns is not None:
                self._tell(self._turns.cease, flow)
        if not self.count:
            self.idle_since_s = now_s
            self.deficit = 0.0

    def _tell(self, tell: Callable[[Flow], None], flow: Flow) -> None:
        try:
            tell(flow)
        except Exception as error:  # noqa: BLE001 — reported
            self._on_defect("FairnessPolicy", self.settings.fairness, error)
