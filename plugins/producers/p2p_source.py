"""p2p-source-producer: name the endpoint from which the prompt's KV cache can be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.params import Int, Params, PluginReference, ProfileReference
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, EndpointId, InferenceRequest

TYPE = "p2p-source-producer"
HEADER = "x-kv-cache-source-host-port"
TIER = "cpu"
"""Whence a peer can fetch blocks, as KV events name it."""


class P2pSourceProducerParams(Params):
    """Parameters of p2p-source-producer."""

    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    min_cached_token_delta: Int = Field(
        default=1, ge=1, description="Cached tokens by which the source must be ahead of the endpoint that computes."
    )
    prefill_profile_name: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", description="Profile whose target computes the prompt, if it ran."
    )


@dataclass(frozen=True, slots=True)
class Source:
    """The endpoint that a request's cached prefix can be fetched from."""

    endpoint: Endpoint
    cached_tokens: int


class P2pSourceProducer:
    """Name the endpoint that holds the longest part of the prompt, where it is not the one that computes it.

    Parameters: minCachedTokenDelta, prefillProfileName, prefixMatchInfoProducerName.
    Reads: PrefixCacheMatchInfo: blocks in the memory of the CPU, where the index knows tiers. Waiting queue of each endpoint.
    Rule: of the endpoints within one block of the longest cached prefix one is chosen, with weight ``1 / (1 + waiting)`` and
        the hash of the request id as its lot: the same for one request, spread over many. The header is set if that endpoint
        is another than the one that computes the prompt (the prefill target, else the target), and has
        ``minCachedTokenDelta`` cached tokens more.
    Headers: ``x-kv-cache-source-host-port``.
    Missing data: without a match nothing is named; an unknown queue is empty.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/p2psource
    """

    def __init__(
        self, name: str, match_key: DataKey[dict[EndpointId, PrefixMatch]], min_delta_tokens: int, prefill: str = ""
    ) -> None:
        self._key: DataKey[Source] = DataKey("KvCacheSource", Source, name)
        self._match_key = match_key
        self._min_delta_tokens = min_delta_tokens
        self._prefill = prefill

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Choose the source."""
        matches = request.data.get(self._match_key)
        if not matches:
            return
        found = [
            (position, match, tokens)
            for position, endpoint_id in enumerate(candidates.ids)
            if (match := matches.get(endpoint_id)) is not None and (tokens := _fetchable_tokens(match))
        ]
        if not found:
            return
        most = max(tokens for _, _, tokens in found)
        near = [(position, tokens) for position, match, tokens in found if tokens + match.block_size_tokens >= most]
        position, tokens = near[_drawn(request.request_id, [candidates.waiting_queue[position] or 0 for position, _ in near])]
        request.data.set(self._key, Source(candidates[position], tokens))

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Name the source, unless the endpoint that computes the prompt has nearly as much."""
        edits.remove(HEADER)
        source = request.data.get(self._key)
        if source is None:
            return
        computing = (*result.targets_of(self._prefill or result.prefill), *result.targets_of(result.primary))[0]
        match = (request.data.get(self._match_key) or {}).get(computing.id)
        own_tokens = match.match_blocks * match.block_size_tokens if match is not None else 0
        if source.endpoint.id != computing.id and source.cached_tokens - own_tokens >= self._min_delta_tokens:
            edits.set(HEADER, source.endpoint.host_port)


def _fetchable_tokens(match: PrefixMatch) -> int:
    blocks = match.blocks_by_tier.get(TIER, 0) if match.blocks_by_tier else match.match_blocks
    return blocks * match.block_size_tokens


def _drawn(request_id: str, waiting: Sequence[int]) -> int:
    """A position, drawn by the hash of the request id."""
    weights = [1 / (1 + max(count, 0)) for count in waiting]
    lot = _fnv1a(request_id.encode("utf-8", "surrogatepass")) / 2**32 * sum(weights)
    for position, weight in enumerate(weights):
        if lot < weight:
            return position
        lot -= weight
    return len(weights) - 1


def _fnv1a(data: bytes) -> int:
    """FNV-1a in 32 bits, of which other pickers make the same choice.."""
    digest = 0x811C9DC5
    for byte in data:
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return digest


def _create(context: PluginContext, params: P2pSourceProducerParams) -> P2pSourceProducer:
    return P2pSourceProducer(
        context.name,
        context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
        params.min_cached_token_delta,
        params.prefill_profile_name if "prefill_profile_name" in params.model_fields_set else "",
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Names the endpoint from which the prompt's KV cache can be fetched.",
    params=P2pSourceProducerParams,
    consumes=(Consumes(PREFIX_CACHE_MATCH),),
    experimental=True,
    header_strip=frozenset({HEADER}),
    factory=_create,
)
