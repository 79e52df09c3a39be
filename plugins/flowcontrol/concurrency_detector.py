"""concurrency-detector: the pool is as full as the requests or tokens in flight say."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Annotated, Literal

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.flow_control import Credits
from epp.framework.handle import PluginContext
from epp.framework.interfaces import CountsInFlight, Role
from epp.framework.keys import IN_FLIGHT_LOAD
from epp.framework.params import Int, Params, PluginReference
from epp.framework.prompt import prompt_tokens
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "concurrency-detector"

_NO_CREDIT = Credits()


class ConcurrencyDetectorParams(Params):
    """Parameters of concurrency-detector."""

    concurrency_mode: Literal["requests", "tokens", "hybrid"] = Field(default="requests", description="What is counted.")
    max_concurrency: Int = Field(default=100, gt=0, description="Requests in flight at which an endpoint is full.")
    max_token_concurrency: Int = Field(default=1_000_000, gt=0, description="Tokens in flight at which an endpoint is full.")
    headroom: float = Field(default=0.0, ge=0, description="Fraction by which the filter exceeds the limits.")
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the load in flight; default: its usual producer."
    )


class ConcurrencyDetector:
    """How full the pool is by what this picker has in flight; as a filter, keeps endpoints that are not full.

    Parameters: concurrencyMode, maxConcurrency, maxTokenConcurrency, headroom, inFlightLoadProducerName.
    Reads: the live counts of the producer of InFlightLoad.
    Formula: ``requests``: sum of requests / (endpoints * maxConcurrency); ``tokens`` likewise; ``hybrid``: mean over endpoints
        of the larger of both shares. The filter keeps endpoints whose count is below ``int(limit * (1 + headroom))``, both
        counts with ``hybrid``; when none is left, all.
        Flow control adds the requests that it let go and that are not sent yet, as if they were spread evenly.
    Missing data: an endpoint that was sent nothing counts 0. Without endpoints the pool is full: 1.0.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/saturationdetector/concurrency
    """

    shows_after_s = 0.01
    """An end shows at once; a little time keeps two decisions from following one event."""

    def __init__(self, params: ConcurrencyDetectorParams, counts: CountsInFlight | None) -> None:
        self._mode = params.concurrency_mode
        self._requests = params.max_concurrency
        self._tokens = params.max_token_concurrency
        self._most_requests = int(params.max_concurrency * (1 + params.headroom))
        self._most_tokens = int(params.max_token_concurrency * (1 + params.headroom))
        self._counts = counts

    def saturation(self, candidates: Candidates) -> float:
        """>= 1.0 means full."""
        return self.saturation_with(candidates, _NO_CREDIT)

    def saturation_with(self, candidates: Candidates, credit: Credits) -> float:
        """The same with requests on their way."""
        count = len(candidates)
        if not count:
            return 1.0
        match self._mode:
            case "requests":
                return (sum(self._in_flight(candidates)) + credit.requests) / (count * self._requests)
            case "tokens":
                return (sum(self._tokens_in_flight(candidates)) + credit.tokens) / (count * self._tokens)
            case "hybrid":
                both = zip(self._in_flight(candidates), self._tokens_in_flight(candidates), strict=True)
                coming = max(credit.requests / self._requests, credit.tokens / self._tokens)
                shares = [max(requests / self._requests, tokens / self._tokens) for requests, tokens in both]
                return (sum(shares) + coming) / count

    def credit_tokens(self, request: InferenceRequest) -> int:
        """The prompt, all of it: what is cached where is not known yet."""
        return prompt_tokens(request) if self._mode != "requests" else 0

    def next_change_s(self) -> float:
        """Never by time alone."""
        return inf

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that have room, or all."""
        kept = [True] * len(candidates)
        if self._mode != "tokens":
            kept = [requests < self._most_requests for requests in self._in_flight(candidates)]
        if self._mode != "requests":
            tokens = self._tokens_in_flight(candidates)
            kept = [keep and count < self._most_tokens for keep, count in zip(kept, tokens, strict=True)]
        return candidates.where(kept) or candidates

    def _in_flight(self, candidates: Candidates) -> Sequence[int]:
        return self._counts.requests_in_flight(candidates.ids) if self._counts is not None else [0] * len(candidates)

    def _tokens_in_flight(self, candidates: Candidates) -> Sequence[int]:
        return self._counts.tokens_in_flight(candidates.ids) if self._counts is not None else [0] * len(candidates)


def _create(context: PluginContext, params: ConcurrencyDetectorParams) -> ConcurrencyDetector:
    if params.headroom > 1:
        context.warn("headroom", f"{params.headroom:g} is a fraction of the limits, not a percentage")
    counts = context.writer(IN_FLIGHT_LOAD, params.in_flight_load_producer_name)
    if counts is not None and not isinstance(counts, CountsInFlight):
        raise ValueError("the producer of the load in flight cannot be asked between requests; use inflight-load-producer")
    return ConcurrencyDetector(params, counts)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR, Role.FILTER}),
    summary="The pool is as full as the requests or tokens in flight say; as a filter, drops full endpoints.",
    params=ConcurrencyDetectorParams,
    factory=_create,
    consumes=(Consumes(IN_FLIGHT_LOAD),),
    example="maxConcurrency: 48",
)
