"""Runs the effects of a stream's machine: calls the handler, collects what is to be sent.

Still without I/O: whoever owns the wire feeds messages in, sends ``outbox`` in order, then closes as ``closing`` says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from epp.extproc.machine import Machine
from epp.extproc.messages import (
    Call,
    CallFinished,
    CallRequest,
    CallResponseBody,
    CallResponseHeaders,
    Close,
    Effect,
    Incoming,
    Opening,
    Outgoing,
    Status,
    StreamedBody,
)
from epp.framework import log
from epp.seam import Outcome, Reply, RequestHandler, Route

_logger = log.get(__name__)

_DEFECT = "internal error"
_NOT_SENT = (CallRequest, CallResponseHeaders, CallResponseBody, CallFinished, Close)


class Session:
    """One stream with its handler; implements ``handler.Stream``.

    What the handler is only told (chunks that were forwarded, the end) waits in ``told`` until what precedes it is on its
    way: call ``tell`` then.

    Args:
        machine: the stream's state.
        handler: decides.
        wake: called when an answer came from outside a call; ``resume`` must be called soon.
        clock: seconds, monotonic.
    """

    __slots__ = (
        "_answers",
        "_clock",
        "_handler",
        "_machine",
        "_running",
        "_since_s",
        "_wake",
        "closing",
        "outbox",
        "state",
        "told",
    )

    def __init__(self, machine: Machine, handler: RequestHandler, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self.state: object = None
        self.outbox: deque[Outgoing] = deque()
        """To be sent, in this order."""
        self.told: list[Call] = []
        """Calls that wait for the outbox to be on its way."""
        self.closing: Close | None = None
        """How to end the stream once the outbox is empty; None while it lasts."""
        self._machine = machine
        self._handler = handler
        self._wake = wake
        self._clock = clock
        self._answers: list[Route | Reply] = []
        self._running = False
        self._since_s: float | None = None

    @property
    def deadline_s(self) -> float | None:
        """When ``tick`` is due; None if only a message can change anything."""
        return self._machine.deadline_s

    def answer(self, answer: Route | Reply) -> None:
        """Record a decision; it is carried out when the current call is over, or by ``resume``."""
        self._answers.append(answer)
        if not self._running and len(self._answers) == 1:
            self._wake()

    def open(self, opening: Opening) -> None:
        """What the first message says about the stream; before it is fed."""
        self._machine.open(opening)

    def feed(self, message: Incoming, now: float) -> None:
        """A message came, or the data plane left."""
        self._since_s = now
        self._guard(now, self._machine.feed, message, now)
        self._since_s = None
        response = self._machine.response
        if response.seen:
            response.busy_s += self._clock() - now

    def resume(self, now: float) -> None:
        """Carry out answers that came from outside."""
        self._guard(now, tuple)

    def tick(self, now: float) -> None:
        """Time passed."""
        self._guard(now, self._machine.tick, now)

    def abort(self, status: Status, why: str, now: float) -> None:
        """End the stream with an error."""
        self._guard(now, self._machine.abort, status, why, now)

    def retire(self) -> None:
        """The stream is over: answers that still come wake nobody, and its owner is let go without a garbage collection."""
        self._wake = _wake_nobody

    def tell(self) -> None:
        """Make the calls that waited for the outbox to be on its way."""
        if self.told:
            self._guard(self._clock(), self._make_told_calls)

    def _make_told_calls(self) -> Sequence[Effect]:
        calls, self.told = self.told, []
        now = self._clock()
        for call in calls:
            self._perform(call, now)
        return ()

    def _guard(self, now: float, step: Callable[..., Sequence[Effect]], *args: object) -> None:
        """Take a step, then what the handler answered; an exception, the handler's or ours, ends this stream only."""
        outer, self._running = self._running, True
        try:
            self._run(step(*args), now)
            while self._answers:
                self._run(self._machine.answer(self._answers.pop(0), now), now)
        except Exception as error:  # noqa: BLE001 — told; the stream ends, the process does not
            _logger.error("defect while serving a stream, aborting it", exc=error)
            self._run(self._machine.abort(Status.INTERNAL, _DEFECT, now), now)
            if self.closing is None:
                self.closing = Close(Status.INTERNAL, _DEFECT)
        finally:
            self._running = outer

    def _run(self, effects: Sequence[Effect], now: float) -> None:
        for effect in effects:
            if type(effect) is StreamedBody or not isinstance(effect, _NOT_SENT):
                self.outbox.append(effect)
            elif isinstance(effect, Close):
                self.closing = effect
            elif self.outbox and _is_told(effect):
                self.told.append(effect)
            else:
                self.tell()
                self._run(self._perform(effect, now), now)

    def _perform(self, call: Call, now: float) -> Sequence[Effect]:
        handler, machine = self._handler, self._machine
        if isinstance(call, CallRequest):
            handler.request(self, call.request)
            return ()
        if isinstance(call, CallResponseHeaders):
            return machine.edited(handler.response_headers(self, call.head), now)
        if isinstance(call, CallResponseBody):
            handler.response_body(self, call.chunks)
            return ()
        metadata = handler.finished(self, self._timed(call.outcome))
        return machine.released(metadata) if call.held else ()

    def _timed(self, outcome: Outcome) -> Outcome:
        """The outcome with the time spent until now, also on the message that is being fed."""
        response = self._machine.response
        if not response.seen:
            return outcome
        current_s = 0.0 if self._since_s is None else self._clock() - self._since_s
        return outcome._replace(busy_s=response.busy_s + current_s)


def _wake_nobody() -> None:
    pass


def _is_told(call: Call) -> bool:
    return isinstance(call, CallResponseBody) or (isinstance(call, CallFinished) and not call.held)
