"""prefix-cache-scorer: prefer endpoints that were sent prompts with the same beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.params import Deprecated, Former, Ignored, Int, Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "prefix-cache-scorer"


_TRACKING = "mode cache_tracking has a type of its own, precise-prefix-cache-scorer; write that, without mode"


class PrefixCacheScorerParams(Params):
    """All generations: the scorer hosts its index, or reads the match of ``prefixMatchInfoProducerName``."""

    gone: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("indexerConfig", "kvEventsConfig", "tokenProcessorConfig", "kvCacheRedisAddr"), _TRACKING
    )

    auto_tune: bool = Field(default=True, description="Take block size and capacity from the engines' metrics.")
    block_size: Annotated[
        Int,
        Former("hashBlockSize"),
        Deprecated("it counts characters, 4 to a token; blockSizeTokens wins, else blockSize // 4 tokens are used"),
    ] = Field(default=0, ge=0, description="Characters per prefix block (v0.4); 0 = not given.")
    block_size_tokens: Int = Field(default=0, ge=0, description="Tokens per prefix block; 0 = 16.")
    max_prefix_blocks_to_match: Int = Field(default=256, description="Blocks of a prompt that are looked at; <= 0 = 256.")
    max_prefix_tokens_to_match: Int = Field(
        default=0, ge=0, description="The same in tokens, wins when > 0; both explicitly 0 = all of the prompt."
    )
    lru_capacity_per_server: Int = Field(default=31250, description="Blocks remembered per endpoint; <= 0 = 31250.")
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer whose match is used; the scorer then keeps no index of its own."
    )
    match_length_weight: float = Field(
        default=0.0, ge=0, le=1, description="Share of the score that the absolute length of the match decides."
    )
    match_length_scale_tokens: Int = Field(default=8192, description="Matched tokens at which that share is full.")

    mode: Annotated[str, Ignored("prompts are always remembered here")] = Field(
        default="", description="`estimate` (llm-d v0.2)."
    )

    @field_validator("mode")
    @classmethod
    def _check_mode(cls, mode: str) -> str:
        if mode == "cache_tracking":
            raise ValueError(_TRACKING)
        if mode not in ("", "estimate"):
            raise ValueError(f"mode cannot be {mode!r}; remove it")
        return mode

    @model_validator(mode="after")
    def _check_scale(self) -> PrefixCacheScorerParams:
        if self.match_length_weight > 0 and self.match_length_scale_tokens <= 0:
            raise ValueError("matchLengthScaleTokens must be > 0 while matchLengthWeight is")
        return self


class PrefixCacheScorer:
    """Score by the share of the prompt that the endpoint holds.

    Parameters: prefixMatchInfoProducerName, matchLengthWeight, matchLengthScaleTokens; the others are the index's.
    Reads: PrefixCacheMatchInfo.
    Formula: ``r = match / total``; with ``w = matchLengthWeight > 0``:
        ``w * min(1, match * block / matchLengthScaleTokens)^2 + (1 - w) * r``.
    Missing data: 0.0, also for a prompt without a whole block.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/prefix/plugin.go
    """

    def __init__(
        self,
        key: DataKey[dict[EndpointId, PrefixMatch]],
        match_length_weight: float = 0.0,
        match_length_scale_tokens: int = 8192,
    ) -> None:
        self._key = key
        self._length_weight = match_length_weight
        self._length_scale_tokens = match_length_scale_tokens

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        matches = request.data.get(self._key)
        if not matches:
            return [0.0] * len(candidates)
        found = map(matches.get, candidates.ids)
        if self._length_weight > 0:
            return [self._blend(match) if match is not None else 0.0 for match in found]
        return [match.ratio if match is not None else 0.0 for match in found]

    def _blend(self, match: PrefixMatch) -> float:
        ratio = match.ratio
        matched_tokens = ratio * match.total_blocks * match.block_size_tokens
        length = min(1.0, matched_tokens / self._length_scale_tokens)
        return self._length_weight * length * length + (1 - self._length_weight) * ratio


def create_scorer(context: PluginContext, params: PrefixCacheScorerParams) -> Scorer:
    """The scoring half. The type has no factory until the other half exists, which fills the index and writes the match."""
    key = PREFIX_CACHE_MATCH.by(params.prefix_match_info_producer_name or context.name)
    return PrefixCacheScorer(key, params.match_length_weight, params.match_length_scale_tokens)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Prefers endpoints that were sent prompts with the same beginning.",
    params=PrefixCacheScorerParams,
    produces=(PREFIX_CACHE_MATCH,),
    wait="prefix-cache awareness",
    example="""
        blockSizeTokens: 16
        maxPrefixBlocksToMatch: 256
    """,
)
