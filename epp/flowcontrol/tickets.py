"""A request under flow control: one object from its arrival to the end of its stream, whether it waits or not."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, cast

from epp.flowcontrol.admission import Hold
from epp.framework.types import InferenceRequest
from epp.telemetry.flow_control import FlowSeries

if TYPE_CHECKING:
    from epp.flowcontrol.queues import Band, Flow, Queue


class State(IntEnum):
    """Where a ticket is; it only moves on."""

    NEW = 0
    WAITING = 1
    LET_GO = 2
    """Being scheduled: it holds a credit."""
    RUNNING = 3
    OVER = 4


class Desk(Protocol):
    """Who is told by tickets."""

    def left(self, ticket: Ticket) -> None: ...
    def decided(self, ticket: Ticket, evict: Callable[[], None] | None) -> None: ...
    def over(self, ticket: Ticket) -> None: ...


class Ticket(Hold):
    """One request under flow control, to the end of its stream: a ``WaitingRequest``, then a ``RunningRequest``."""

    __slots__ = (
        "_desk",
        "band",
        "deadline_s",
        "dispatched_s",
        "empty_pool_ttl_s",
        "enqueued_s",
        "flow",
        "last_s",
        "queue",
        "request",
        "seq",
        "series",
        "size_bytes",
        "state",
        "tokens",
        "ttl_s",
    )

    band: Band
    flow: Flow
    queue: Queue
    ttl_s: float
    empty_pool_ttl_s: float
    last_s: float
    """When its caller gives up."""
    deadline_s: float
    dispatched_s: float

    def __init__(self, desk: Desk, request: InferenceRequest, band: Band, series: FlowSeries, seq: int, now_s: float) -> None:
        self.error = None
        self.is_ended = False
        self.ahead = 0
        self.held_s = 0.0
        self._resume = None
        self._desk = desk
        self.request = request
        self.band = band
        self.series = series
        self.seq = seq
        """Tells arrivals of one moment apart."""
        self.enqueued_s = now_s
        self.size_bytes = request.size_bytes
        self.state = State.NEW
        self.tokens = 0
        """Of the credit that it holds."""
        # What only waiting requests have is set when one waits: ``flow``, ``queue``, ``ttl_s``, ``empty_pool_ttl_s``,
        # ``last_s``, ``deadline_s``; what only running ones have when one is let go: ``dispatched_s``.

    def withdraw(self) -> None:
        """As ``Hold.withdraw``."""
        if not self.is_ended:
            self.is_ended = True
            self._desk.left(self)

    def decided(self, evict: Callable[[], None] | None) -> None:
        """As ``Hold.decided``."""
        self._desk.decided(self, evict)

    def over(self) -> None:
        """As ``Hold.over``. Heaps may keep it for long, as a dead entry; the request with its body must not stay with it."""
        self._desk.over(self)
        self._resume = None
        self.request = cast("InferenceRequest", None)  # nobody asks for it any more
