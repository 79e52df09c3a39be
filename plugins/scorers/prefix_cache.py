"""prefix-cache-scorer: prefer endpoints that were sent prompts with the same beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch, TokenizedPrompt
from epp.framework.params import Deprecated, Former, Ignored, Int, Params, PluginReference
from epp.framework.prompt import BYTES_PER_TOKEN
from epp.framework.registry import PluginType, Reads
from epp.framework.types import EndpointId, InferenceRequest
from plugins.prefix import twins
from plugins.prefix.approximate import ApproximatePrefixes
from plugins.prefix.settings import DEFAULT_BLOCK_TOKENS, DEFAULT_CAPACITY, DEFAULT_TOTAL_ENTRIES, IndexSettings

TYPE = "prefix-cache-scorer"
DEFAULT_BLOCKS = 256

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
    max_total_entries: Int = Field(
        default=DEFAULT_TOTAL_ENTRIES, ge=0, description="Blocks remembered of all endpoints together; 0 = no such bound."
    )
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

    def index_settings(self) -> IndexSettings:
        """How the index is to be kept."""
        characters = max(1, self.block_size // BYTES_PER_TOKEN) if self.block_size else DEFAULT_BLOCK_TOKENS
        return IndexSettings(
            block_tokens=self.block_size_tokens or characters,
            max_blocks=0 if self.takes_all else max(self.max_prefix_blocks_to_match, 0) or DEFAULT_BLOCKS,
            max_tokens=self.max_prefix_tokens_to_match,
            capacity=max(self.lru_capacity_per_server, 0) or DEFAULT_CAPACITY,
            auto_tune=self.auto_tune,
            total_entries=self.max_total_entries,
        )

    @property
    def takes_all(self) -> bool:
        """All of a prompt is looked at: both bounds were given as 0."""
        given = self.model_fields_set >= {"max_prefix_blocks_to_match", "max_prefix_tokens_to_match"}
        return given and not self.max_prefix_blocks_to_match and not self.max_prefix_tokens_to_match


class PrefixCacheScorer:
    """The scoring half: a share of the prompt, given what an index found.

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


class RelayingPrefixCacheScorer(PrefixCacheScorer):
    """Scores by the match of another plugin, and writes that under its own name too."""

    def __init__(
        self,
        key: DataKey[dict[EndpointId, PrefixMatch]],
        other: DataKey[dict[EndpointId, PrefixMatch]],
        match_length_weight: float,
        match_length_scale_tokens: int,
    ) -> None:
        super().__init__(key, match_length_weight, match_length_scale_tokens)
        self._other = other

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Hand the match on."""
        matches = request.data.get(self._other)
        if matches is not None:
            request.data.set(self._key, matches)


class IndexingPrefixCacheScorer(ApproximatePrefixes):
    """Score by the share of the prompt that the endpoint holds.

    An endpoint is taken to hold the prompts that were sent to it, as far as its cache has room; the engines need not tell.
    Prompts are compared in whole blocks from their beginning, as the text of tools, system and messages in the order in which
    chat templates print them, or as token ids where the client sent them or a tokenizer of the model is declared. Model (an
    adapter is one) and `cache_salt` keep prompts apart. With the defaults the first 4,096 tokens of a prompt count, 256 blocks
    of 16.

    With `autoTune`, block size and room are those that the engines report. If `blockSizeTokens` is that block size, or both are
    multiples of 16, prompts are hashed off the event loop while they arrive, as many tokens as the limits allow in blocks of
    `blockSizeTokens`; where that is too little, and without the native extension, at the decision. The end of a prompt is
    forgotten before its beginning, and what an endpoint held once it leaves the pool. A replica knows only what it has sent
    itself.

    Parameters: matchLengthWeight, matchLengthScaleTokens; prefixMatchInfoProducerName for the index of another plugin; all
        others are of the index.
    Reads: the prompt; TokenizedPrompt, if it is exact. Block size and number of blocks of each engine.
    Writes: PrefixCacheMatchInfo.
    Remembers: in PreRequest, the target and the prefill target.
    Formula: ``r = match / total``; with ``w = matchLengthWeight > 0``:
        ``w * min(1, match * block / matchLengthScaleTokens)^2 + (1 - w) * r``.
    Missing data: 0.0, also for a prompt without a whole block.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/prefix/plugin.go
    """

    def __init__(
        self, context: PluginContext, settings: IndexSettings, tokens: DataKey[TokenizedPrompt], scorer: PrefixCacheScorer
    ) -> None:
        super().__init__(context, settings, tokens)
        self.score = scorer.score


def _create(context: PluginContext, params: PrefixCacheScorerParams) -> Scorer:
    key = PREFIX_CACHE_MATCH.by(context.name)
    blend = (params.match_length_weight, params.match_length_scale_tokens)
    other = params.prefix_match_info_producer_name
    if other and other != context.name:
        return RelayingPrefixCacheScorer(key, PREFIX_CACHE_MATCH.by(other), *blend)
    _warn(context, params)
    tokens = context.key(TOKENIZED_PROMPT)
    return IndexingPrefixCacheScorer(context, params.index_settings(), tokens, PrefixCacheScorer(key, *blend))


def _warn(context: PluginContext, params: PrefixCacheScorerParams) -> None:
    """Tell of values that are not used as they are written."""
    if params.block_size and params.block_size_tokens:
        context.warn("blockSize", f"{params.block_size} is not used, because blockSizeTokens is given")
    blocks, capacity = params.max_prefix_blocks_to_match, params.lru_capacity_per_server
    if blocks <= 0 and not params.takes_all and not params.max_prefix_tokens_to_match:
        context.warn("maxPrefixBlocksToMatch", f"{blocks} is not positive; {DEFAULT_BLOCKS} is used")
    if capacity <= 0:
        context.warn("lruCapacityPerServer", f"{capacity} is not positive; {DEFAULT_CAPACITY} is used")


def _readers(params: PrefixCacheScorerParams) -> tuple[str, ...]:
    if not twins.READS_BODIES or params.prefix_match_info_producer_name:
        return ()
    return (params.index_settings().reader,)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Prefers endpoints that were sent prompts with the same beginning.",
    params=PrefixCacheScorerParams,
    factory=_create,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    reads=Reads(readers_of=_readers),
    example="""
        blockSizeTokens: 16
        maxPrefixBlocksToMatch: 256
    """,
)
