"""What happens to a request, as a list of stages; the handler that every transport calls.

parse → rewrite the model name → objective and priority → request-header plugins → body rewriters → admission → candidates →
screeners → data producers → admitters → schedule → PreRequest → route. The first stage that fails ends the request with its
error. All of it runs in one go unless a declared plugin is a coroutine, or one rewrites this body; then the decision runs in
a task, under a deadline. A request that a plugin answers itself meets none of these stages.

Source of the order: llm-d-router: pkg/epp/requestcontrol/director.go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import uuid4

from epp import direct
from epp.candidates import CandidateFinder
from epp.errors import DropReason, ErrorCode, RequestError, SchedulingError
from epp.extproc.handler import (
    BodyState,
    Chunk,
    Edits,
    Metadata,
    Outcome,
    Pairs,
    Plan,
    Rename,
    Reply,
    Request,
    ResponseHead,
    Route,
    Stream,
)
from epp.framework.candidates import Candidates
from epp.framework.data import RequestData
from epp.framework.direct import DirectResponder
from epp.framework.interfaces import SaturationDetector
from epp.framework.keys import AGENT_IDENTITY
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, InferenceRequest, ParsedBody
from epp.hooks import Hook
from epp.lifecycle import HookRunner, Spawn
from epp.request.edits import BodyEditList, EditList
from epp.request.headers import (
    DESTINATION,
    DESTINATION_SCORES,
    FAIRNESS_ID,
    LB_NAMESPACE,
    MODEL_REWRITE,
    OBJECTIVE,
    REQUEST_ID,
    lookup,
    prefers_available,
    request_path,
)
from epp.request.parse import ParserTable, read_body
from epp.request.replies import error_shape, is_grpc, refusal
from epp.request.rewrite import growth, model_splices
from epp.response import Flight, ResponseSide
from epp.scheduling.cached_prefix import MatchKey, has_cached_prefix
from epp.scheduling.record import DecisionRecord
from epp.scheduling.scheduler import Scheduler
from epp.telemetry import log
from epp.telemetry.metrics import AttemptLabels, Metrics, RewriteLabels
from epp.telemetry.requests import RequestLabels

_logger = log.get("epp.director")

DECISION_DEADLINE_S = 5.0
"""Longest time from the complete request to its decision, where a plugin waits (protocol decision D15)."""
DEFAULT_FLOW = "default-flow"
NO_ENDPOINTS = "no pods available in datastore"
"""What clients of requests without a body are told. Source: llm-d-router: pkg/epp/handlers/request.go."""
SCREENED_OUT = "screeners eliminated all endpoint candidates"
NOT_CACHED = "no decode worker has the requested KV cache"


class Rewrite(Protocol):
    """An InferenceModelRewrite rule that applies."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> str: ...


class ObjectLookup(Protocol):
    """InferenceObjectives and InferenceModelRewrites."""

    def priority(self, objective: str) -> int:
        """0 for an unknown name."""
        ...

    def resolve(self, model: str) -> Rewrite | None:
        """The rule for an incoming model name, with its target drawn."""
        ...


class DecisionLog(Protocol):
    """Takes records of decisions while somebody wants them."""

    @property
    def wanted(self) -> bool: ...
    def decided(self, record: DecisionRecord) -> None: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """All that depends on the configuration; replaced whole on reload."""

    parsers: ParserTable
    scheduler: Scheduler
    hooks: HookRunner
    detector: SaturationDetector | None = None
    match_keys: tuple[MatchKey, ...] = ()
    """Where the declared producers of prefix matches write."""


@dataclass(frozen=True, slots=True)
class DirectorOptions:
    """Process flags that matter here."""

    emit_scores: bool = False
    """``--emit-endpoint-scores``."""


