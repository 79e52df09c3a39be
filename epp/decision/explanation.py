"""What is written down of a request around its decision, and what is told to one that asked for it."""

from __future__ import annotations

from epp.decision.cached import predictions
from epp.decision.flight import Flight
from epp.framework.types import Completion
from epp.request.headers import REQUEST_ID, TRACEPARENT
from epp.seam import Edits, Pairs, Reply, Route
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord
from epp.telemetry.decision_text import short_form
from epp.telemetry.decisions import EXPLAIN_HEADER
from epp.telemetry.tracing import RequestTrace

FIRST_ERROR_STATUS = 400


def describe(record: DecisionRecord, flight: Flight) -> None:
    """Fill in what the flight knows: the request, and what was known of its prompt's beginning."""
    inference = flight.request
    if inference is None:
        record.request_id = flight.headers.get(REQUEST_ID) or ""
        return
    record.request_id, record.fairness_id = inference.request_id, inference.fairness_id
    record.model, record.target_model, record.priority = inference.model, inference.target_model, inference.priority
    record.prefixes = predictions(inference, flight.target, flight.used.pipeline.match_keys, flight.candidates)


def after_the_fact(flight: Flight) -> DecisionRecord:
    """All that can be said of a decision of which no record was made."""
    record = DecisionRecord(path=flight.path, picked=[endpoint.host_port for endpoint in flight.targets])
    if flight.result is not None:
        record.primary = flight.result.primary
    describe(record, flight)
    return record


def outcome(completion: Completion) -> OutcomeRecord:
    """What became of a request that was forwarded."""
    usage = completion.usage
    return OutcomeRecord(
        cause=completion.cause.value,
        status=completion.status,
        served=completion.served.host_port,
        ttft_s=completion.ttft_s,
        duration_s=completion.duration_s,
        response_bytes=completion.response_bytes,
        streaming=completion.streaming,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def told(answer: Route | Reply, record: DecisionRecord) -> tuple[Route | Reply, Pairs]:
    """The answer to a request that asked to be explained, and headers for its response if it is forwarded."""
    header = (EXPLAIN_HEADER, short_form(record))
    if isinstance(answer, Reply):
        return answer._replace(headers=(*answer.headers, header)), ()
    return answer._replace(plan=answer.plan._replace(ask_headers=True)), (header,)


def traced(answer: Route | Reply, trace: RequestTrace) -> Route | Reply:
    """The answer, with the context of its trace for the model server."""
    if isinstance(answer, Reply) or not trace.traceparent:
        return answer
    headers = answer.headers
    return answer._replace(headers=headers._replace(set=(*headers.set, (TRACEPARENT, trace.traceparent))))


def with_headers(edits: Edits | None, headers: Pairs) -> Edits | None:
    """These changes of the response headers, and the headers of the explanation."""
    if not headers:
        return edits
    return Edits(headers) if edits is None else edits._replace(set=(*edits.set, *headers))
