"""prefix-cache-scorer: prefer endpoints that were sent prompts with the same beginning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.params import Deprecated, Int, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "prefix-cache-scorer"


class PrefixCacheScorerParams(Params):
    """All generations: the scorer hosts its index, or reads the match of ``prefixMatchInfoProducerName``."""

    auto_tune: bool = Field(default=True, description="Take block size and capacity from the engines' metrics.")
    block_size: Annotated[
        Int,
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

    @model_validator(mode="after")
    def _check_scale(self) -> PrefixCacheScorerParams:
        if self.match_length_weight > 0 and self.match_length_scale_tokens <= 0:
            raise ValueError("matchLengthScaleTokens must be > 0 while matchLengthWeight is")
        return self


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Prefers endpoints that were sent prompts with the same beginning.",
    params=PrefixCacheScorerParams,
    produces=(PREFIX_CACHE_MATCH,),
    wait="prefix-cache awareness",
)
