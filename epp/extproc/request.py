"""The request of one stream: collected until it can be shown, then answered as the mode wants it."""

from __future__ import annotations

from epp.extproc.answers import (
    DUPLEX,
    REQUEST_BODY_PASS,
    REQUEST_TRAILERS_PASS,
    WHOLE,
    Rules,
    routed_at_body,
    routed_at_headers,
    routed_body,
)
from epp.extproc.body import NO_BODY, Body, Budget, Frame
from epp.extproc.media import is_encoded
from epp.extproc.messages import Effect, Mode, RequestBody, RequestHeaders, WireHeaders
from epp.extproc.readers import REQUEST_READERS, Reader
from epp.extproc.response import NO_METADATA, Head
from epp.seam import BodyState, Metadata, Route


class IncomingRequest:
    """What the handler is shown; implements ``handler.Request``."""

    __slots__ = ("at_s", "body", "body_state", "headers", "metadata", "read")

    def __init__(self, headers: WireHeaders, at_s: float) -> None:
        self.headers = headers
        self.metadata: Metadata = NO_METADATA
        self.at_s = at_s
        self.body = NO_BODY
        self.body_state = BodyState.ABSENT
        self.read: tuple[object, ...] = ()


class RequestSide:
    """Collects one request.

    Args:
        message: its headers.
        mode: the request body mode.
        rules: limits and the names to strip.
        budget: counts the bytes of all bodies.
        now: when the headers came.
    """

    __slots__ = (
        "_body",
        "_ends",
        "_fed",
        "_frames",
        "_headers",
        "_owed",
        "_readers",
        "_request",
        "_rules",
        "ended",
        "mode",
        "trailers",
    )

    def __init__(self, message: RequestHeaders, mode: Mode, rules: Rules, budget: Budget, now: float) -> None:
        self.mode = mode
        self.ended = message.end
        """No further body message is due."""
        self.trailers = False
        """Trailers came."""
        self._rules = rules
        self._headers = message.headers
        self._request = IncomingRequest(message.headers, now)
        self._body = Body(budget, rules.settings.max_body_bytes)
        self._frames: list[Frame] | None = [] if mode is Mode.GRPC else None
        self._ends = True
        self._owed = 0
        self._readers: tuple[Reader, ...] = ()
        self._fed: tuple[Reader, ...] = ()
        """None of them, if the body is compressed."""
        names = rules.settings.request_readers
        if names:
            head = Head(message.headers, message.metadata, now)
            self._readers = tuple([REQUEST_READERS[name](head) for name in names])
            if not is_encoded(head):
                self._fed = self._readers
        self.note(message.metadata)

    def note(self, metadata: Metadata | None) -> None:
        """Remember the last metadata context that is not empty."""
        if metadata:
            self._request.metadata = metadata

    def state_at_headers(self) -> BodyState | None:
        """What is known of the body when only the headers came; None if body messages must be awaited."""
        if self.ended:
            return BodyState.ABSENT
        return BodyState.UNSEEN if self.mode in (Mode.NONE, Mode.STREAMED) else None

    def collect(self, message: RequestBody) -> BodyState | None:
        """Keep a body message.

        Returns:
            What is known of the body if the handler is to be asked now, None if more is due.
        """
        start = self._body.size_bytes
        broken = self._body.add(message.data)
        if broken is not None:
            return broken
        for reader in self._fed:
            reader.feed(message.data)
        if self._frames is not None:
            stop = start + len(message.data)
            self._frames.append(Frame(start, stop, message.end, message.compressed, message.without_message))
        if message.end or self.mode is Mode.BUFFERED:
            return BodyState.COMPLETE
        return BodyState.UNSEEN if self.mode is Mode.BUFFERED_PARTIAL else None

    def end_by_trailers(self) -> None:
        """Trailers end the body: no piece of it will carry the end flag."""
        self._ends = False

    def owe(self, message: RequestBody) -> None:
        """A body message came that will be answered once the headers were."""
        self._owed += 1
        self.ended = self.ended or message.end

    def shown(self, state: BodyState) -> IncomingRequest:
        """The request for the handler; nothing is collected any more."""
        request = self._request
        request.body_state = state
        request.read = tuple([reader.result() for reader in self._readers])
        if state is BodyState.COMPLETE:
            request.body = self._body.whole()
        if self.mode is not Mode.STREAMED:
            self.ended = True
        return request

    def routed(self, route: Route) -> list[Effect]:
        """The answers to everything that came of a routed request, in their order.

        Raises:
            ValueError: the route cannot be carried out on this request.
        """
        request = self._request
        state = request.body_state
        answers: list[Effect]
        if self.mode in WHOLE and state is not BodyState.ABSENT:
            answers = [routed_at_body(self._rules, self._headers, route, request.body)]
        else:
            answers = [routed_at_headers(self._rules, self._headers, route)]
            if self.mode in DUPLEX and state is not BodyState.ABSENT:
                answers += routed_body(request.body, route, self._frames, self._ends)
            elif route.splices:
                raise ValueError("the route replaces spans of a body that was not seen")
            answers += [REQUEST_BODY_PASS] * self._owed
        if self.trailers:
            answers.append(REQUEST_TRAILERS_PASS)
        return answers

    def routable(self) -> bool:
        """Whether a route can still be expressed: the body is not lost, and an answer is due that can change headers."""
        if self._request.body_state in (BodyState.TIMED_OUT, BodyState.TOO_LARGE, BodyState.NO_MEMORY):
            return False
        return not (self.mode in WHOLE and not self._ends)

    def release(self) -> None:
        """Give the body's memory back."""
        self._body.release()
