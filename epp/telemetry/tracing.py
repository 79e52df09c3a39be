"""Traces: what the environment asks for, and what the decision sees of them.

A traced request is decided with a record, as one that is explained; its spans are made of the record when the decision is made,
so nothing of the decision knows of spans. Without exporters nothing of this is made, and OpenTelemetry is not imported.

Source: OpenTelemetry specification, environment variables; names of spans and attributes: llm-d-router:
pkg/common/observability/tracing, semconv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from epp.errors import UsageError
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord
from epp.telemetry.trace_context import make_sampler

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that name a collector."""

Warn = Callable[[str], None]


class Headers(Protocol):
    """Request headers."""

    def get(self, name: str) -> str | None: ...


class RequestTrace(Protocol):
    """The spans of one request."""

    @property
    def traceparent(self) -> str:
        """Header for the model server, so that its spans become children of this request's; "" = none."""
        ...

    def decided(self, record: DecisionRecord) -> None:
        """The decision is made: its spans are written, an error becomes the request's."""
        ...

    def ended(self, outcome: OutcomeRecord | None) -> None:
        """The request is over; None if it was not sent."""
        ...


class Tracing(Protocol):
    """Traces some of the requests."""

    def begin(self, headers: Headers, received_s: float) -> RequestTrace | None:
        """A request has come; None = it is not traced.

        Args:
            headers: its own.
            received_s: when they came, ``time.monotonic()``.
        """
        ...

    def stop(self) -> None:
        """Send what is left; blocks for as long as the exporters may take."""
        ...


def make_tracing(environ: Mapping[str, str], warn: Warn) -> Tracing | None:
    """Tracing as the environment asks for it; None if nothing is to be exported.

    Args:
        environ: the environment, of which the SDK reads the rest by itself: ``OTEL_BSP_*``, ``OTEL_EXPORTER_OTLP_*`` and so on.
        warn: takes a sentence about what cannot be done.
    """
    names = exporters(environ, warn)
    if not names:
        return None
    try:
        from epp.telemetry import otel
    except ImportError as error:
        warn(
            f"traces are not exported: {error}; install endpoint-picker[tracing], and opentelemetry-proto again after it "
            "(--force-reinstall --no-deps), as xds-protos brings older copies of its files"
        )
        return None
    try:
        return otel.make(names, environ, make_sampler(environ, warn), is_propagated=_propagates(environ, warn))
    except UsageError as error:
        warn(f"traces are not exported: {error}")
        return None


def exporters(environ: Mapping[str, str], warn: Warn) -> list[str]:
    """``otlp`` and ``console``, as ``OTEL_TRACES_EXPORTER`` names them; ``otlp`` if only an endpoint is given."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    text = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not text:
        return ["otlp"] if any(environ.get(name) for name in ENDPOINTS) else []
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in ("otlp", "console", "none"):
            warn(f"OTEL_TRACES_EXPORTER={name} is not known; there are otlp, console, none")
    return [name for name in names if name in ("otlp", "console")]


def _propagates(environ: Mapping[str, str], warn: Warn) -> bool:
    """``tracecontext`` is read and written; baggage passes through as it comes."""
    names = [name.strip() for name in environ.get("OTEL_PROPAGATORS", "").split(",") if name.strip()]
    for name in names:
        if name not in ("tracecontext", "baggage", "none"):
            warn(f"OTEL_PROPAGATORS={name} is not known; there are tracecontext, baggage, none")
    return not names or "tracecontext" in names
