"""The state table of one ext_proc stream, without I/O.

Theory. A stream carries one HTTP request. Its two directions are independent, except where noted:

=============  ==========================================================================================================
request phase  what it means, what may come
=============  ==========================================================================================================
NEW            nothing came. Request headers open the request; a response message makes it PASSING
OBSERVED       ``observability_mode``: everything may come, nothing is answered, nobody is told
RECEIVING      the headers came and body messages are due. They end with a flag, with trailers, or (buffered) with the
               first; a limit or the deadline ends them too. Then the handler is asked, once: DECIDING
DECIDING       the answer is due. What still arrives of the request is noted, so that it can be answered in order
ROUTED         the request part is answered; only mode STREAMED still brings body messages, each answered as it comes
PASSING        nobody decides: the stream began with the response, or the data plane answered its client before we
               decided (its own 408 or 413). The response passes with the settings' changes, the handler learns nothing
               of it
CLOSED         the stream was ended by us or left by the data plane; everything is ignored
=============  ==========================================================================================================

The response is seen (any message came) and has ended (end flag, trailers, end of the headers, or the one buffered message).
Response messages before ROUTED couple the directions: they force PASSING. Afterwards each is answered as it comes.

The handler is told that it is finished exactly once for each request it was asked about, and last. Whatever ends the stream
first decides how; what comes later is dropped. Per direction answers keep the order headers, body, trailers. A clean close
happens only where the data plane expects nothing more from us: in the middle it would forward an unrouted request or
silently cut a response.

Every method takes a message or an event, and the time in seconds of a monotonic clock, and returns effects to be run in their
order: messages to send, calls to make, the close. Calls with a result (``CallRequest``, ``CallResponseHeaders``, a held
``CallFinished``) are run at once and their result fed back before anything else.

Source: envoyproxy/envoy: api/envoy/service/ext_proc/v3/external_processor.proto
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from epp.extproc.answers import (
    DUPLEX,
    REQUEST_BODY_PASS,
    REQUEST_HEADERS_PASS,
    REQUEST_TRAILERS_PASS,
    RESPONSE_TRAILERS_PASS,
    WHOLE,
    Rules,
    response_body_answer,
    response_headers_answer,
    streamed,
    with_metadata,
)
from epp.extproc.body import Budget
from epp.extproc.messages import (
    CallFinished,
    CallRequest,
    CallResponseBody,
    CallResponseHeaders,
    Close,
    Effect,
    Immediate,
    Incoming,
    Lost,
    Mode,
    Opening,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Status,
)
from epp.extproc.request import RequestSide
from epp.extproc.response import ResponseSide
from epp.seam import BodyState, Edits, End, Metadata, Observe, Plan, Reply, Route

NOTHING: Sequence[Effect] = ()
_DEFAULT_PLAN = Plan()


class Phase(Enum):
    """Where the request direction stands; see the module's theory."""

    NEW = "new"
    OBSERVED = "observed"
    RECEIVING = "receiving"
    DECIDING = "deciding"
    ROUTED = "routed"
    PASSING = "passing"
    CLOSED = "closed"


