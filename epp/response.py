"""The response side of a request: hooks on its headers, chunks and end, and the books.

A ``Flight`` is all that is kept of one request while its stream is open. Once an endpoint was scheduled, the completion
runs exactly once, whatever happens to the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from epp.errors import ErrorCode
from epp.extproc.handler import Chunk, Edits, End, Headers, Metadata, Observe, Outcome, Plan, ResponseHead
from epp.framework.results import SchedulingResult
from epp.framework.types import Cause, Completion, Endpoint, InferenceRequest, ParsedBody, ResponseInfo, StreamingChunk, Usage
from epp.lifecycle import HookRunner
from epp.request.edits import EditList
from epp.request.headers import DESTINATION_SERVED, LB_NAMESPACE
from epp.request.rewrite import Splices
from epp.telemetry.metrics import Metrics
from epp.telemetry.requests import RequestFacts, RequestLabels

_CAUSES = {
    End.NATURAL: Cause.NATURAL,
    End.DISCONNECTED: Cause.CLIENT_DISCONNECT,
    End.REPLIED: Cause.ERROR,
    End.FAILED: Cause.ERROR,
}
_NO_USAGE = Usage()
_FIRST_ERROR_STATUS = 400


class Flight:
    """One request from its headers to its end."""

    __slots__ = (
        "adds_request_id",
        "error_counted",
        "evicted",
        "headers",
        "hooks",
        "incoming_model",
        "labels",
        "over",
        "path",
        "received_s",
        "request",
        "result",
        "served",
        "splices",
        "tail",
        "target",
        "targets",
        "task",
    )

    def __init__(self, hooks: HookRunner, received_s: float, path: str, headers: Headers) -> None:
        self.hooks = hooks
        """Of the configuration that the request began with."""
        self.received_s = received_s
        self.path = path
        self.headers = headers
        self.incoming_model = ""
        self.request: InferenceRequest | None = None
        self.result: SchedulingResult | None = None
        """Set once an endpoint was scheduled; cleared by the completion."""
        self.labels: RequestLabels | None = None
        self.target: Endpoint | None = None
        self.targets: tuple[Endpoint, ...] = ()
        """As they were sent to the data plane, best first."""
        """The first of the picked endpoints."""
        self.served: Endpoint | None = None
        """The endpoint that answered, if the data plane said so."""
        self.task: asyncio.Task[None] | None = None
        """The decision, while it waits."""
        self.tail: asyncio.Task[None] | None = None
        """The last coroutine hook."""
        self.splices: Splices = ()
        """Changes of the body, with which it is forwarded."""
        self.adds_request_id = False
        self.error_counted = False
        self.evicted = False
        self.over = False
        """The stream has ended."""

    @property
    def inference(self) -> InferenceRequest:
        """The request that plugins see; only after it was parsed."""
        assert self.request is not None
        return self.request

    def make_labels(self) -> RequestLabels:
        """What the request is counted under."""
        request = self.inference
        return RequestLabels(request.model or request.target_model, request.target_model, request.fairness_id, request.priority)

    def scheduled(self, result: SchedulingResult, metrics: Metrics) -> None:
        """An endpoint was picked."""
        self.result = result
        self.targets = result.targets
        self.target = self.targets[0]
        self.labels = labels = self.make_labels()
        metrics.request_scheduled(labels)
        metrics.running_up(labels)


class EndpointLookup(Protocol):
    """Finds endpoints by what the data plane reports."""

    def at(self, host_port: str) -> Endpoint | None: ...


class ResponseSide:
    """Runs response hooks and keeps the books.

    Args:
        endpoints: for the endpoint that the data plane says it used.
        metrics: where requests are counted.
        defect: told of our own failures: (place, exception).
    """

    def __init__(self, endpoints: EndpointLookup, metrics: Metrics, defect: Callable[[str, Exception], None]) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self.defect = defect
        self._plans = lru_cache(maxsize=256)(_plan)

    def plan(self, hooks: HookRunner, body: ParsedBody) -> Plan:
        """What the transport must do with the response so that hooks and books get what they read, and no more."""
        slots = hooks.hooks
        observe = Observe.EVERY if slots.every_chunk else Observe.FIRST if slots.streaming else Observe.OFF
        readers = (body.usage_reader,) if body.usage_reader else ()
        if slots.reads_document and body.document_reader:
            readers = (*readers, body.document_reader)
        return self._plans(bool(slots.received), observe, bool(slots.complete), readers, body.streams, body.skip_response)

    def headers(self, flight: Flight, head: ResponseHead) -> Edits | None:
        """Run ResponseReceived hooks."""
        result = flight.result
        if result is None:
            return None
        edits = EditList()
        response = ResponseInfo(head.status, head.headers, self._served(flight, head), head.metadata, head.at_s)
        flight.hooks.received(flight.inference, result, response, edits)
        return edits.freeze()

    def chunks(self, flight: Flight, chunks: Sequence[Chunk]) -> None:
        """Run ResponseStreaming hooks."""
        result = flight.result
        if result is None:
            return
        for chunk in chunks:
            told = StreamingChunk(chunk.data, chunk.end, chunk.at_s, _usage(chunk.read))
            flight.tail = flight.hooks.streaming(flight.inference, result, told, flight.tail)

    def finished(self, flight: Flight, outcome: Outcome) -> Metadata | None:
        """Run ResponseComplete hooks and observe the request; a decision that still waits is withdrawn."""
        flight.over = True
        if flight.task is not None and not flight.task.done():
            flight.task.cancel()
        result, flight.result = flight.result, None
        labels = flight.labels
        if result is None or labels is None:
            return None
        self._metrics.running_down(labels)
        head = outcome.head
        completion = Completion(
            cause=Cause.EVICTED if flight.evicted else _CAUSES[outcome.end],
            status=head.status if head is not None else 0,
            served=self._served(flight, head),
            usage=_usage(outcome.read),
            length_known=outcome.complete,
            ttft_s=outcome.first_s - flight.received_s if outcome.first_s is not None else None,
            duration_s=outcome.end_s - flight.received_s,
            response_bytes=outcome.size_bytes,
            streaming=outcome.streaming,
            document=_document(outcome),
        )
        if flight.hooks.hooks.complete:
            flight.hooks.complete(flight.inference, result, completion, flight.tail)
        self._count(flight, labels, outcome, completion)
        return completion.metadata or None

    def _count(self, flight: Flight, labels: RequestLabels, outcome: Outcome, completion: Completion) -> None:
        metrics = self._metrics
        if completion.status >= _FIRST_ERROR_STATUS and not flight.error_counted:
            metrics.request_error(labels, ErrorCode.MODEL_SERVER_ERROR.value)
        usage = completion.usage
        metrics.request_finished(
            labels,
            RequestFacts(
                duration_s=completion.duration_s if outcome.end is End.NATURAL else None,
                ttft_s=completion.ttft_s,
                streaming=outcome.streaming,
                request_bytes=flight.inference.size_bytes,
                response_bytes=outcome.size_bytes if outcome.head is not None else None,
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cached_tokens=usage.cached_tokens or 0,
                gaps=outcome.gaps,
                gaps_s=outcome.gaps_s,
            ),
        )
        metrics.response_processing(outcome.busy_s)

    def _served(self, flight: Flight, head: ResponseHead | None) -> Endpoint:
        """The endpoint that answered: the data plane's word if it names one that we know, else the target."""
        if flight.served is not None:
            return flight.served
        if head is not None and head.metadata:
            named = head.metadata.get(LB_NAMESPACE, {}).get(DESTINATION_SERVED)
            if isinstance(named, str):
                # A target's port may be that of a proxy, which the store knows as another endpoint or not at all.
                target = next((target for target in flight.targets if target.host_port == named), None)
                flight.served = target or self._endpoints.at(named)
        served = flight.served or flight.target
        assert served is not None
        return served


def _plan(received: bool, observe: Observe, complete: bool, readers: tuple[str, ...], streams: bool, skip: bool) -> Plan:
    return Plan(
        ask_headers=received,
        observe=observe,
        hold_end=complete,
        readers=readers,
        streams=streams,
        skip=skip,
    )


def _usage(read: tuple[object, ...]) -> Usage:
    """The usage that a reader found."""
    if not read:
        return _NO_USAGE
    found = read[0]
    return found if isinstance(found, Usage) else _NO_USAGE


def _document(outcome: Outcome) -> bytes | None:
    """The document that a reader found; only of a response that was seen to its end."""
    found = outcome.read[-1] if outcome.read and outcome.complete else None
    return found if isinstance(found, bytes) else None
