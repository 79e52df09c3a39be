"""burst-prefix-cache-producer: send simultaneous requests with equal prefixes to the same endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType

TYPE = "burst-prefix-cache-producer"


class BurstPrefixCacheProducerParams(Params):
    """Parameters of burst-prefix-cache-producer."""

    window_duration_ms: Int = Field(default=100, ge=1, le=10000, description="How long requests are held to be grouped, in ms.")
    max_per_replica: Int = Field(default=-1, description="Most requests of a group per endpoint; -1 = no limit.")
    block_size_tokens: Int = Field(default=64, gt=0, description="Tokens per prefix block.")
    max_prefix_tokens_to_match: Int = Field(default=0, ge=0, description="Tokens of a prompt that are compared; 0 = all.")
    min_colocate_blocks: Int = Field(default=0, ge=0, description="Common blocks from which requests are grouped.")
    max_batch_size: Int = Field(default=1000, description="Most requests of a window; -1 = no limit.")
    balance_by: Literal["requests", "tokens"] = Field(default="requests", description="What is balanced between endpoints.")

    @field_validator("max_per_replica", "max_batch_size")
    @classmethod
    def _check_limit(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"must be at least 1, or -1 for no limit; it is {value}")
        return value


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER}),
    summary="Sends simultaneous requests with equal prefixes to the same endpoint.",
    params=BurstPrefixCacheProducerParams,
    produces=(PREFIX_CACHE_MATCH.by(TYPE),),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    experimental=True,
    wait="grouping of bursts",
)
