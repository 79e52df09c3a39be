"""Transcripts of ext_proc streams as data, and what plays them on the bare machine.

A case says what the data plane does, what the handler answers, and, step by step, what must be sent and which calls must
have been made. The same cases run on every transport over loopback (``tests/extproc/wire.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from epp.extproc.answers import Rules
from epp.extproc.body import Budget
from epp.extproc.driver import Session
from epp.extproc.machine import Machine
from epp.extproc.messages import Incoming, Opening, Outgoing, Status
from epp.seam import (
    BodyState,
    Chunk,
    Edits,
    End,
    Metadata,
    Outcome,
    Plan,
    Reply,
    Request,
    ResponseHead,
    Route,
    Settings,
    Stream,
)

DESTINATION = "x-gateway-destination-endpoint"
PICKED = "10.0.0.1:8000"
PICKED_METADATA: Metadata = {"envoy.lb": {DESTINATION: PICKED}}

SETTINGS = Settings(
    request_strip=frozenset({"x-spoof"}),
    response_strip=frozenset({"x-internal"}),
    response_set=(("x-went-into-resp-headers", "true"),),
    max_body_bytes=1_000_000,
    max_buffered_bytes=1_500_000,
    body_idle_s=60.0,
    gap_bounds_s=(0.5, 2.0),
)


class PlainHeaders:
    """Headers as a list of pairs; implements ``messages.WireHeaders``."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = pairs

    def get(self, name: str) -> str | None:
        return {key.lower(): value for key, value in self.pairs}.get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        return ((name.lower(), value) for name, value in self.pairs)

    def names(self) -> AbstractSet[str]:
        return {name.lower() for name, _ in self.pairs}


def routed(plan: Plan | None = None, headers: Edits | None = None, splices: tuple[tuple[int, int, bytes], ...] = ()) -> Route:
    """A route to the picked endpoint."""
    edits = headers or Edits()
    return Route(
        Edits(((DESTINATION, PICKED), *edits.set), edits.remove),
        PICKED_METADATA,
        plan or Plan(),
        splices,
    )


EVICTED = Reply(429, b"evicted", (("x-reason", "evicted"),))
REFUSED = Reply(503, b"no endpoints")


# ── what the handler does ──


class Script(NamedTuple):
    """What a handler answers."""

    answer: Route | Reply | None = routed()
    """Inside ``request``; None: not yet."""
    edits: Edits | None = None
    at_headers: Route | Reply | None = None
    """Answered from inside ``response_headers``."""
    metadata: Metadata | None = None
    """Returned from ``finished``."""


ROUTES = Script()


class Recorder:
    """A handler that follows a script and writes down its calls; ``changed`` is told of each."""

    def __init__(self, script: Script, changed: Callable[[], None] = lambda: None) -> None:
        self.script = script
        self.calls: list[tuple[object, ...]] = []
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []
        self.stream: Stream | None = None
        self._changed = changed

    def request(self, stream: Stream, request: Request) -> None:
        self.stream = stream
        self.requests.append(request)
        self._note("request", request.body_state, bytes(request.body))
        if self.script.answer is not None:
            stream.answer(self.script.answer)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        self._note("response_headers", head.status)
        if self.script.at_headers is not None:
            stream.answer(self.script.at_headers)
        return self.script.edits

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._note("response_body", chunk.data, chunk.end)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        self.outcomes.append(outcome)
        self._note("finished", outcome.end, outcome.complete)
        return self.script.metadata

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        self._changed()


# ── what the data plane does ──


class Late(NamedTuple):
    """The handler answers outside a call."""

    answer: Route | Reply


class Wait(NamedTuple):
    """Nothing comes for some time; bare machine only."""

    seconds: float


Does = Incoming | Late | Wait


class Step(NamedTuple):
    """Something happens; then these are sent, and these calls are made."""

    does: Does
    sent: tuple[Outgoing, ...] = ()
    calls: tuple[tuple[object, ...], ...] = ()


FULL_DUPLEX = Opening(configured=True)


@dataclass(frozen=True)
class Case:
    """One transcript."""

    id: str
    steps: tuple[Step, ...]
    status: Status | None = Status.OK
    """How we close the stream; None: we do not, or the data plane is gone."""
    opening: Opening = FULL_DUPLEX
    script: Script = ROUTES
    settings: Settings = SETTINGS
    wire: bool = True
    """False: needs a clock, a failing send, or a message on a closed stream, so it runs on the bare machine only."""


# ── calls, as a case writes them ──


def asked(body: bytes = b"", state: BodyState = BodyState.COMPLETE) -> tuple[object, ...]:
    return ("request", state, body)


def finished(end: End, complete: bool = False) -> tuple[object, ...]:
    return ("finished", end, complete)


NATURAL = finished(End.NATURAL, True)
UNSEEN_END = finished(End.NATURAL, False)
DISCONNECTED = finished(End.DISCONNECTED)
REPLIED = finished(End.REPLIED)
FAILED = finished(End.FAILED)


# ── the bare machine ──


class Bare:
    """A machine with its handler, without any wire.

    Args:
        case: its settings, opening and script are used.
    """

    def __init__(self, case: Case) -> None:
        self.budget = Budget(case.settings.max_buffered_bytes)
        self.machine = Machine(Rules(case.settings), self.budget)
        self.handler = Recorder(case.script)
        self.now = 1000.0
        self.session = Session(self.machine, self.handler, self._wake, lambda: self.now)
        self.session.open(case.opening)

    def _wake(self) -> None:
        """``does`` resumes the session itself."""

    def does(self, what: Does) -> tuple[Outgoing, ...]:
        """Let it happen.

        Returns:
            What was sent.
        """
        session = self.session
        self.now += 0.001
        if isinstance(what, Late):
            assert self.handler.stream is not None
            self.handler.stream.answer(what.answer)
            session.resume(self.now)
        elif isinstance(what, Wait):
            self.now += what.seconds
            session.tick(self.now)
        else:
            session.feed(what, self.now)
        sent = tuple(session.outbox)
        session.outbox.clear()
        session.tell()
        return sent


def play(case: Case, make: type[Bare] = Bare) -> Bare:
    """Play a case on a bare machine and compare every step."""
    bare = make(case)
    for number, step in enumerate(case.steps):
        before = len(bare.handler.calls)
        sent = bare.does(step.does)
        assert sent == step.sent, f"step {number}: {step.does}"
        assert tuple(bare.handler.calls[before:]) == step.calls, f"step {number}: {step.does}"
    closing = bare.session.closing
    assert (None if closing is None else closing.status) == case.status
    return bare
