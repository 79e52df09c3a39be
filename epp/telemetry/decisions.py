"""Which decisions are written down, and where they go: the debug log, the ring of the last ones.

What is asked about every request is one addition and two comparisons; a record is made for a share of the requests, for those
that ask, and for refusals when they happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from epp.framework import log
from epp.telemetry.decision_log import LoggedDecisions
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, Why
from epp.telemetry.decision_ring import LIMIT_BYTES, DecisionRing, KeptDecision

EXPLAIN_HEADER = "x-epp-explain"
"""``1`` asks for a record, and for its short form in a response header of this name."""
_ASKS = "1"
FAILURES_PER_S = 10.0
"""Failed decisions that are repeated with a record, so that it tells who dropped whom. In a storm of refusals most have the
same reason, and scheduling twice is what a full pool can least afford."""


class HeaderView(Protocol):
    """Request headers."""

    def get(self, name: str) -> str | None: ...


class Asking(Protocol):
    """A request, as far as matters here."""

    @property
    def headers(self) -> HeaderView: ...


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What is kept."""

    share: float = 0.005
    """``--explain-share``: of the requests, from 0 to 1."""
    limit_bytes: int = LIMIT_BYTES
    """``--explain-memory``; 0 keeps nothing."""
    callers: Mapping[str, frozenset[str]] | None = None
    """``--explain-callers``: header name → values of it that allow a request to ask, ``*`` any; None = none may."""


class Decisions:
    """Chooses, logs and keeps.

    Args:
        options: what is kept.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        options: DecisionOptions = DecisionOptions(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ring = DecisionRing(options.limit_bytes)
        self._log = LoggedDecisions()
        self._keeps = options.limit_bytes > 0
        self._share = options.share if self._keeps else 0.0
        self._callers = options.callers or None
        self._due = 0.0
        self._clock = clock
        self._failures = FAILURES_PER_S
        self._failures_at_s = clock()

    def wants(self, request: Asking) -> Why:
        """Why a record of this request is to be made; asked about every request."""
        if self._callers is not None and self._asks(request.headers, self._callers):
            return Why.ASKED
        self._due += self._share
        if self._due >= 1.0:
            self._due -= 1.0
            return Why.SHARE
        return Why.LOG if log.enabled(log.VERBOSE) else Why.NOTHING

    def wants_failure(self) -> bool:
        """A failed decision is worth being made again with a record; counts as one if so."""
        if not self._keeps:
            return False
        now = self._clock()
        self._failures = min(self._failures + (now - self._failures_at_s) * FAILURES_PER_S, FAILURES_PER_S)
        self._failures_at_s = now
        if self._failures < 1.0:
            return False
        self._failures -= 1.0
        return True

    def decided(self, record: DecisionRecord) -> KeptDecision | None:
        """The request was answered, or is over before it was; returns what is kept of it."""
        if log.enabled(log.VERBOSE):
            self._log.decided(record)
        if record.status >= 400 and record.why in (Why.LOG, Why.NOTHING):
            record.why = Why.REFUSED
        if not self._keeps or record.why in (Why.LOG, Why.NOTHING):
            return None
        return self.ring.add(record)

    def over(self, kept: KeptDecision | None, outcome: OutcomeRecord, record: Callable[[], DecisionRecord]) -> None:
        """The response is over.

        Args:
            kept: the decision, if it was kept.
            outcome: what became of it.
            record: makes what is left to say of one that was not kept, if it failed.
        """
        if kept is not None:
            kept.outcome = outcome
        elif self._keeps:
            late = record()
            late.why, late.outcome = Why.FAILED, outcome
            self.ring.add(late)

    @staticmethod
    def _asks(headers: HeaderView, callers: Mapping[str, frozenset[str]]) -> bool:
        if headers.get(EXPLAIN_HEADER) != _ASKS:
            return False
        for name, values in callers.items():
            value = headers.get(name)
            if value is not None and (value in values or "*" in values):
                return True
        return False
