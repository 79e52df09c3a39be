"""The spans of a decision, made of its record once it is over.

Source of names: llm-d-router: pkg/epp/scheduling/scheduler_profile.go, pkg/epp/requestcontrol/director.go, semconv.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from epp.telemetry.decision_record import CallRecord, DecisionRecord, ProfileRecord

_MOST_TOP = 5
"""Endpoints named on the picker's span."""
_PREFIX = "llm_d.epp."
_IN_PROFILES = frozenset({"Filter", "Scorer", "Picker"})

Value = str | bool | int | float | list[str] | list[float]


def write_decision(tracer: Tracer, parent: Span, record: DecisionRecord) -> None:
    """Write the spans of a decision below the span of its request."""
    _Writer(tracer, record).write(parent)


class _Writer:
    """Writes spans whose times are those of the record."""

    def __init__(self, tracer: Tracer, record: DecisionRecord) -> None:
        self._tracer = tracer
        self._record = record
        self._calls = list(record.calls)
        """Those that have no span yet."""

    def write(self, parent: Span) -> None:
        record = self._record
        attributes: dict[str, Value] = {"target_model": record.target_model, "request_prio": record.priority}
        if record.admission is not None and record.admission.held_s:
            attributes[f"{_PREFIX}admission.held_seconds"] = record.admission.held_s
        span = self._begin(parent, "gateway.request_orchestration", 0.0, attributes, kind=SpanKind.SERVER)
        for profile in record.profiles:
            self._profile(span, profile)
        for call in self._calls:
            self._write(span, _name(call), call.after_s, call.took_s, _call_attributes(record, call), call.error)
        if record.prefill or record.encode:
            self._write(span, "prepare_disaggregation", record.took_s, 0.0, dict(_disaggregation(record)))
        self._end(span, record.took_s, record.error)

    def _profile(self, parent: Span, profile: ProfileRecord) -> None:
        attributes: dict[str, Value] = {f"{_PREFIX}scheduling.profile.name": profile.profile}
        span = self._begin(parent, "run_scheduler_profile", profile.after_s, attributes)
        if filters := self._taken("Filter", {step.plugin for step in profile.filters}, profile):
            kept = profile.filters[-1].kept
            candidates = profile.filters[0].kept + len(profile.filters[0].dropped)
            counts: dict[str, Value] = {
                f"{_PREFIX}filter.candidate_endpoints": candidates,
                f"{_PREFIX}filter.filtered_endpoints": kept,
            }
            begun, ended = _span_of(filters)
            self._write(span, "filter_endpoints", begun, ended - begun, counts, profile.filters[-1].error)
        self._scoring(span, profile)
        for call in self._taken("Picker", {profile.picker}, profile):
            best = sorted(profile.totals.items(), key=lambda entry: -entry[1])[:_MOST_TOP]
            picked: dict[str, Value] = {
                f"{_PREFIX}picker.candidate_endpoints": len(profile.totals),
                f"{_PREFIX}picker.top_endpoints": [endpoint for endpoint, _ in best],
                f"{_PREFIX}picker.top_scores": [total for _, total in best],
            }
            self._write(span, "pick_endpoints", call.after_s, call.took_s, picked, call.error)
        self._end(span, profile.after_s + profile.took_s, profile.error)

    def _scoring(self, parent: Span, profile: ProfileRecord) -> None:
        scored = {scorer.plugin: scorer for scorer in profile.scorers}
        calls = self._taken("Scorer", scored.keys(), profile)
        if not calls:
            return
        begun, ended = _span_of(calls)
        counts: dict[str, Value] = {
            f"{_PREFIX}scorer.count": len(scored),
            f"{_PREFIX}scoring.candidate_endpoints": len(profile.totals),
        }
        span = self._begin(parent, f"{_PREFIX}scoring", begun, counts)
        for call in calls:
            scorer = scored[call.plugin]
            scores = list(scorer.scores.values())
            attributes: dict[str, Value] = {
                f"{_PREFIX}scorer.type": call.type,
                f"{_PREFIX}scorer.name": call.plugin,
                f"{_PREFIX}scorer.weight": float(scorer.weight),
                f"{_PREFIX}scorer.candidate_endpoints": len(profile.totals),
                f"{_PREFIX}scorer.endpoints_scored": len(scores),
            }
            if scores:
                attributes[f"{_PREFIX}scorer.score.max"] = max(scores)
                attributes[f"{_PREFIX}scorer.score.avg"] = sum(scores) / len(scores)
            self._write(span, f"{_PREFIX}scorer.{call.type}", call.after_s, call.took_s, attributes, call.error)
        self._end(span, ended, "")

    def _taken(self, point: str, names: Collection[str], profile: ProfileRecord) -> list[CallRecord]:
        """The calls of these plugins within the profile, which get their spans now."""
        ended = profile.after_s + profile.took_s
        taken = [
            call
            for call in self._calls
            if call.extension_point == point and call.plugin in names and profile.after_s <= call.after_s + call.took_s <= ended
        ]
        self._calls = [call for call in self._calls if call not in taken]
        return taken

    def _write(
        self, parent: Span, name: str, after_s: float, took_s: float, attributes: Mapping[str, Value], error: str = ""
    ) -> None:
        self._end(self._begin(parent, name, after_s, attributes), after_s + took_s, error)

    def _begin(
        self, parent: Span, name: str, after_s: float, attributes: Mapping[str, Value], kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self._tracer.start_span(
            name,
            context=set_span_in_context(parent),
            kind=kind,
            attributes=attributes,
            start_time=self._ns(after_s),
        )

    def _end(self, span: Span, after_s: float, error: str) -> None:
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(self._ns(after_s))

    def _ns(self, after_s: float) -> int:
        return int((self._record.at_s + after_s) * 1e9)


def _span_of(calls: list[CallRecord]) -> tuple[float, float]:
    return calls[0].after_s, calls[-1].after_s + calls[-1].took_s


def _name(call: CallRecord) -> str:
    """``pick_disagg_profile``, ``produce_precise_prefix_cache``; others by extension point and type."""
    words = call.type.replace("-", "_")
    if call.extension_point == "ProfilePicker":
        return f"pick_{words.removesuffix('_handler')}"
    if call.extension_point == "DataProducer":
        return f"produce_{words.removesuffix('_producer')}"
    return f"{_PREFIX}{call.extension_point}.{call.type}"


def _call_attributes(record: DecisionRecord, call: CallRecord) -> dict[str, Value]:
    attributes: dict[str, Value] = {"plugin_name": call.plugin, "plugin_type": call.type}
    if call.extension_point in ("ProfilePicker", "ProcessProfilesResults"):
        attributes[f"{_PREFIX}profile_handler.decision"] = ",".join(profile.profile for profile in record.profiles)
    if call.extension_point == "DataProducer":
        for prefix in record.prefixes:
            if prefix.plugin == call.plugin:
                attributes[f"{_PREFIX}producer.candidate_endpoints"] = len(record.candidates)
                attributes[f"{_PREFIX}producer.max_match_blocks"] = max(prefix.matched.values(), default=0)
                attributes[f"{_PREFIX}producer.total_blocks"] = prefix.total_blocks
    return attributes


def _disaggregation(record: DecisionRecord) -> Iterator[tuple[str, Value]]:
    yield f"{_PREFIX}pd.disaggregation_used", bool(record.prefill)
    if record.prefill:
        address, _, port = record.prefill[0].rpartition(":")
        yield f"{_PREFIX}pd.prefill_pod_address", address.strip("[]")
        yield f"{_PREFIX}pd.prefill_pod_port", port
    yield f"{_PREFIX}encode.disaggregation_used", bool(record.encode)
    if record.encode:
        yield f"{_PREFIX}encode.endpoints", record.encode
