"""The part of tracing that is OpenTelemetry's SDK; imported only where traces are exported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from epp.errors import UsageError
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord
from epp.telemetry.decision_spans import write_decision
from epp.telemetry.trace_context import Sampled, Sampler, format_traceparent
from epp.telemetry.tracing import ENDPOINTS, Headers

SERVICE_NAME = "heimdall"
"""Where ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` name none."""
SCOPE = "epp"
REQUEST_SPAN = "gateway.request"
_PROTOCOLS = ("grpc", "http/protobuf")
_FIRST_ERROR_STATUS = 400


class Trace:
    """The spans of one request.

    Args:
        span: of the whole request.
        tracer: makes the others.
        is_propagated: the model server is told.
    """

    __slots__ = ("_is_over", "_span", "_tracer", "traceparent")

    def __init__(self, span: Span, tracer: Tracer, *, is_propagated: bool) -> None:
        self._span = span
        self._tracer = tracer
        self._is_over = False
        context = span.get_span_context()
        self.traceparent = format_traceparent(context.trace_id, context.span_id) if is_propagated else ""
        """Header for the model server, so that its spans become children of this request's; "" = none."""

    def decided(self, record: DecisionRecord) -> None:
        """The decision is made: its spans are written, an error becomes the request's."""
        self._span.set_attribute("gen_ai.request.model", record.model)
        self._span.set_attribute("gen_ai.request.id", record.request_id)
        write_decision(self._tracer, self._span, record)
        if record.error:
            self._fail(record.error)

    def ended(self, outcome: OutcomeRecord | None) -> None:
        """The request is over; called once.

        Args:
            outcome: what became of it; None if it was not sent.
        """
        if self._is_over:
            return
        self._is_over = True
        if outcome is not None:
            self._span.set_attribute("http.response.status_code", outcome.status)
            self._span.set_attribute("server.address", outcome.served)
            if outcome.prompt_tokens:
                self._span.set_attribute("gen_ai.usage.input_tokens", outcome.prompt_tokens)
                self._span.set_attribute("gen_ai.usage.output_tokens", outcome.completion_tokens)
            if outcome.status >= _FIRST_ERROR_STATUS:
                self._fail(f"the model server answered {outcome.status}")
            elif outcome.cause != "natural":
                self._fail(outcome.cause)
        self._span.end()

    def _fail(self, text: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, text))


class OtelTracing:
    """Traces some of the requests.

    Args:
        provider: of OpenTelemetry's SDK.
        sampler: says which.
        ids: gives the next trace its id.
        is_propagated: trace context is read from requests and passed on.
    """

    def __init__(self, provider: TracerProvider, sampler: Sampler, ids: NextId, *, is_propagated: bool = True) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SCOPE)
        self._sampler = sampler
        self._ids = ids
        self._is_propagated = is_propagated

    def begin(self, headers: Headers, received_s: float) -> Trace | None:
        """A request has come; None = it is not traced.

        Args:
            headers: its own.
            received_s: when they came, ``time.monotonic()``.
        """
        sampled = self._sampler.sample(headers.get("traceparent") if self._is_propagated else None)
        return None if sampled is None else self._begun(sampled, headers, received_s)

    def stop(self) -> None:
        """Send what is left; blocks for as long as the exporters may take."""
        self._provider.shutdown()

    def _begun(self, sampled: Sampled, headers: Headers, received_s: float) -> Trace:
        context = None
        if sampled.parent is not None:
            state = TraceState.from_header([headers.get("tracestate") or ""])
            flags = TraceFlags(TraceFlags.SAMPLED)
            parent = SpanContext(sampled.trace_id, sampled.parent.span_id, is_remote=True, trace_flags=flags, trace_state=state)
            context = set_span_in_context(NonRecordingSpan(parent))
        self._ids.trace_id = sampled.trace_id
        started_ns = time.time_ns() - int((time.monotonic() - received_s) * 1e9)
        span = self._tracer.start_span(REQUEST_SPAN, context=context, kind=SpanKind.SERVER, start_time=started_ns)
        return Trace(span, self._tracer, is_propagated=self._is_propagated)


class NextId(IdGenerator):
    """Gives a trace the id by which it was decided that there is one."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.trace_id = 0
        """Of the next trace."""

    def generate_trace_id(self) -> int:
        """The id."""
        return self.trace_id or self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        """A random one."""
        return self._random.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """Of W3C Trace Context level 2: the right half of an id is uniformly random."""
        return True


def make(names: Sequence[str], environ: Mapping[str, str], sampler: Sampler, *, is_propagated: bool) -> OtelTracing:
    """Tracing to these exporters.

    Args:
        names: ``otlp``, ``console``.
        environ: the environment; what is not read here the SDK reads by itself.
        sampler, is_propagated: as for ``OtelTracing``.

    Raises:
        UsageError: a variable has a value that cannot be used.
    """
    ids = NextId()
    resource = Resource.create({} if _names_service(environ) else {"service.name": SERVICE_NAME})
    provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, id_generator=ids, shutdown_on_exit=False)
    for name in names:
        if name == "console":
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        else:
            provider.add_span_processor(BatchSpanProcessor(_otlp(environ)))
    return OtelTracing(provider, sampler, ids, is_propagated=is_propagated)


def _names_service(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("OTEL_SERVICE_NAME")) or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _otlp(environ: Mapping[str, str]) -> SpanExporter:
    specific, general = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = (specific or general or _PROTOCOLS[0]).strip()
    if protocol == "grpc":
        return GrpcExporter(insecure=_is_plain(environ))
    if protocol == "http/protobuf":
        return HttpExporter()
    raise UsageError([f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not known; there are {', '.join(_PROTOCOLS)}"])


def _is_plain(environ: Mapping[str, str]) -> bool | None:
    """An endpoint without a scheme, which Go programs take, is not encrypted unless a variable says so.

    Returns:
        None: the SDK decides.
    """
    if any(environ.get(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")):
        return None
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), "")
    return True if "://" not in endpoint else None
