"""One request on its way through picker and server: the transport of a replay, without a wire.

It calls the picker as every transport does (``epp.seam``): same calls, same order, never inside ``answer``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many

import orjson

from epp.extproc.response import Head
from epp.framework.types import Usage
from epp.replay.load import RecordedRequest
from epp.replay.outcome import Outcome
from epp.replay.request import PlainHeaders, ReplayedRequest
from epp.replay.servers import ReplayServer
from epp.request.headers import CONTENT_LENGTH, DESTINATION, ENCODERS, METHOD, MIF_ENCODE, MIF_PREFILL, PATH, PREFILLER
from epp.request.rewrite import spliced
from epp.seam import (
    Chunk,
    End,
    Observe,
    Plan,
    Reply,
    RequestHandler,
    ResponseHead,
    Route,
)
from epp.seam import Outcome as StreamOutcome
from epp.simulate.blocks import BYTES_PER_TOKEN
from epp.simulate.exchange import ApiError
from epp.simulate.sequence import Sequence

_SPLITS = frozenset({PREFILLER, ENCODERS, MIF_PREFILL, MIF_ENCODE})
_OK, _BAD_REQUEST, _NO_SUCH_SERVER = 200, 400, 503
_EVENT = b'data: {"choices":[{"index":0,"text":"%b"}]}\n\n'


class Exchange:
    """One request from its arrival to the end of its response. Implements ``seam.Stream``.

    Args:
        recorded: the request.
        outcome: written as things happen.
        handler: the picker.
        servers: by address.
        on_decision: called when the picker has decided, before anything comes of it.
        on_end: called when all is over.
    """

    def __init__(
        self,
        recorded: RecordedRequest,
        outcome: Outcome,
        handler: RequestHandler,
        servers: Mapping[str, tuple[int, ReplayServer]],
        on_decision: Callable[[Outcome], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self.state: object = None
        self._recorded = recorded
        self._outcome = outcome
        self._handler = handler
        self._servers = servers
        self._on_decision = on_decision
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._at_s = 0.0
        self._body = b""
        self._plan = Plan()
        self._head: ResponseHead | None = None
        self._server: ReplayServer | None = None
        self._sequences: list[Sequence] = []
        self._streams = False
        self._sent = 0
        """Tokens that the picker was told of."""
        self._is_answered = False
        self._is_called = False
        self._is_over = False

    def begin(self, model: str, readers: Many[str]) -> None:
        """It arrives.

        Args:
            model: name for a trace that knows none.
            readers: names of the readers that plugins want.
        """
        recorded = self._recorded
        body = self._body = recorded.content.body(model)
        length = (CONTENT_LENGTH, str(len(body)))
        headers = PlainHeaders([(METHOD, "POST"), (PATH, recorded.path), *recorded.headers, length])
        self._at_s = self._loop.time()
        self._handler.request(self, ReplayedRequest(headers, body, self._at_s, readers))

    # ── seam.Stream ──

    def answer(self, answer: Route | Reply) -> None:
        """The picker has decided; what comes too late is dropped."""
        if self._is_answered:
            if isinstance(answer, Reply):
                self._loop.call_soon(self._cut, answer)
            return
        self._is_answered = True
        self._outcome.held_s = self._loop.time() - self._at_s
        self._on_decision(self._outcome)
        if isinstance(answer, Reply):
            self._loop.call_soon(self._refused, answer)
        else:
            self._go(answer)

    def _refused(self, reply: Reply) -> None:
        self._outcome.status, self._outcome.problem = reply.status, _message(reply.body)
        self._finish(End.REPLIED)

    def _cut(self, reply: Reply) -> None:
        """The picker ends a request that it has let go, if that is not over: eviction."""
        if self._is_over:
            return
        if self._server is not None:
            self._server.driver.abort(self._sequences)
        self._refused(reply)

    def _go(self, route: Route) -> None:
        """Send it where the picker wants it."""
        body, self._body = self._body, b""
        outcome, recorded = self._outcome, self._recorded
        self._plan = route.plan
        headers = dict(route.headers.set)
        destination = headers.get(DESTINATION, "").partition(",")[0]
        found = self._servers.get(destination.rpartition(":")[0])
        if found is None:
            self._loop.call_soon(self._failed, _NO_SUCH_SERVER, f"there is no server {destination!r}")
            return
        outcome.server, self._server = found
        outcome.is_split = not _SPLITS.isdisjoint(headers)
        prompt = None if route.splices else recorded.content.prompt()
        forwarded = spliced(body, route.splices) if route.splices else body
        try:
            self._sequences, self._streams = self._server.work.sequences(
                recorded.path, forwarded, prompt, recorded.output_tokens
            )
            self._watch(self._streams and (self._plan.observe is not Observe.OFF or self._plan.ask_headers))
            for sequence in self._sequences:
                sequence.on_progress = self._called
            self._server.driver.submit(self._sequences)
        except ApiError as error:
            self._loop.call_soon(self._failed, error.status, error.message)
        except ValueError:
            room = self._server.engine.options.max_model_len
            problem = f"prompt and answer are longer than the {room} tokens that a server has room for"
            self._loop.call_soon(self._failed, _BAD_REQUEST, problem)

    def _watch(self, is_watched: bool) -> None:
        """Whether each step counts, or only the end."""
        for sequence in self._sequences:
            sequence.watched = is_watched

    # ── the server's side ──

    def _called(self) -> None:
        """The engine has news; it is in the middle of its step, so they are looked at afterwards."""
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_called = False
        if self._is_over:
            return
        is_done = all(sequence.ended for sequence in self._sequences)
        if self._streams or is_done:
            self._show_head(_OK)
        if self._streams:
            self._show_chunks(is_done)
        if is_done:
            self._succeed()

    def _show_head(self, status: int) -> None:
        if self._head is None:
            head = self._head = Head(PlainHeaders([(":status", str(status))]), None, self._loop.time())
            if self._plan.ask_headers:
                self._handler.response_headers(self, head)

    def _show_chunks(self, is_done: bool) -> None:
        """Tell the picker what came since the last time, as far as it wants to know."""
        produced = sum(sequence.produced for sequence in self._sequences)
        is_first, news = not self._sent, produced - self._sent
        self._sent = produced
        if not news or self._plan.observe is Observe.OFF or (self._plan.observe is Observe.FIRST and not is_first):
            return
        if self._plan.observe is not Observe.EVERY:
            self._watch(False)
        chunk = Chunk(_EVENT % (b"...." * news), is_done, self._loop.time(), self._read())
        self._handler.response_body(self, (chunk,))

    def _succeed(self) -> None:
        outcome, sequences = self._outcome, self._sequences
        prompts = list({id(sequence.prompt): sequence for sequence in reversed(sequences)}.values())
        outcome.status = _OK
        outcome.prompt_tokens = sum(sequence.prompt_tokens for sequence in prompts)
        outcome.cached_tokens = sum(sequence.cached_tokens for sequence in prompts)
        outcome.output_tokens = sum(sequence.produced for sequence in sequences)
        outcome.queued_s = max(sequence.admitted_s - sequence.arrival_s for sequence in sequences)
        outcome.latency_s = self._ended_s - self._at_s
        first_s = self._first_s
        outcome.ttft_s = first_s - self._at_s if first_s is not None else None
        self._finish(End.NATURAL)

    def _failed(self, status: int, problem: str) -> None:
        """The server, or nobody, answers with an error."""
        self._outcome.status, self._outcome.problem = status, problem
        self._show_head(status)
        self._finish(End.NATURAL)

    def _finish(self, end: End) -> None:
        self._is_over = True
        is_answered = end is End.NATURAL
        now_s = self._loop.time()
        ended_s = self._ended_s if self._outcome.is_served else now_s
        first_s = (self._first_s if self._streams else ended_s) if self._outcome.is_served else None
        told = StreamOutcome(
            end=end,
            complete=is_answered,
            error="",
            head=self._head,
            streaming=self._streams,
            chunks=self._outcome.output_tokens if self._streams else 1,
            size_bytes=BYTES_PER_TOKEN * self._outcome.output_tokens,
            read=self._read(),
            first_s=first_s,
            last_s=ended_s if is_answered else None,
            end_s=ended_s,
            busy_s=0.0,
            gaps=(),
            gaps_s=0.0,
        )
        self._handler.finished(self, told)
        self._sequences = []
        self._on_end(self._outcome)

    @property
    def _first_s(self) -> float | None:
        """When the first token of any answer came."""
        return min((sequence.first_token_s for sequence in self._sequences if sequence.first_token_s), default=None)

    @property
    def _ended_s(self) -> float:
        return max(sequence.finished_s for sequence in self._sequences)

    def _read(self) -> tuple[object, ...]:
        """What the readers that the picker asked for have found: a usage once there is one, and no documents."""
        outcome = self._outcome
        if not outcome.is_served:
            return (None,) * len(self._plan.readers)
        usage = Usage(
            outcome.prompt_tokens,
            outcome.output_tokens,
            outcome.prompt_tokens + outcome.output_tokens,
            outcome.cached_tokens,
            events=outcome.output_tokens if self._streams else 0,
            found=True,
        )
        return tuple([usage if name.endswith("usage") else None for name in self._plan.readers])


def _message(body: bytes) -> str:
    """What an error body says."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else body.decode(errors="replace")
