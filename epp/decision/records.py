"""The records of decisions: begun where somebody wants one, finished when it was answered, told of what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from epp.decision import explanation
from epp.decision.flight import Flight
from epp.seam import End, Outcome, Reply, Request, Route
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, Why
from epp.telemetry.decision_ring import KeptDecision


class DecisionLog(Protocol):
    """Takes records of the decisions that it wants."""

    def wants(self, request: Request) -> Why:
        """Why a record of this request is to be made; asked about every request."""
        ...

    def wants_failure(self) -> bool:
        """A failed decision is to be made again for the sake of its record."""
        ...

    def decided(self, record: DecisionRecord) -> KeptDecision | None:
        """The request was answered, or is over before it was; returns what is kept of it."""
        ...

    def over(self, kept: KeptDecision | None, outcome: OutcomeRecord, record: Callable[[], DecisionRecord]) -> None:
        """The response is over; called for decisions that were kept, and for failures."""
        ...


class Records:
    """Keeps the records of one pool's requests.

    Args:
        log: takes them.
        clock: seconds, monotonic.
    """

    def __init__(self, log: DecisionLog, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock

    def begin(self, flight: Flight, request: Request) -> None:
        """A request is here."""
        if (why := self._log.wants(request)) or flight.trace is not None:
            flight.record = DecisionRecord(path=flight.path, why=why)

    def wants_failure(self) -> bool:
        """A failed decision is to be made again for the sake of its record."""
        return self._log.wants_failure()

    def decided(self, flight: Flight, answer: Route | Reply | None) -> None:
        """Finish the record, if there is one; without an answer the stream ended before."""
        record = flight.record
        if record is None:
            return
        record.took_s = self._clock() - flight.received_s
        record.status = answer.status if isinstance(answer, Reply) else 0
        if answer is None:
            record.error = "the stream ended before the decision"
        explanation.describe(record, flight)
        flight.kept = self._log.decided(record)
        if flight.trace is not None:
            flight.trace.decided(record)
        flight.candidates = None

    def over(self, flight: Flight, outcome: Outcome) -> None:
        """Tell of the end of a request whose decision was kept, or that failed."""
        completion = flight.completion
        if flight.trace is not None:
            flight.trace.ended(None if completion is None else explanation.outcome(completion))
        if completion is None:
            return
        if flight.kept is None and completion.status < explanation.FIRST_ERROR_STATUS and outcome.end is not End.FAILED:
            return
        self._log.over(flight.kept, explanation.outcome(completion), lambda: explanation.after_the_fact(flight))
