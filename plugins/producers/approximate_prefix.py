"""approx-prefix-cache-producer and its multi-cluster twin: guess cached prefixes from the prompts sent before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Deprecated, Int, Params, PluginReference
from epp.framework.registry import PluginType


class ApproximatePrefixParams(Params):
    """Parameters of approx-prefix-cache-producer."""

    auto_tune: bool = Field(default=True, description="Take block size and capacity from the engines' metrics.")
    block_size_tokens: Int = Field(default=16, gt=0, description="Tokens per prefix block.")
    block_size: Annotated[Int, Deprecated("write blockSizeTokens; the value is taken over where that is absent")] = Field(
        default=0, ge=0, description="Older name of `blockSizeTokens`; 0 = not given."
    )
    max_prefix_blocks_to_match: Int = Field(default=2048, description="Blocks of a prompt to look at; <= 0 = the default.")
    max_prefix_tokens_to_match: Int = Field(default=131072, ge=0, description="The same in tokens; wins when > 0.")
    lru_capacity_per_server: Int = Field(default=31250, description="Blocks remembered per endpoint; <= 0 = the default.")
    tokenized_prompt_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the tokens; default: its usual producer."
    )


APPROXIMATE = PluginType(
    type="approx-prefix-cache-producer",
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Guesses cached prefixes from the prompts sent before.",
    params=ApproximatePrefixParams,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    wait="prefix-cache awareness",
)

MULTICLUSTER = PluginType(
    type="multicluster-approx-prefix-cache-producer",
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Guesses the prefixes that clusters have cached from the prompts sent before.",
    params=ApproximatePrefixParams,
    produces=(PREFIX_CACHE_MATCH.by("multicluster-approx-prefix-cache-producer"),),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    experimental=True,
    wait="multi-cluster routing",
)

PLUGINS = (APPROXIMATE, MULTICLUSTER)
