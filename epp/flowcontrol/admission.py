"""Admission: whether a request may be scheduled now, is held until it may, or is refused.

The one stage that may hold a request without a plugin, a task or a timer: it hands out a ``Hold``, the decision ends there, and
another one goes on with the request when the hold has ended. A decision that runs in a task already waits in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import SaturationDetector
from epp.framework.types import InferenceRequest


class Hold:
    """A request that is held. It ends once: released, refused, or withdrawn because its client left.

    One that has ended when it is handed out was released at once; it is told of the rest of the request all the same.

    Args:
        on_withdrawn: told when the request is over while it is held, so that its place is free at once.
    """

    __slots__ = ("_on_withdrawn", "_resume", "ahead", "error", "held_s", "is_ended")

    def __init__(self, on_withdrawn: Callable[[], None]) -> None:
        self.error: RequestError | None = None
        self.is_ended = False
        self.ahead = 0
        """Requests that were to be served before it when it came."""
        self.held_s = 0.0
        """How long it was held, once it has ended."""
        self._on_withdrawn = on_withdrawn
        self._resume: Callable[[], None] | None = None

    def release(self) -> None:
        """Let the request go on: it is scheduled within this call, so that the next one sees what it reserved."""
        self._end(None)

    def refuse(self, error: RequestError) -> None:
        """Answer the request with ``error``."""
        self._end(error)

    def withdraw(self) -> None:
        """The request is over; nothing happens if the hold has ended."""
        if not self.is_ended:
            self.is_ended = True
            self._resume = None
            self._on_withdrawn()

    def when_ended(self, resume: Callable[[], None]) -> None:
        """Have ``resume`` called when it is released or refused."""
        self._resume = resume

    def decided(self, evict: Callable[[], None] | None) -> None:
        """The decision about a released request has ended; called once, also when its stream ended meanwhile.

        Args:
            evict: ends the request while it runs; None = it was not sent anywhere.
        """

    def over(self) -> None:
        """The stream of the request has ended; called once and last."""

    def _end(self, error: RequestError | None) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self.error = error
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()


class Admission(Protocol):
    """Lets requests in."""

    needs_candidates: bool
    """False: it stands before the search for candidates, so that a request may wait for the first endpoint."""

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold | None:
        """None lets the request go on at once; it is held otherwise.

        Args:
            candidates: of this moment, none if they are not needed; those of a request that got a hold are looked for again.

        Raises:
            RequestError: it is refused at once.
        """
        ...


class LegacyAdmission:
    """Refuses requests of negative priority while the pool is full, and holds none.

    Source: flowcontrol.md, legacy admission; llm-d-router: pkg/epp/requestcontrol/admission.go.

    Args:
        detector: says how full the pool is.
    """

    needs_candidates = True

    def __init__(self, detector: SaturationDetector) -> None:
        self._detector = detector

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold | None:
        """As ``Admission.admit``."""
        if request.priority < 0 and self._detector.saturation(candidates) >= 1.0:
            raise RequestError(
                ErrorCode.RESOURCE_EXHAUSTED, "system saturated, sheddable request dropped", DropReason.SATURATED
            )
        return None
