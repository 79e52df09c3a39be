"""The Rust machine where the Python one goes: it takes serialized messages, and gives serialized answers."""

from __future__ import annotations

from collections.abc import Sequence

from epp_native import Machine

from epp.extproc.driver import Session
from epp.extproc.messages import (
    CallFinished,
    CallRequest,
    CallResponseBody,
    CallResponseHeaders,
    Close,
    Effect,
    Incoming,
    Invalid,
    Lost,
    Opening,
    Status,
)
from epp.seam import Edits, Metadata, Outcome, Reply, Route
from tests.extproc.transcripts import Bare, Case, Recorder
from tests.extproc.wire import from_wire, to_wire


class _Response:
    """What the session asks of a machine's response."""

    seen = False
    """The session then leaves ``busy_s`` alone; the Rust side counts it itself."""
    busy_s = 0.0


class TwinMachine:
    """Has the members of ``epp.extproc.machine.Machine`` that a session uses."""

    def __init__(self, twin: Machine) -> None:
        self.response = _Response()
        self._twin = twin
        self._opening: Opening | None = None

    @property
    def deadline_s(self) -> float | None:
        return self._twin.deadline_s

    def open(self, opening: Opening) -> None:
        self._opening = opening

    def feed(self, message: Incoming, now: float) -> Sequence[Effect]:
        if isinstance(message, Lost):
            return _effects(self._twin.lost(message.value, now))
        opening, self._opening = self._opening, None
        data = b"\xff\xff" if isinstance(message, Invalid) else to_wire(message, opening)
        return _effects(self._twin.feed(data, now))

    def answer(self, answer: Route | Reply, now: float) -> Sequence[Effect]:
        return _effects(self._twin.answer(answer, now))

    def edited(self, edits: Edits | None, now: float) -> Sequence[Effect]:
        return _effects(self._twin.edited(edits, now))

    def released(self, metadata: Metadata | None) -> Sequence[Effect]:
        return _effects(self._twin.released(metadata))

    def tick(self, now: float) -> Sequence[Effect]:
        return _effects(self._twin.tick(now))

    def abort(self, status: Status, why: str, now: float) -> Sequence[Effect]:
        return _effects(self._twin.abort(status is Status.UNAVAILABLE, why, now))


class _Budget:
    """Has the member of ``epp.extproc.body.Budget`` that tests look at."""

    def __init__(self, twin: Machine) -> None:
        self._twin = twin

    @property
    def used_bytes(self) -> int:
        return self._twin.buffered_bytes


class TwinBare(Bare):
    """``Bare`` with the Rust machine."""

    def __init__(self, case: Case) -> None:
        twin = Machine(case.settings)
        self.budget = _Budget(twin)  # type: ignore[assignment]
        self.machine = TwinMachine(twin)  # type: ignore[assignment]
        self.handler = Recorder(case.script)
        self.now = 1000.0
        self.session = Session(self.machine, self.handler, self._wake, lambda: self.now)
        self.session.open(case.opening)


def _effects(shown: list[tuple[object, ...]]) -> list[Effect]:
    return [_effect(*item) for item in shown]


def _effect(kind: object, *what: object) -> Effect:
    effect: Effect
    match kind, what:
        case "send", (bytes() as data,):
            effect = from_wire(data)
        case "request", (request,):
            effect = CallRequest(request)  # type: ignore[arg-type]
        case "response_headers", (head,):
            effect = CallResponseHeaders(head)  # type: ignore[arg-type]
        case "response_body", (chunk,):
            effect = CallResponseBody((chunk,))  # type: ignore[arg-type]
        case "finished", (outcome, bool() as held):
            effect = CallFinished(Outcome(*(getattr(outcome, name) for name in Outcome._fields)), held)
        case "close", (str() as status, str() as details):
            effect = Close(Status[status], details)
        case _:
            raise AssertionError(f"an effect of an unknown kind: {kind}, {what}")
    return effect
