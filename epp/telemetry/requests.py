"""What a request's events do to its metrics: one lookup for each event, children bound once per set of labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from epp.telemetry.cardinality import OTHER, Cap
from epp.telemetry.instruments import Counter, Histogram, LabelValues

DEFAULT_FAIRNESS_ID = "default-flow"
MAX_COMBINATIONS = 10_000
"""Distinct label sets of requests. Each costs some 6 KB here and several hundred lines in a scrape, and clients choose two
of the four labels: the caps of the single labels alone would admit a million."""


class RequestLabels(NamedTuple):
    """What a request is counted under."""

    model_name: str
    """The name that the client asked for."""
    target_model_name: str = ""
    """The name sent to the model server; empty = the same."""
    fairness_id: str = ""
    """Empty = ``default-flow``."""
    priority: int = 0


class RequestFacts(NamedTuple):
    """What is known of a request when it is over. None or a token count of 0 = unknown, not observed."""

    duration_s: float | None = None
    """From the request headers to the last byte; None if the response was cut."""
    ttft_s: float | None = None
    """From the request headers to the first non-empty piece of the response body."""
    streaming: bool = False
    request_bytes: int | None = None
    """Body size as sent to the model server."""
    response_bytes: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    gaps: tuple[int, ...] = ()
    """Gaps between chunks of a streaming response, counted by ``catalogue.ITL_S``: ``handler.Outcome.gaps``."""
    gaps_s: float = 0.0
    """Sum of the gaps."""


class Labeller:
    """Turns request labels into label values, within the caps."""

    def __init__(self, models: Cap, fairness_ids: Cap) -> None:
        self._models = models
        self._fairness_ids = fairness_ids
        self._known: set[LabelValues] = set()

    def values(self, labels: RequestLabels) -> tuple[LabelValues, bool]:
        """The label values, and whether ``labels`` may be remembered: nothing in it was folded, cut or replaced."""
        model, target, fairness_id, priority = labels
        target = target or model
        fairness_id = fairness_id or DEFAULT_FAIRNESS_ID
        values = (self._models.fold(model), self._models.fold(target), self._fairness_ids.fold(fairness_id), str(priority))
        is_exact = values[:3] == (model, target, fairness_id)
        if values in self._known:
            return values, is_exact
        if len(self._known) >= MAX_COMBINATIONS:
            return (OTHER, OTHER, OTHER, values[3]), False
        self._known.add(values)
        return values, is_exact


class RequestSeries:
    """All children of one set of request labels.

    Args:
        values: label values in the order of ``catalogue.REQUEST_LABELS``.
        counter, histogram: find the child of a family by its name without prefix.
    """

    __slots__ = (
        "cached_tokens",
        "duration_s",
        "input_tokens",
        "itl_s",
        "ntpot_s",
        "output_tokens",
        "request_bytes",
        "response_bytes",
        "total",
        "tpot_s",
        "ttft_buffered_s",
        "ttft_streaming_s",
    )

    def __init__(
        self,
        values: LabelValues,
        counter: Callable[[str, LabelValues], Counter],
        histogram: Callable[[str, LabelValues], Histogram],
    ) -> None:
        self.total = counter("request_total", values)
        self.duration_s = histogram("request_duration_seconds", values)
        self.request_bytes = histogram("request_size_bytes", values)
        self.response_bytes = histogram("response_size_bytes", values)
        self.input_tokens = histogram("request_input_tokens", values)
        self.output_tokens = histogram("request_output_tokens", values)
        self.cached_tokens = histogram("request_cached_tokens", values)
        self.ntpot_s = histogram("request_ntpot_seconds", values)
        self.ttft_streaming_s = histogram("request_ttft_seconds", (*values, "true"))
        self.ttft_buffered_s = histogram("request_ttft_seconds", (*values, "false"))
        self.tpot_s = histogram("request_streaming_tpot_seconds", values)
        self.itl_s = histogram("request_streaming_itl_seconds", values)

    def finished(self, facts: RequestFacts) -> None:
        """Observe what is known of a request that is over.

        TTFT, TPOT and NTPOT as llm-d-router defines them: NTPOT = duration / tokens, TPOT = (duration - TTFT) / (tokens - 1)
        for streaming responses of more than one token.
        """
        (
            duration_s,
            ttft_s,
            streaming,
            request_bytes,
            response_bytes,
            input_tokens,
            output_tokens,
            cached_tokens,
            gaps,
            gaps_s,
        ) = facts
        if request_bytes is not None:
            self.request_bytes.observe(request_bytes)
        if response_bytes is not None:
            self.response_bytes.observe(response_bytes)
        if input_tokens > 0:
            self.input_tokens.observe(input_tokens)
        if output_tokens > 0:
            self.output_tokens.observe(output_tokens)
        if cached_tokens > 0:
            self.cached_tokens.observe(cached_tokens)
        if ttft_s is not None:
            (self.ttft_streaming_s if streaming else self.ttft_buffered_s).observe(ttft_s)
        if gaps:
            self.itl_s.add_counts(gaps, gaps_s)
        if duration_s is None:
            return
        self.duration_s.observe(duration_s)
        if output_tokens > 0:
            self.ntpot_s.observe(duration_s / output_tokens)
        if streaming and output_tokens > 1 and ttft_s is not None and duration_s > ttft_s:
            self.tpot_s.observe((duration_s - ttft_s) / (output_tokens - 1))
