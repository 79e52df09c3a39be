"""inflight-load-producer: count requests and tokens in flight to each endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import IN_FLIGHT_LOAD, PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, InFlightLoad, PrefixMatch
from epp.framework.params import Int, Params, PluginReference
from epp.framework.prompt import prompt_tokens
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, EndpointChange, EndpointId, InferenceRequest, StreamingChunk

TYPE = "inflight-load-producer"


class InflightLoadProducerParams(Params):
    """Parameters of inflight-load-producer."""

    add_estimated_output_tokens: bool = Field(default=False, description="Count expected output tokens too.")
    output_ratio: float = Field(default=1.5, ge=0, description="Expected output tokens per input token.")
    max_estimated_output_tokens: Int | None = Field(
        default=None, ge=0, description="Most output tokens expected; absent = any."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    sync_cross_replica_state: bool = Field(
        default=True, description="Share the counts with other replicas of the picker; not there yet, each counts its own."
    )


@dataclass(frozen=True, slots=True)
class OutputEstimate:
    """How many tokens a response is expected to have."""

    ratio: float = 1.5
    """Output tokens per input token."""
    limit: int | None = None

    def tokens(self, input_tokens: int, cap: int | None) -> int:
        """The estimate.

        Args:
            input_tokens: of the whole prompt, cached or not.
            cap: limit that the client set.
        """
        bounds = [bound for bound in (cap, self.limit) if bound is not None]
        return min([round(input_tokens * self.ratio), *bounds])


@dataclass(slots=True)
class _Load:
    """What is in flight to one endpoint. What an endpoint that went away was sent counts down an orphan."""

    endpoint_id: EndpointId
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Share:
    """What one request adds to one endpoint."""

    load: _Load
    prompt_tokens: int
    output_tokens: int
    is_primary: bool


@dataclass(slots=True)
class _Flight:
    """A request in flight."""

    request: InferenceRequest
    """Keeps the object alive, so that its identity stays unique."""
    shares: list[_Share]
    has_begun: bool = False
    """The first piece of the response was seen."""


class InflightLoadProducer:
    """Count what this picker has sent to each endpoint and not seen end.

    Parameters: addEstimatedOutputTokens, outputRatio, maxEstimatedOutputTokens, prefixMatchInfoProducerName.
    Reads: PrefixCacheMatchInfo; TokenizedPrompt, without it a quarter of the bytes of the prompt's text.
    Writes: InFlightLoad for all candidates.
    Formula: PreRequest adds to the first target of each profile one request and its uncached tokens, ``(total - match) *
        block`` and what lies behind the last block; to the primary one also the expected output. The first piece of a
        streaming response takes off the prompt's tokens, and all of the stages before the primary one, which are over then.
        The end takes off the rest. Nothing is taken off by time.
    Missing data: without a match the whole prompt is uncached.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/inflightload
    """

    def __init__(
        self,
        key: DataKey[dict[EndpointId, InFlightLoad]] = IN_FLIGHT_LOAD,
        match_key: DataKey[dict[EndpointId, PrefixMatch]] = PREFIX_CACHE_MATCH,
        output: OutputEstimate | None = None,
    ) -> None:
        self._key = key
        self._match_key = match_key
        self._output = output
        self._loads: dict[EndpointId, _Load] = {}
        self._flights: dict[int, _Flight] = {}
        """By identity of the request, because clients may repeat a request id."""

    def requests_in_flight(self, ids: Sequence[EndpointId]) -> list[int]:
        """Live counts, shape ``(len(ids),)``."""
        return [load.requests if load is not None else 0 for load in map(self._loads.get, ids)]

    def tokens_in_flight(self, ids: Sequence[EndpointId]) -> list[int]:
        """Live counts, shape ``(len(ids),)``."""
        return [load.tokens if load is not None else 0 for load in map(self._loads.get, ids)]

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Write the load of all candidates; those that have none and hold nothing of the prompt share one record."""
        tokens = prompt_tokens(request)
        matches = request.data.get(self._match_key) or {}
        loads = dict.fromkeys(candidates.ids, InFlightLoad(0, 0, tokens))
        for endpoint_id in (self._loads.keys() | matches.keys()) & loads.keys():
            load = self._loads.get(endpoint_id) or _Load(endpoint_id)
            loads[endpoint_id] = InFlightLoad(load.requests, load.tokens, _uncached(matches.get(endpoint_id), tokens))
        request.data.set(self._key, loads)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Count the request on the first target of every profile that picked one."""
        self._release(id(request))
        tokens = prompt_tokens(request)
        matches = request.data.get(self._match_key) or {}
        output = self._output.tokens(tokens, request.body.output_cap) if self._output is not None else 0
        shares = []
        for name in result.profiles:
            for target in result.targets_of(name)[:1]:
                is_primary = name == result.primary
                uncached = _uncached(matches.get(target.id), tokens)
                share = _Share(self._load_of(target.id), uncached, output if is_primary else 0, is_primary)
                share.load.requests += 1
                share.load.tokens += share.prompt_tokens + share.output_tokens
                shares.append(share)
        self._flights[id(request)] = _Flight(request, shares)

    def response_streaming(self, request: InferenceRequest, result: SchedulingResult, chunk: StreamingChunk) -> None:
        """The prompt is computed once the response begins."""
        flight = self._flights.get(id(request))
        if flight is None or flight.has_begun:
            return
        flight.has_begun = True
        for share in flight.shares:
            if share.is_primary:
                share.load.tokens -= share.prompt_tokens
                share.prompt_tokens = 0
            else:
                self._take_off(share)
        flight.shares = [share for share in flight.shares if share.is_primary]

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Count the request off; nothing happens if it is not counted."""
        self._release(id(request))

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone; one that comes back under the same id begins at 0."""
        for endpoint in change.removed:
            self._loads.pop(endpoint.id, None)

    def debug_state(self) -> object:
        """What is in flight by endpoint."""
        endpoints = {load.endpoint_id: {"requests": load.requests, "tokens": load.tokens} for load in self._loads.values()}
        return {"requests": len(self._flights), "endpoints": endpoints}

    def _load_of(self, endpoint_id: EndpointId) -> _Load:
        load = self._loads.get(endpoint_id)
        if load is None:
            load = self._loads[endpoint_id] = _Load(endpoint_id)
        return load

    def _release(self, key: int) -> None:
        flight = self._flights.pop(key, None)
        for share in flight.shares if flight is not None else ():
            self._take_off(share)

    def _take_off(self, share: _Share) -> None:
        load = share.load
        load.requests -= 1
        load.tokens -= share.prompt_tokens + share.output_tokens
        if load.requests == 0 and self._loads.get(load.endpoint_id) is load:
            del self._loads[load.endpoint_id]


def _uncached(match: PrefixMatch | None, tokens: int) -> int:
    """Tokens of the prompt that an endpoint with this match has to compute."""
    if match is None:
        return tokens
    missing = (match.total_blocks - match.match_blocks) * match.block_size_tokens
    return missing + max(0, tokens - match.total_blocks * match.block_size_tokens)


def _create(context: PluginContext, params: InflightLoadProducerParams) -> InflightLoadProducer:
    if params.sync_cross_replica_state and "sync_cross_replica_state" in params.model_fields_set:
        context.warn("syncCrossReplicaState", "replicas do not share their counts yet; each counts its own requests")
    estimate = OutputEstimate(params.output_ratio, params.max_estimated_output_tokens)
    return InflightLoadProducer(
        IN_FLIGHT_LOAD.by(context.name),
        context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
        estimate if params.add_estimated_output_tokens else None,
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset(
        {
            Role.DATA_PRODUCER,
            Role.PRE_REQUEST,
            Role.RESPONSE_STREAMING,
            Role.RESPONSE_COMPLETE,
            Role.ENDPOINT_EXTRACTOR,
        }
    ),
    summary="Counts requests and tokens in flight to each endpoint.",
    params=InflightLoadProducerParams,
    factory=_create,
    produces=(IN_FLIGHT_LOAD,),
    consumes=(Consumes(PREFIX_CACHE_MATCH, required=False), Consumes(TOKENIZED_PROMPT, required=False)),
)