class Machine:
    """One stream.

    Args:
        rules: the settings under which the stream began.
        budget: counts the bytes of all request bodies.
    """

    def __init__(self, rules: Rules, budget: Budget) -> None:
        self.phase = Phase.NEW
        self.response = ResponseSide(rules.settings.gap_bounds_s)
        self._rules = rules
        self._budget = budget
        self._opening = Opening()
        self._request: RequestSide | None = None
        self._plan = _DEFAULT_PLAN
        self._asked = False
        self._finished = False
        self._half_closed = False
        self._rest_unseen = False
        self._headers_asked: ResponseHeaders | None = None
        self._held: list[Effect] = []
        self._last_s = 0.0

    # ── inputs ──

    def open(self, opening: Opening) -> None:
        """What the first message says about the stream; before it is fed, and only once."""
        self._opening = opening
        if opening.observed:
            self.phase = Phase.OBSERVED

    def feed(self, message: Incoming, now: float) -> Sequence[Effect]:
        """A message came, or the data plane left."""
        if self.phase is Phase.CLOSED:
            return NOTHING
        if isinstance(message, Lost):
            return self._lost(message, now)
        if self.phase is Phase.OBSERVED:
            return NOTHING
        self._last_s = now
        if isinstance(message, ResponseBody):
            return self._response_body(message, now)
        if isinstance(message, RequestBody):
            return self._request_body(message, now)
        if isinstance(message, RequestHeaders):
            return self._request_headers(message, now)
        if isinstance(message, ResponseHeaders):
            return self._response_headers(message, now)
        if isinstance(message, RequestTrailers):
            return self._request_trailers(message, now)
        if isinstance(message, ResponseTrailers):
            return self._response_trailers(now)
        return self.abort(Status.INVALID_ARGUMENT, message.why, now)

    def answer(self, answer: Route | Reply, now: float) -> Sequence[Effect]:
        """The handler decided. What comes too late, or a second time, is dropped."""
        if self._finished or self.phase is Phase.CLOSED or not self._asked:
            return NOTHING
        if isinstance(answer, Reply):
            return [Immediate(answer), *self._finish(End.REPLIED, False, now), *self._close(Status.OK)]
        if self.phase is not Phase.DECIDING:
            return NOTHING
        return self._route(answer, now)

    def edited(self, edits: Edits | None, now: float) -> Sequence[Effect]:
        """The result of ``CallResponseHeaders``."""
        message = self._headers_asked
        if message is None:
            return NOTHING
        self._headers_asked = None
        return self._headers_passed(message, edits, now)

    def released(self, metadata: Metadata | None) -> Sequence[Effect]:
        """The result of a held ``CallFinished``: the last answers go out, the very last with ``metadata``."""
        held, self._held = self._held, []
        return with_metadata(held, metadata) if metadata else held

    @property
    def deadline_s(self) -> float | None:
        """When ``tick`` has something to do if no message comes; None if only a message can."""
        request = self._request
        if self.phase is not Phase.RECEIVING or request is None or request.mode not in DUPLEX:
            return None
        return self._last_s + self._rules.settings.body_idle_s

    def tick(self, now: float) -> Sequence[Effect]:
        """Time passed."""
        deadline_s = self.deadline_s
        if deadline_s is None or now < deadline_s:
            return NOTHING
        return self._ask(BodyState.TIMED_OUT)

    def abort(self, status: Status, why: str, now: float) -> Sequence[Effect]:
        """End the stream with an error: it was used against the rules, or we stop, or we failed."""
        if self.phase is Phase.CLOSED:
            return NOTHING
        if self._is_over():
            return self._close(Status.OK)
        return [*self._finish(End.FAILED, False, now, why), *self._close(status, why)]

    # ── the request direction ──

    def _request_headers(self, message: RequestHeaders, now: float) -> Sequence[Effect]:
        if self.phase is not Phase.NEW:
            return self._illegal("request_headers are not the first message", now)
        mode = self._opening.request_mode
        self._request = request = RequestSide(message, mode, self._rules, self._budget, now)
        self.phase = Phase.RECEIVING
        state = request.state_at_headers()
        if state is not None:
            return self._ask(state)
        return (REQUEST_HEADERS_PASS,) if mode in WHOLE else NOTHING

    def _request_body(self, message: RequestBody, now: float) -> Sequence[Effect]:
        request = self._request
        if request is None:
            return self._illegal("request_body without request_headers", now)
        request.note(message.metadata)
        if self.phase is Phase.RECEIVING:
            state = request.collect(message)
            return NOTHING if state is None else self._ask(state)
        if request.mode in (Mode.STREAMED, Mode.NONE) and not request.trailers:
            return self._request_body_passes(request, message, now)
        # Some Envoys repeat the end of the stream (envoyproxy/envoy#46237): nothing is due for it.
        return NOTHING

    def _request_body_passes(self, request: RequestSide, message: RequestBody, now: float) -> Sequence[Effect]:
        if self.phase is Phase.DECIDING:
            request.owe(message)
            return NOTHING
        if self.phase is not Phase.ROUTED:
            return NOTHING
        request.ended = request.ended or message.end
        return self._request_part_over([REQUEST_BODY_PASS], now)

    def _request_trailers(self, message: RequestTrailers, now: float) -> Sequence[Effect]:
        request = self._request
        if request is None:
            return self._illegal("request_trailers without request_headers", now)
        if request.trailers:
            return self._illegal("request_trailers twice", now)
        request.trailers = True
        request.note(message.metadata)
        if self.phase is Phase.RECEIVING:
            request.end_by_trailers()
            return self._ask(BodyState.COMPLETE)
        request.ended = True
        return self._request_part_over([REQUEST_TRAILERS_PASS], now) if self.phase is Phase.ROUTED else NOTHING

    def _ask(self, state: BodyState) -> Sequence[Effect]:
        request = self._request
        assert request is not None
        self.phase = Phase.DECIDING
        self._asked = True
        return (CallRequest(request.shown(state)),)

    def _route(self, route: Route, now: float) -> Sequence[Effect]:
        request = self._request
        if request is None or not request.routable():
            return self.abort(Status.INTERNAL, "a request was routed that cannot be forwarded", now)
        try:
            answers = request.routed(route)
        except ValueError as error:
            return self.abort(Status.INTERNAL, str(error), now)
        request.release()
        self.phase = Phase.ROUTED
        self._plan = route.plan
        return self._request_part_over(answers, now)

    def _request_part_over(self, answers: list[Effect], now: float) -> Sequence[Effect]:
        """After answers of the routed request: end the stream if that was all that is wanted."""
        request = self._request
        # In full duplex Envoy may have sent response chunks by now; it would lose them if the stream were closed.
        skips = self._plan.skip and self._opening.response_mode not in DUPLEX
        wanted = not (self._half_closed or skips)
        if wanted or request is None or not request.ended:
            return answers
        return [*answers, *self._finish(End.NATURAL, False, now), *self._close(Status.OK)]

    # ── the response direction ──

    def _response_headers(self, message: ResponseHeaders, now: float) -> Sequence[Effect]:
        response = self.response
        if response.seen:
            return self._illegal("response_headers after the response began", now)
        before = self._response_begins(message, now)
        if self.phase is Phase.ROUTED and self._plan.ask_headers and response.head is not None:
            self._headers_asked = message
            return [*before, CallResponseHeaders(response.head)]
        return [*before, *self._headers_passed(message, None, now)]

    def _headers_passed(self, message: ResponseHeaders, edits: Edits | None, now: float) -> Sequence[Effect]:
        answer = response_headers_answer(self._rules, message.headers, edits)
        return self._response_ends([answer], now) if message.end else (answer,)

    def _response_begins(self, message: ResponseHeaders | None, now: float) -> Sequence[Effect]:
        """The first message of the response. Before the route it leaves nothing to decide."""
        before: Sequence[Effect] = NOTHING
        if self.phase is not Phase.ROUTED:
            before = self._finish(End.DISCONNECTED, False, now)
            self.phase = Phase.PASSING
        mode = self._opening.response_mode
        headers, metadata = (None, None) if message is None else (message.headers, message.metadata)
        may_rename = mode in (Mode.FULL_DUPLEX, Mode.BUFFERED)
        self.response.begin(headers, metadata, now, self._plan, may_rename)
        return before

    def _response_body(self, message: ResponseBody, now: float) -> Sequence[Effect]:
        response = self.response
        before = NOTHING if response.seen else self._response_begins(None, now)
        if response.ended:
            return NOTHING
        data, end, mode = message.data, message.end, self._opening.response_mode
        if data:
            response.take(data, now)
        if response.renamer is not None:
            data = response.renamer.feed(data, end or mode is Mode.BUFFERED)
        answers = response_body_answer(mode, message, data)
        told = None
        if response.observe is not Observe.OFF and message.data:
            told = CallResponseBody((response.observed(message.data, end, now),))
        if end or mode is Mode.BUFFERED:
            answers = self._response_ends(answers, now, told, may_close=end)
        else:
            self._rest_unseen = mode is Mode.BUFFERED_PARTIAL
            if told is not None:
                answers.append(told)
        return [*before, *answers] if before else answers

    def _response_trailers(self, now: float) -> Sequence[Effect]:
        response = self.response
        if response.trailers:
            return self._illegal("response_trailers twice", now)
        response.trailers = True
        before = NOTHING if response.seen else self._response_begins(None, now)
        if response.ended:
            return (RESPONSE_TRAILERS_PASS,)
        tail = b"" if response.renamer is None else response.renamer.feed(b"", True)
        answers = streamed(True, tail, False) if tail else []
        answers.append(RESPONSE_TRAILERS_PASS)
        return [*before, *self._response_ends(answers, now)]

    def _response_ends(
        self, answers: list[Effect], now: float, told: CallResponseBody | None = None, may_close: bool = True
    ) -> list[Effect]:
        """The response is over; ``answers`` are the last ones.

        Args:
            answers: to be sent.
            now: the time.
            told: what the handler is still to be told of the body.
            may_close: no trailers can follow.
        """
        self.response.ended = True
        closing: Sequence[Effect] = NOTHING
        if may_close and self._is_over():
            # The data plane closes now, too. Not waiting for that saves a read, one of a dozen operations of a stream.
            closing = self._close(Status.OK)
        if self._plan.hold_end and self._asked and not self._finished:
            self._held = [*answers, *closing]
            calls: list[Effect] = [] if told is None else [told]
            return calls + self._finish(End.NATURAL, True, now, held=True)
        if told is not None:
            answers.append(told)
        return [*answers, *self._finish(End.NATURAL, True, now), *closing]

    # ── ends ──

    def _lost(self, how: Lost, now: float) -> Sequence[Effect]:
        if how is Lost.HALF_CLOSED:
            if self.phase in (Phase.NEW, Phase.OBSERVED):
                return self._close(Status.OK)
            if self.phase is Phase.DECIDING and not self._opening.configured:
                self._half_closed = True
                return NOTHING
        if how is not Lost.SEND_FAILED and (self._is_over() or self._ends_unseen()):
            status = Status.OK if how is Lost.HALF_CLOSED else Status.CANCELLED
            return [*self._finish(End.NATURAL, False, now), *self._close(status, how.value)]
        return [*self._finish(End.DISCONNECTED, False, now), *self._close(Status.CANCELLED, how.value)]

    def _is_over(self) -> bool:
        """The data plane has got everything that it can expect."""
        return self.response.ended and (self._request is None or self._request.ended or self.phase is Phase.PASSING)

    def _ends_unseen(self) -> bool:
        """Whether the end of the stream is what a good end looks like when we do not see the response's own."""
        if self.phase is not Phase.ROUTED or self._request is None or not self._request.ended:
            return False
        if self._opening.response_mode is Mode.NONE or self._rest_unseen:
            return True
        return not self._opening.configured and not self.response.seen

    def _finish(self, end: End, complete: bool, now: float, error: str = "", held: bool = False) -> list[Effect]:
        if self._request is not None:
            self._request.release()
        if not self._asked or self._finished:
            return []
        self._finished = True
        return [CallFinished(self.response.outcome(end, complete, error, now), held)]

    def _close(self, status: Status, details: str = "") -> Sequence[Effect]:
        self.phase = Phase.CLOSED
        return (Close(status, details),)

    def _illegal(self, why: str, now: float) -> Sequence[Effect]:
        return self.abort(Status.INVALID_ARGUMENT, f"not legal here: {why}", now)
