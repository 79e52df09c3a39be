"""A request that waits for its turn: as little of it as it needs to go on.

The coroutine of its decision has ended, and its document is decoded again when it goes on: while thousands wait, these two
would take more memory than all the rest, beside the bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from epp.decision.flight import Flight
from epp.decision.pipeline import Pipeline
from epp.decision.progress import Work
from epp.flowcontrol.admission import Hold
from epp.framework.types import Json
from epp.request.edits import EditList
from epp.request.parse import read_body
from epp.seam import Request, Stream

_FOLDED: Mapping[str, Json] = MappingProxyType({})


class Decides(Protocol):
    """Makes decisions."""

    def resume(self, parked: Parked) -> Work:
        """The rest of the decision about a request that waits no more, let in or refused."""
        ...

    def leave(self, parked: Parked) -> None:
        """The stream of a request that waited has ended."""
        ...


class Parked:
    """One request that waits.

    Args:
        by: who decides about it.
        edits: of its headers, so far; None = there are none.
    """

    __slots__ = ("by", "edits", "flight", "hold", "request", "since_s", "stream")

    def __init__(
        self, by: Decides, stream: Stream, flight: Flight, request: Request, edits: EditList | None, hold: Hold, since_s: float
    ) -> None:
        self.by = by
        self.stream = stream
        self.flight = flight
        self.request = request
        self.edits = edits
        self.hold = hold
        self.since_s = since_s
        hold.when_ended(self.go_on)

    @property
    def pipeline(self) -> Pipeline:
        """What it is decided by."""
        return self.flight.used.pipeline

    def fold(self) -> None:
        """Forget the document of its body; who reads it while the request waits has it decoded again."""
        body = self.flight.inference.body
        if body.decode is None and body.outline:
            body.outline, body.decode = _FOLDED, self._document

    def unfold(self) -> None:
        """Have the outline there again."""
        body = self.flight.inference.body
        if body.outline is _FOLDED:
            _ = body.document

    def _document(self) -> Mapping[str, Json]:
        decode_again = self.flight.inference.body.decode_again
        if decode_again is not None:
            return decode_again(self.request.body)
        return read_body(self.pipeline.parsers, self.flight.path, self.request).document

    def go_on(self) -> None:
        """Its hold has ended."""
        if self.hold.error is not None:
            self._forget()
        self.flight.progress.go_on(self.hold, self.since_s, self.by.resume(self))

    def withdrawn(self) -> None:
        """Its stream has ended while it waited."""
        self.hold.withdraw()
        self.by.leave(self)
        self._forget()

    def _forget(self) -> None:
        """The request goes nowhere: nobody decodes its document again, and what would do so refers to this."""
        body = self.flight.inference.body
        if body.outline is _FOLDED:
            body.decode = None
