"""What happens to a request, as a list of stages; the handler that every transport calls.

decode → direct reply → parse → rewrite the model name → objective and priority → request-header plugins → body rewriters →
candidates → admission → screeners → data producers → admitters → schedule → PreRequest → route. The first stage that fails ends
the request with its error. The list is written once, as a coroutine: all of it runs in one go unless a plugin waits, a body is
decoded in a thread, or admission holds the request (``progress.py``). Flow control admits before candidates are looked for, as
a request may wait for the first endpoint.

Source of the order: llm-d-router: pkg/epp/requestcontrol/director.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from epp.decision import direct_reply, explanation
from epp.decision.candidates import CandidateFinder
from epp.decision.decoding import DecodedBodies, decoded
from epp.decision.flight import Flight
from epp.decision.ledger import Ledger
from epp.decision.parked import Parked
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.progress import Progress, Work
from epp.decision.reading import DEFAULT_FLOW, ObjectLookup, RequestReader
from epp.decision.records import DecisionLog, Records
from epp.decision.response import ResponseObserver
from epp.decision.routing import Router
from epp.decision.shadow import Shadow
from epp.errors import DropReason, ErrorCode, RequestError, SchedulingError
from epp.flowcontrol.admission import Admission, Hold
from epp.framework.candidates import Candidates
from epp.framework.keys import AGENT_IDENTITY
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, InferenceRequest
from epp.hooks.runner import Spawn
from epp.plugin_calls.step import Record
from epp.request.content_coding import CONTENT_ENCODING, codings_of
from epp.request.edits import BodyEditList, EditList
from epp.request.headers import FAIRNESS_ID, lookup, prefers_available, request_path
from epp.request.replies import error_shape, evicted, is_grpc, refusal
from epp.scheduling.cached_prefix import has_cached_prefix
from epp.seam import BodyState, Chunk, Edits, Metadata, Outcome, Reply, Request, ResponseHead, Route, Stream
from epp.telemetry.decision_record import DecisionRecord, Why
from epp.telemetry.metrics import AttemptLabels, Metrics
from epp.telemetry.requests import RequestLabels
from epp.telemetry.tracing import Tracing

SCREENED_OUT = "screeners eliminated all endpoint candidates"
NOT_CACHED = "no decode worker has the requested KV cache"
_NONE_YET = Candidates((), ())


@dataclass(frozen=True, slots=True)
class DirectorOptions:
    """Process flags that matter here."""

    emit_scores: bool = False
    """``--emit-endpoint-scores``."""
    max_body_bytes: int = 64 * 1024 * 1024
    """``--max-request-body-bytes``, for what a content coding unfolds to; 0 = no limit."""
    max_decoded_bytes: int = 1024 * 1024 * 1024
    """``--max-buffered-bytes``, for what content codings of all requests together unfold to; 0 = no limit."""


class Director:
    """The RequestHandler: decides, and keeps the books until the response is over."""

    def __init__(
        self,
        used: PipelineInUse,
        finder: CandidateFinder,
        objects: ObjectLookup,
        metrics: Metrics,
        responses: ResponseObserver,
        decisions: DecisionLog,
        options: DirectorOptions = DirectorOptions(),
        *,
        ledger: Ledger,
        choose: Callable[[Sequence[Endpoint]], Endpoint],
        spawn: Spawn,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
        new_request_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._used = used
        self._tracing = tracing
        self._ledger = ledger
        self._finder = finder
        self._reader = RequestReader(objects, metrics, new_request_id)
        self._router = Router(finder, responses, choose, new_request_id)
        self._metrics = metrics
        self._responses = responses
        self._records = Records(decisions, clock)
        self._options = options
        self._decoded_bodies = DecodedBodies(options.max_decoded_bytes)
        self._spawn = spawn
        self._clock = clock
        self.shadow: Shadow | None = None
        """Decides about the same requests when they are on their way; None = there is none."""

    @property
    def pipeline(self) -> Pipeline:
        """What new requests are decided by."""
        return self._used.pipeline

    def use(self, used: PipelineInUse) -> None:
        """Decide new requests by another pipeline; those that have begun go on with theirs."""
        self._used = used

    # ── RequestHandler ──

    def request(self, stream: Stream, request: Request) -> None:
        """Decide about a request, at once if nothing waits."""
        used = self._used
        progress = Progress(self._spawn, self._clock)
        flight = Flight(used, progress, request.at_s, request_path(request.headers), request.headers)
        used.begin()
        stream.state = flight
        if self._tracing is not None:
            flight.trace = self._tracing.begin(request.headers, request.at_s)
        self._records.begin(flight, request)
        progress.begin(self._answer(stream, used.pipeline, flight, request))

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        """Let plugins see the response headers."""
        flight = stream.state
        if not isinstance(flight, Flight):
            return None
        return explanation.with_headers(self._responses.headers(flight, head), flight.explanation)

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        """Let plugins see forwarded chunks."""
        flight = stream.state
        if isinstance(flight, Flight):
            self._responses.chunks(flight, chunks)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        """Close the books."""
        flight = stream.state
        if not isinstance(flight, Flight):
            return None
        try:
            return self._responses.finished(flight, outcome)
        finally:
            flight.let_go()
            self._records.over(flight, outcome)
            if flight.shadow is not None:
                flight.shadow.over(flight.completion, outcome.head)

    # ── the decision ──

    async def _answer(
        self, stream: Stream, pipeline: Pipeline, flight: Flight, request: Request, parked: Parked | None = None
    ) -> None:
        """Decide, and answer whatever comes of it: no path ends without an answer while there is somebody to hear it.

        Args:
            parked: the request has waited, and here goes on.
        """
        answer: Route | Reply | Parked | None = None
        try:
            if parked is None:
                answer = await self._decide(stream, pipeline, flight, request)
            else:
                answer = await self._go_on(parked)
        except RequestError as error:
            answer = self._refuse(flight, error)
            error.__traceback__ = None  # its frames hold what holds the error, if that is a hold's
        except asyncio.CancelledError:
            if flight.progress.is_over or not flight.progress.is_late:
                self._records.decided(flight, None)
                raise
            answer = self._refuse(flight, RequestError(ErrorCode.SERVICE_UNAVAILABLE, "no decision in time"))
        except Exception as error:  # noqa: BLE001 — a defect; the client is told, the log too
            self._responses.defect("decision", error)
            answer = self._refuse(flight, RequestError(ErrorCode.INTERNAL, "internal error"))
        finally:
            if flight.hold is not None and not isinstance(answer, Parked):
                flight.hold.decided(partial(self._evict, stream, flight) if isinstance(answer, Route) else None)
        if isinstance(answer, Parked):
            flight.progress.park(answer)
            return
        self._metrics.request_processing(self._clock() - flight.received_s)
        if flight.record is not None:
            self._records.decided(flight, answer)
            if flight.record.why is Why.ASKED:
                answer, flight.explanation = explanation.told(answer, flight.record)
            if flight.trace is not None:
                answer = explanation.traced(answer, flight.trace)
        stream.answer(answer)
        if self.shadow is not None:
            flight.shadow = self.shadow.offer(flight, request)

    def resume(self, parked: Parked) -> Work:
        """The rest of the decision about a request that has waited."""
        return self._answer(parked.stream, parked.pipeline, parked.flight, parked.request, parked)

    def leave(self, parked: Parked) -> None:
        """The stream of a request has ended while it waited."""
        parked.hold.held_s = self._clock() - parked.since_s
        parked.flight.note_admission("withdrawn")
        self._records.decided(parked.flight, None)
        parked.hold.decided(None)

    async def _decide(self, stream: Stream, pipeline: Pipeline, flight: Flight, request: Request) -> Route | Reply | Parked:
        hooks, slots, progress = pipeline.hooks, pipeline.hooks.hooks, flight.progress
        hook = direct_reply.responder(hooks, flight.path, request) if slots.responders else None
        if request.headers.get(CONTENT_ENCODING) and (hook is not None or pipeline.parsers.reads(flight.path)):
            request = await self._decoded(flight, request)
        if hook is not None:
            reply = await direct_reply.respond(hooks, hook, flight, request)
            if reply is not None:
                return reply
        if request.body_state is BodyState.ABSENT:
            return self._router.anywhere(request)
        inference = self._reader.read(pipeline, flight, request)
        edits = EditList()
        if slots.request_header:
            self._show_headers(pipeline, inference, edits, flight.record)
        if slots.rewriters:
            await self._rewrite(pipeline, flight, request)
        if pipeline.admission is None:
            return await self._place(pipeline, flight, edits, self._finder.find(request.metadata))
        candidates = self._admit(pipeline.admission, inference, flight, request)
        hold = flight.hold
        if hold is None:
            return await self._place(pipeline, flight, edits, candidates)
        if not hold.is_ended:
            if not progress.is_in_task:
                shown = edits if slots.request_header else None
                parked = Parked(self, stream, flight, request, shown, hold, self._clock())
                if not slots.rewriters:
                    parked.fold()
                return parked
            await self._stay(flight, hold)
        return await self._place(pipeline, flight, edits, self._let_in(flight, hold, request))

    async def _go_on(self, parked: Parked) -> Route | Reply:
        candidates = self._let_in(parked.flight, parked.hold, parked.request)
        parked.unfold()
        return await self._place(parked.pipeline, parked.flight, parked.edits or EditList(), candidates)

    async def _place(self, pipeline: Pipeline, flight: Flight, edits: EditList, candidates: Candidates) -> Route | Reply:
        """Choose the endpoint of a request that was let in."""
        hooks, slots = pipeline.hooks, pipeline.hooks.hooks
        inference, progress, record = flight.inference, flight.progress, flight.record
        if slots.screeners:
            candidates = self._screen(pipeline, flight, candidates)
        if slots.producers:
            await hooks.produce(inference, candidates, progress, record)
        if slots.admitters:
            await hooks.admit(inference, candidates, progress, record)
        result = self._schedule(pipeline, inference, flight, candidates)
        if slots.pre_request:
            await hooks.pre_request(inference, result, edits, progress, record)
        scores = pipeline.scheduler.totals(result) if self._options.emit_scores else None
        return self._router.route(flight, result, edits, scores)

    # ── stages ──

    async def _decoded(self, flight: Flight, request: Request) -> Request:
        """The request without its content coding, if it has one; gRPC has a way of its own for that."""
        if request.body_state is not BodyState.COMPLETE or is_grpc(request.headers):
            return request
        codings = codings_of(request.headers)
        if not codings:
            return request
        flight.decoded = await decoded(request, codings, self._options.max_body_bytes, flight.progress, self._decoded_bodies)
        return flight.decoded

    def _show_headers(self, pipeline: Pipeline, inference: InferenceRequest, edits: EditList, record: Record) -> None:
        pipeline.hooks.request_header(inference, edits, record)
        if inference.fairness_id == DEFAULT_FLOW and not lookup(inference.headers, *FAIRNESS_ID):
            inference.fairness_id = inference.data.get(AGENT_IDENTITY) or DEFAULT_FLOW

    async def _rewrite(self, pipeline: Pipeline, flight: Flight, request: Request) -> None:
        """Let plugins change the body; what comes later sees the changed one."""
        inference = flight.inference
        body = inference.body
        is_json = request.body_state is BodyState.COMPLETE and body.rewritable and body.model_span is None
        if not is_json or not pipeline.hooks.rewrites(inference):
            return
        edits = BodyEditList(request.body, body.document)
        await pipeline.hooks.rewrite(inference, edits, flight.progress, flight.record)
        flight.splices = edits.splices(inference.target_model if flight.splices else None)
        if edits.has_changes:
            for key in pipeline.readings:  # they are of the body as it came
                inference.data.discard(key)
        inference.body = replace(body, outline=edits.document, decode=None, decode_again=None)
        inference.size_bytes = flight.forwarded_bytes(request)

    def _admit(self, admission: Admission, inference: InferenceRequest, flight: Flight, request: Request) -> Candidates:
        """Ask for admission; returns the candidates of a request that got no hold."""
        candidates = self._finder.find(request.metadata) if admission.needs_candidates else _NONE_YET
        try:
            flight.hold = admission.admit(inference, candidates)
        except RequestError as error:
            flight.note_admission("refused", error.message)
            raise
        if flight.hold is None:
            flight.note_admission("admitted")
        return candidates

    async def _stay(self, flight: Flight, hold: Hold) -> None:
        try:
            await flight.progress.hold(hold)
        except asyncio.CancelledError:
            flight.note_admission("withdrawn")
            raise

    def _let_in(self, flight: Flight, hold: Hold, request: Request) -> Candidates:
        """The candidates of now, for a request that was held.

        Raises:
            RequestError: it was refused.
        """
        if hold.error is not None:
            flight.note_admission("refused", hold.error.message)
            raise hold.error
        flight.note_admission("admitted")
        return self._finder.find(request.metadata)

    def _screen(self, pipeline: Pipeline, flight: Flight, candidates: Candidates) -> Candidates:
        candidates = pipeline.hooks.screen(flight.inference, candidates, flight.record)
        if not candidates:
            raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, SCREENED_OUT, DropReason.NO_ENDPOINTS)
        return candidates

    def _schedule(
        self, pipeline: Pipeline, inference: InferenceRequest, flight: Flight, candidates: Candidates
    ) -> SchedulingResult:
        """Pick; from here on the request must be completed exactly once."""
        if flight.record is not None:
            flight.candidates = candidates
        begun = time.perf_counter()
        try:
            result = pipeline.scheduler.schedule(inference, candidates, flight.record)
        except (SchedulingError, RequestError) as error:
            self._metrics.scheduler_attempt(AttemptLabels(False, inference.target_model), time.perf_counter() - begun)
            if isinstance(error, RequestError):
                raise
            # Without a reason a plugin has failed: that is told already, and must not be counted twice.
            if flight.record is None and error.reason is not None and self._records.wants_failure():
                self._explain_failure(pipeline, flight, candidates)
            message = f"failed to find target endpoint: {error}"
            raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, message, error.reason) from error
        target = result.targets[0]
        self._metrics.scheduler_attempt(
            AttemptLabels(True, inference.target_model, target.name, target.namespace, str(target.port)),
            time.perf_counter() - begun,
        )
        if prefers_available(inference.headers) and not has_cached_prefix(inference, result, pipeline.match_keys):
            raise RequestError(ErrorCode.PRECONDITION_FAILED, NOT_CACHED)
        flight.scheduled(result, self._ledger, self._metrics)
        return result

    def _explain_failure(self, pipeline: Pipeline, flight: Flight, candidates: Candidates) -> None:
        """Fail once more, with a record: scheduling has no side effects."""
        flight.record = DecisionRecord(path=flight.path)
        with contextlib.suppress(SchedulingError, RequestError):
            pipeline.scheduler.schedule(flight.inference, candidates, flight.record)
        flight.candidates = candidates

    # ── answers ──

    def _evict(self, stream: Stream, flight: Flight) -> None:
        """End a running request; the transport drops this if its response has ended."""
        flight.is_evicted = True
        stream.answer(evicted(error_shape(flight.path, flight.headers), grpc=is_grpc(flight.headers)))

    def _refuse(self, flight: Flight, error: RequestError) -> Reply:
        is_read = flight.request is not None
        labels = flight.labels or (flight.make_labels() if is_read else RequestLabels(flight.incoming_model))
        flight.error_counted = True
        self._metrics.request_error(labels, error.code.value)
        if flight.record is None:
            flight.record = DecisionRecord(path=flight.path)
        flight.record.error = flight.record.error or str(error)
        return refusal(error, error_shape(flight.path, flight.headers), grpc=is_grpc(flight.headers))
