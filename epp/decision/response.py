"""The response half of a request: hooks on its headers, chunks and end, and the books.

Once an endpoint was scheduled, the completion runs exactly once, whatever happens to the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from epp.decision.cached import compare_cached
from epp.decision.flight import Flight
from epp.decision.ledger import Ledger
from epp.errors import ErrorCode
from epp.framework.types import (
    Cause,
    Completion,
    Endpoint,
    ParsedBody,
    ResponseInfo,
    StreamingChunk,
    Usage,
)
from epp.hooks.runner import HookRunner
from epp.request.edits import EditList
from epp.request.headers import DESTINATION_SERVED, LB_NAMESPACE
from epp.seam import Chunk, Edits, End, Metadata, Observe, Outcome, Plan, ResponseHead
from epp.telemetry.cache_truth import CacheTruth
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


class EndpointLookup(Protocol):
    """Finds endpoints by what the data plane reports."""

    def at(self, host_port: str) -> Endpoint | None: ...


class ResponseObserver:
    """Runs response hooks and keeps the books.

    Args:
        endpoints: for the endpoint that the data plane says it used.
        ledger: of the requests in flight.
        metrics: where requests are counted.
        defect: told of our own failures: (place, exception).
        truth: told of cached tokens that responses report; None = nobody is.
    """

    def __init__(
        self,
        endpoints: EndpointLookup,
        ledger: Ledger,
        metrics: Metrics,
        defect: Callable[[str, Exception], None],
        truth: CacheTruth | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._ledger = ledger
        self._metrics = metrics
        self.defect = defect
        self._truth = truth
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
        told = [StreamingChunk(chunk.data, chunk.end, chunk.at_s, _usage(chunk.read)) for chunk in chunks]
        for piece in told:
            flight.tail = flight.hooks.streaming(flight.inference, result, piece, flight.tail)
        if flight.shadow is not None:
            flight.shadow.chunks(told)

    def finished(self, flight: Flight, outcome: Outcome) -> Metadata | None:
        """Run ResponseComplete hooks and observe the request; a decision that still waits is withdrawn."""
        flight.progress.withdraw()
        result, flight.result = flight.result, None
        labels = flight.labels
        if result is None or labels is None:
            return None
        self._ledger.leave(labels)
        head = outcome.head
        cause = Cause.EVICTED if flight.is_evicted and outcome.end is End.REPLIED else _CAUSES[outcome.end]
        completion = Completion(  # by position, in their order: by name it takes twice as long
            cause,
            head.status if head is not None else 0,
            self._served(flight, head),
            _usage(outcome.read),
            outcome.complete,
            outcome.first_s - flight.received_s if outcome.first_s is not None else None,
            outcome.end_s - flight.received_s,
            outcome.size_bytes,
            outcome.streaming,
            {},
            _document(outcome),
        )
        if flight.hooks.hooks.complete:
            flight.tail = flight.hooks.complete(flight.inference, result, completion, flight.tail)
        if self._truth is not None and flight.used.pipeline.match_keys and completion.usage.cached_tokens is not None:
            compare_cached(self._truth, flight, result, completion)
        flight.completion = completion
        self._count(flight, labels, outcome, completion)
        return completion.metadata or None

    def _count(self, flight: Flight, labels: RequestLabels, outcome: Outcome, completion: Completion) -> None:
        metrics = self._metrics
        if completion.cause is Cause.EVICTED:
            metrics.request_error(labels, ErrorCode.RESOURCE_EXHAUSTED.value)
        elif completion.status >= _FIRST_ERROR_STATUS and not flight.error_counted:
            metrics.request_error(labels, ErrorCode.MODEL_SERVER_ERROR.value)
        usage = completion.usage
        metrics.request_finished(
            labels,
            RequestFacts(  # by position as well
                completion.duration_s if outcome.end is End.NATURAL else None,
                completion.ttft_s,
                outcome.streaming,
                flight.inference.size_bytes,
                outcome.size_bytes if outcome.head is not None else None,
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens or 0,
                outcome.gaps,
                outcome.gaps_s,
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