class Director:
    """The RequestHandler: decides, and keeps the books until the response is over."""

    def __init__(
        self,
        pipeline: Pipeline,
        finder: CandidateFinder,
        objects: ObjectLookup,
        metrics: Metrics,
        responses: ResponseSide,
        decisions: DecisionLog,
        options: DirectorOptions = DirectorOptions(),
        *,
        choose: Callable[[Sequence[str]], str],
        spawn: Spawn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline = pipeline
        self._finder = finder
        self._objects = objects
        self._metrics = metrics
        self._responses = responses
        self._decisions = decisions
        self._options = options
        self._choose = choose
        self._spawn = spawn
        self._clock = clock
        self._said_list = False

    # RequestHandler

    def request(self, stream: Stream, request: Request) -> None:
        """Decide about a request, at once if no plugin waits."""
        pipeline = self.pipeline
        path = request_path(request.headers)
        flight = stream.state = Flight(pipeline.hooks, request.at_s, path, request.headers)
        if pipeline.hooks.hooks.responders and (hook := direct.responder(pipeline.hooks, path, request)):
            flight.task = self._spawn(self._respond(stream, pipeline, flight, request, hook), "direct reply")
        else:
            self._begin(stream, pipeline, flight, request)

    def _begin(self, stream: Stream, pipeline: Pipeline, flight: Flight, request: Request) -> None:
        try:
            if request.body_state is BodyState.ABSENT:
                answer: Route | Reply = self._forward_bodyless(request)
            else:
                self._read(pipeline, flight, request)
                if pipeline.hooks.decision_waits or pipeline.hooks.rewrites(flight.inference):
                    flight.task = self._spawn(self._decide_later(stream, pipeline, flight, request), "decision")
                    return
                answer = self._decide(pipeline, flight, request)
        except RequestError as error:
            answer = self._refuse(flight, error)
        except Exception as error:  # noqa: BLE001 — a defect; the client is told, the log too
            answer = self._failed(flight, "request", error)
        self._answer(stream, flight, answer)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        """Let plugins see the response headers."""
        flight = stream.state
        return self._responses.headers(flight, head) if isinstance(flight, Flight) else None

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        """Let plugins see forwarded chunks."""
        flight = stream.state
        if isinstance(flight, Flight):
            self._responses.chunks(flight, chunks)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        """Close the books."""
        flight = stream.state
        return self._responses.finished(flight, outcome) if isinstance(flight, Flight) else None

    async def _respond(
        self, stream: Stream, pipeline: Pipeline, flight: Flight, request: Request, hook: Hook[DirectResponder]
    ) -> None:
        """Let a plugin answer, or go on if it does not want to."""
        try:
            async with asyncio.timeout(DECISION_DEADLINE_S):
                answer = await direct.respond(pipeline.hooks, hook, flight.path, request)
        except RequestError as error:
            answer = self._refuse(flight, error)
        except TimeoutError:
            answer = self._refuse(flight, RequestError(ErrorCode.SERVICE_UNAVAILABLE, "no answer in time"))
        if answer is None:
            self._begin(stream, pipeline, flight, request)
        else:
            self._answer(stream, flight, answer)

    # Stages

    def _forward_bodyless(self, request: Request) -> Route:
        """Requests without a body go to any endpoint: no plugins, no books (protocol decisions D3 and D16)."""
        try:
            candidates = self._finder.find(request.metadata)
        except RequestError as error:
            raise RequestError(error.code, NO_ENDPOINTS, error.reason) from error
        target = self._choose([endpoint.host_port for endpoint in candidates.endpoints])
        first: list[tuple[str, str]] = [(DESTINATION, target)]
        if not request.headers.get(REQUEST_ID):
            first.append((REQUEST_ID, str(uuid4())))
        return Route(Edits(tuple(first)), {LB_NAMESPACE: {DESTINATION: target}}, _UNOBSERVED)

    def _read(self, pipeline: Pipeline, flight: Flight, request: Request) -> None:
        """Parse, resolve the model name, build the request that plugins see."""
        body = read_body(pipeline.parsers, flight.path, request)
        headers = request.headers
        target = self._target_model(flight, body, request)
        size = len(request.body)
        if body.rewritable and target != body.model:
            flight.splices = model_splices(request.body, target)
            size += growth(flight.splices)
        objective = lookup(headers, *OBJECTIVE)
        request_id = headers.get(REQUEST_ID)
        flight.adds_request_id = not request_id
        flight.request = InferenceRequest(
            request_id=request_id or str(uuid4()),
            path=flight.path,
            headers=headers,
            body=body,
            model=body.model,
            target_model=target,
            priority=self._objects.priority(objective) if objective else 0,
            fairness_id=lookup(headers, *FAIRNESS_ID) or DEFAULT_FLOW,
            size_bytes=size,
            received_s=request.at_s,
            data=RequestData(),
        )

    def _target_model(self, flight: Flight, body: ParsedBody, request: Request) -> str:
        """The name to send upstream: a rule's, else the header's, else the client's own."""
        asked = lookup(request.headers, *MODEL_REWRITE)
        if not body.rewritable:
            return asked or body.model
        flight.incoming_model = body.model
        rule = self._objects.resolve(body.model)
        if rule is not None:
            self._metrics.model_rewrite_decision(RewriteLabels(rule.name, body.model, rule.target))
            return rule.target
        target = asked or body.model
        if not target:
            raise RequestError(ErrorCode.BAD_REQUEST, "model not found in request body")
        return target

    def _decide(self, pipeline: Pipeline, flight: Flight, request: Request) -> Route:
        inference = flight.inference
        hooks = pipeline.hooks
        edits = EditList()
        self._show_headers(pipeline, inference, edits)
        candidates = self._candidates(pipeline, inference, request)
        if hooks.hooks.producers:
            hooks.produce(inference, candidates)
        if hooks.hooks.admitters:
            hooks.admit(inference, candidates)
        result = self._schedule(pipeline, flight, candidates)
        if hooks.hooks.pre_request:
            hooks.pre_request(inference, result, edits)
        return self._route(pipeline, flight, result, edits)

    async def _decide_later(self, stream: Stream, pipeline: Pipeline, flight: Flight, request: Request) -> None:
        """``_decide`` for plugins that wait."""
        hooks = pipeline.hooks
        inference = flight.inference
        answer: Route | Reply
        try:
            async with asyncio.timeout(DECISION_DEADLINE_S):
                edits = EditList()
                self._show_headers(pipeline, inference, edits)
                if hooks.hooks.rewriters:
                    await self._rewrite(pipeline, flight, request)
                candidates = self._candidates(pipeline, inference, request)
                await hooks.produce_async(inference, candidates)
                await hooks.admit_async(inference, candidates)
                if flight.over:  # a plugin that was cancelled went on
                    return
                result = self._schedule(pipeline, flight, candidates)
                await hooks.pre_request_async(inference, result, edits)
                answer = self._route(pipeline, flight, result, edits)
        except RequestError as error:
            answer = self._refuse(flight, error)
        except TimeoutError:
            answer = self._refuse(flight, RequestError(ErrorCode.SERVICE_UNAVAILABLE, "no decision in time"))
        except Exception as error:  # noqa: BLE001 — as in request
            answer = self._failed(flight, "decision", error)
        self._answer(stream, flight, answer)

    def _show_headers(self, pipeline: Pipeline, inference: InferenceRequest, edits: EditList) -> None:
        hooks = pipeline.hooks
        if hooks.hooks.request_header:
            hooks.request_header(inference, edits)
            if inference.fairness_id == DEFAULT_FLOW and not lookup(inference.headers, *FAIRNESS_ID):
                inference.fairness_id = inference.data.get(AGENT_IDENTITY) or DEFAULT_FLOW

    async def _rewrite(self, pipeline: Pipeline, flight: Flight, request: Request) -> None:
        """Let plugins change the body; what comes later sees the changed one."""
        inference = flight.inference
        body = inference.body
        if request.body_state is not BodyState.COMPLETE or not body.rewritable or not pipeline.hooks.rewrites(inference):
            return
        edits = BodyEditList(request.body, body.document)
        await pipeline.hooks.rewrite(inference, edits)
        flight.splices = edits.splices(inference.target_model if flight.splices else None)
        inference.body = replace(body, document=edits.document)
        inference.size_bytes = len(request.body) + growth(flight.splices)

    def _candidates(self, pipeline: Pipeline, inference: InferenceRequest, request: Request) -> Candidates:
        hooks = pipeline.hooks
        candidates = self._finder.find(request.metadata)
        if inference.priority < 0 and pipeline.detector is not None and pipeline.detector.saturation(candidates) >= 1.0:
            raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, "system saturated, sheddable request dropped")
        if hooks.hooks.screeners:
            candidates = hooks.screen(inference, candidates)
            if not candidates:
                raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, SCREENED_OUT, DropReason.NO_ENDPOINTS)
        return candidates

    def _schedule(self, pipeline: Pipeline, flight: Flight, candidates: Candidates) -> SchedulingResult:
        """Pick; from here on the request must be completed exactly once."""
        inference = flight.inference
        record = DecisionRecord() if self._decisions.wanted else None
        begun = time.perf_counter()
        try:
            result = pipeline.scheduler.schedule(inference, candidates, record)
        except (SchedulingError, RequestError) as error:
            self._metrics.scheduler_attempt(AttemptLabels(False, inference.target_model), time.perf_counter() - begun)
            if isinstance(error, RequestError):
                raise
            message = f"failed to find target endpoint: {error}"
            raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, message, error.reason) from error
        finally:
            if record is not None:
                self._decisions.decided(record)
        target = result.targets[0]
        self._metrics.scheduler_attempt(
            AttemptLabels(True, inference.target_model, target.name, target.namespace, str(target.port)),
            time.perf_counter() - begun,
        )
        if prefers_available(inference.headers) and not has_cached_prefix(inference, result, pipeline.match_keys):
            raise RequestError(ErrorCode.PRECONDITION_FAILED, NOT_CACHED)
        flight.scheduled(result, self._metrics)
        return result

    def _route(
        self,
        pipeline: Pipeline,
        flight: Flight,
        result: SchedulingResult,
        edits: EditList,
    ) -> Route:
        targets = result.targets
        destination = targets[0].host_port if len(targets) == 1 else self._list(targets)
        inference = flight.inference
        first: Pairs = ((DESTINATION, destination),)
        if flight.adds_request_id:
            first = (*first, (REQUEST_ID, inference.request_id))
        values: dict[str, object] = {DESTINATION: destination}
        if self._options.emit_scores and (totals := pipeline.scheduler.totals(result)):
            values[DESTINATION_SCORES] = totals
        metadata: Mapping[str, Mapping[str, object]] = {LB_NAMESPACE: values}
        if edits.metadata is not None:
            metadata = {**edits.metadata, LB_NAMESPACE: {**edits.metadata.get(LB_NAMESPACE, {}), **values}}
        return Route(edits.freeze(first), metadata, self._plan(flight), flight.splices)

    def _list(self, targets: Sequence[Endpoint]) -> str:
        """Several endpoints, best first; said once, because not every data plane can take a list."""
        if not self._said_list:
            self._said_list = True
            _logger.warning(
                "sending lists of endpoints",
                needs="a cluster with the override_host policy; ORIGINAL_DST clusters answer a list with 503",
                endpoints=len(targets),
            )
        return ",".join([endpoint.host_port for endpoint in targets])

    def _plan(self, flight: Flight) -> Plan:
        body = flight.inference.body
        plan = self._responses.plan(flight.hooks, body)
        if body.rewritable and flight.inference.target_model != body.model and body.model:
            return plan._replace(rename=Rename("model", flight.inference.target_model, body.model))
        return plan

    # Answers

    def _answer(self, stream: Stream, flight: Flight, answer: Route | Reply) -> None:
        self._metrics.request_processing(self._clock() - flight.received_s)
        stream.answer(answer)

    def _failed(self, flight: Flight, place: str, error: Exception) -> Reply:
        self._responses.defect(place, error)
        return self._refuse(flight, RequestError(ErrorCode.INTERNAL, "internal error"))

    def _refuse(self, flight: Flight, error: RequestError) -> Reply:
        is_read = flight.request is not None
        labels = flight.labels or (flight.make_labels() if is_read else RequestLabels(flight.incoming_model))
        flight.error_counted = True
        self._metrics.request_error(labels, error.code.value)
        return refusal(error, error_shape(flight.path, flight.headers), grpc=is_grpc(flight.headers))


_UNOBSERVED = Plan()
