"""What the environment asks for, and the spans of a request."""

from __future__ import annotations

import builtins
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode

from epp.framework.testing import FakeHeaders
from epp.telemetry.decision_record import (
    AdmissionRecord,
    CallRecord,
    DecisionRecord,
    FilterRecord,
    OutcomeRecord,
    PrefixRecord,
    ProfileRecord,
    ScoreRecord,
)
from epp.telemetry.otel import NextId, OtelTracing
from epp.telemetry.trace_context import Sampler, parse_traceparent
from epp.telemetry.tracing import exporters, make_tracing

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BEGUN_S = 1_700_000_000.0
DONE = OutcomeRecord("natural", 200, A, 0.1, 0.5, 900, True, 160, 20, 48)


@pytest.mark.parametrize(
    ("environ", "names", "told"),
    [
        pytest.param({}, [], 0, id="nothing is set"),
        pytest.param({"OTEL_TRACES_EXPORTER": "none"}, [], 0, id="none"),
        pytest.param({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"], 0, id="otlp"),
        pytest.param({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"], 0, id="two"),
        pytest.param({"OTEL_TRACES_EXPORTER": "zipkin"}, [], 1, id="another"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, ["otlp"], 0, id="an endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, ["otlp"], 0, id="an endpoint for traces"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, [], 0, id="disabled"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, [], 0, id="none wins"),
    ],
)
def test_exporters(environ: dict[str, str], names: list[str], told: int) -> None:
    problems: list[str] = []
    assert exporters(environ, problems.append) == names
    assert len(problems) == told


def test_without_exporters_there_is_no_tracing() -> None:
    assert make_tracing({}, pytest.fail) is None


def test_an_unknown_protocol_is_told() -> None:
    problems: list[str] = []
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    assert make_tracing(environ, problems.append) is None
    assert problems == [
        "traces are not exported: OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not known; there are grpc, http/protobuf"
    ]


def test_a_missing_sdk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "epp.telemetry" and args[2] == ("otel",):
            raise ImportError("No module named 'opentelemetry'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    problems: list[str] = []
    assert make_tracing({"OTEL_TRACES_EXPORTER": "otlp"}, problems.append) is None
    (problem,) = problems
    assert problem.startswith("traces are not exported: No module named 'opentelemetry'; install endpoint-picker[tracing]")


class Traced:
    """Tracing whose spans can be looked at."""

    def __init__(self, sampler: str = "parentbased_always_on", *, is_propagated: bool = True) -> None:
        self._exporter = InMemorySpanExporter()
        ids = NextId()
        provider = TracerProvider(sampler=ALWAYS_ON, id_generator=ids)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = OtelTracing(provider, Sampler(sampler, 0.0), ids, is_propagated=is_propagated)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def tree(self) -> dict[str, str]:
        """Span → its parent, in the order of their beginning."""
        spans = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        names = {span.context.span_id: span.name for span in spans}
        return {span.name: names.get(span.parent.span_id, "remote") if span.parent else "" for span in spans}


def decision() -> DecisionRecord:
    """A decision with a producer, two profiles' worth of calls, and a prefill endpoint."""
    decode = ProfileRecord(
        "decode",
        filters=[FilterRecord("role", [C], 2)],
        scorers=[ScoreRecord("queue", 2.0, {A: 1.0, B: 0.5})],
        totals={A: 2.0, B: 1.0},
        picker="max",
        picked=[A],
        after_s=0.003,
        took_s=0.002,
    )
    return DecisionRecord(
        at_s=BEGUN_S,
        request_id="r-1",
        model="m",
        target_model="m-v2",
        priority=3,
        candidates=[A, B, C],
        prefixes=[PrefixRecord("index", A, 4, 10, 16, matched={A: 4})],
        admission=AdmissionRecord("admitted", 0.25),
        profiles=[decode],
        primary="decode",
        picked=[A],
        prefill=[B],
        calls=[
            CallRecord("DataProducer", "precise-prefix-cache-producer", "index", 0.001, after_s=0.001),
            CallRecord("ProfilePicker", "disagg-profile-handler", "handler", 0.0001, after_s=0.002),
            CallRecord("Filter", "decode-filter", "role", 0.0001, after_s=0.0031),
            CallRecord("Scorer", "queue-scorer", "queue", 0.0005, after_s=0.0035),
            CallRecord("Picker", "max-score-picker", "max", 0.0001, after_s=0.0045),
        ],
        took_s=0.006,
    )


def test_the_spans_of_a_request() -> None:
    traced = Traced()
    trace = traced.tracing.begin(FakeHeaders({"traceparent": PARENT, "tracestate": "vendor=1"}), time.monotonic() - 1)
    assert trace is not None
    trace.decided(decision())
    trace.ended(DONE)
    trace.ended(DONE)
    orchestration, profile = "gateway.request_orchestration", "run_scheduler_profile"
    assert traced.tree() == {
        orchestration: "gateway.request",
        "produce_precise_prefix_cache": orchestration,
        "pick_disagg_profile": orchestration,
        profile: orchestration,
        "filter_endpoints": profile,
        "llm_d.epp.scoring": profile,
        "llm_d.epp.scorer.queue-scorer": "llm_d.epp.scoring",
        "pick_endpoints": profile,
        "prepare_disaggregation": orchestration,
        "gateway.request": "remote",
    }
    spans = traced.spans
    assert {name: dict(span.attributes or {}) for name, span in spans.items()} == {
        "gateway.request": {
            "gen_ai.request.model": "m",
            "gen_ai.request.id": "r-1",
            "http.response.status_code": 200,
            "server.address": A,
            "gen_ai.usage.input_tokens": 160,
            "gen_ai.usage.output_tokens": 20,
        },
        orchestration: {"target_model": "m-v2", "request_prio": 3, "llm_d.epp.admission.held_seconds": 0.25},
        profile: {"llm_d.epp.scheduling.profile.name": "decode"},
        "filter_endpoints": {"llm_d.epp.filter.candidate_endpoints": 3, "llm_d.epp.filter.filtered_endpoints": 2},
        "llm_d.epp.scoring": {"llm_d.epp.scorer.count": 1, "llm_d.epp.scoring.candidate_endpoints": 2},
        "llm_d.epp.scorer.queue-scorer": {
            "llm_d.epp.scorer.type": "queue-scorer",
            "llm_d.epp.scorer.name": "queue",
            "llm_d.epp.scorer.weight": 2.0,
            "llm_d.epp.scorer.candidate_endpoints": 2,
            "llm_d.epp.scorer.endpoints_scored": 2,
            "llm_d.epp.scorer.score.max": 1.0,
            "llm_d.epp.scorer.score.avg": 0.75,
        },
        "pick_endpoints": {
            "llm_d.epp.picker.candidate_endpoints": 2,
            "llm_d.epp.picker.top_endpoints": (A, B),
            "llm_d.epp.picker.top_scores": (2.0, 1.0),
        },
        "pick_disagg_profile": {
            "plugin_name": "handler",
            "plugin_type": "disagg-profile-handler",
            "llm_d.epp.profile_handler.decision": "decode",
        },
        "produce_precise_prefix_cache": {
            "plugin_name": "index",
            "plugin_type": "precise-prefix-cache-producer",
            "llm_d.epp.producer.candidate_endpoints": 3,
            "llm_d.epp.producer.max_match_blocks": 4,
            "llm_d.epp.producer.total_blocks": 10,
        },
        "prepare_disaggregation": {
            "llm_d.epp.pd.disaggregation_used": True,
            "llm_d.epp.pd.prefill_pod_address": "10.0.0.2",
            "llm_d.epp.pd.prefill_pod_port": "8000",
            "llm_d.epp.encode.disaggregation_used": False,
        },
    }
    request = spans["gateway.request"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert request.context.trace_state.get("vendor") == "1"
    assert 0.9 < (request.end_time - request.start_time) / 1e9 < 60  # type: ignore[operator]  # it has ended
    scorer = spans["llm_d.epp.scorer.queue-scorer"]
    assert abs((scorer.start_time or 0) - (BEGUN_S + 0.0035) * 1e9) < 2000
    assert abs((scorer.end_time or 0) - (BEGUN_S + 0.0040) * 1e9) < 2000
    parent = parse_traceparent(trace.traceparent)
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (request.context.trace_id, request.context.span_id)


def test_a_request_without_a_parent_begins_a_trace_of_its_own() -> None:
    traced = Traced()
    first, second = (traced.tracing.begin(FakeHeaders({}), time.monotonic()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.traceparent[:35] != second.traceparent[:35]


def test_a_request_that_is_not_sampled_has_no_spans() -> None:
    traced = Traced("parentbased_always_off")
    assert traced.tracing.begin(FakeHeaders({}), 0.0) is None


def test_without_propagation_nothing_is_read_or_passed_on() -> None:
    traced = Traced(is_propagated=False)
    trace = traced.tracing.begin(FakeHeaders({"traceparent": PARENT}), time.monotonic())
    assert trace is not None
    assert trace.traceparent == ""
    trace.ended(None)
    assert traced.tree() == {"gateway.request": ""}


@pytest.mark.parametrize(
    ("changes", "outcome", "description"),
    [
        pytest.param({"error": "no endpoints"}, None, "no endpoints", id="refused"),
        pytest.param(
            {}, OutcomeRecord("natural", 500, A, None, 1, 0, False, 0, 0, None), "the model server answered 500", id="500"
        ),
        pytest.param(
            {}, OutcomeRecord("client-disconnect", 200, A, None, 1, 0, False, 0, 0, None), "client-disconnect", id="left"
        ),
        pytest.param({}, DONE, None, id="well"),
    ],
)
def test_errors(changes: dict[str, Any], outcome: OutcomeRecord | None, description: str | None) -> None:
    traced = Traced()
    trace = traced.tracing.begin(FakeHeaders({}), time.monotonic())
    assert trace is not None
    trace.decided(DecisionRecord(**changes))
    trace.ended(outcome)
    status = traced.spans["gateway.request"].status
    assert (status.status_code is StatusCode.ERROR, status.description) == (description is not None, description)
