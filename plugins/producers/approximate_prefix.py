"""approx-prefix-cache-producer and its multi-cluster twin: guess cached prefixes from the prompts sent before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Deprecated, Int, Params, PluginReference
from epp.framework.registry import PluginType, Reads
from plugins.prefix import twins
from plugins.prefix.approximate import ApproximatePrefixes
from plugins.prefix.settings import DEFAULT_CAPACITY, DEFAULT_TOTAL_ENTRIES, IndexSettings

DEFAULT_BLOCKS = 2048


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
    max_total_entries: Int = Field(
        default=DEFAULT_TOTAL_ENTRIES, ge=0, description="Blocks remembered of all endpoints together; 0 = no such bound."
    )
    tokenized_prompt_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the tokens; default: its usual producer."
    )

    def index_settings(self) -> IndexSettings:
        """How the index is to be kept."""
        is_given = "block_size_tokens" in self.model_fields_set
        return IndexSettings(
            block_tokens=self.block_size_tokens if is_given or not self.block_size else self.block_size,
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


class ApproximatePrefixProducer(ApproximatePrefixes):
    """Say how much of the prompt each endpoint holds, judged by what was sent to it before.

    The same index as that of prefix-cache-scorer, for several readers. Prompts are compared in whole blocks from their
    beginning, as text, or as token ids where the client sent them or a tokenizer of the model is declared. Estimated tokens are
    the text in another form; the text is taken.

    Parameters: all are of the index.
    Reads: the prompt; TokenizedPrompt, if it is exact. Block size and number of blocks of each engine.
    Writes: PrefixCacheMatchInfo.
    Remembers: in PreRequest, the target and the prefill target. Forgets endpoints that leave the pool.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/approximateprefix
    """


def _create(context: PluginContext, params: ApproximatePrefixParams) -> ApproximatePrefixProducer:
    blocks, capacity = params.max_prefix_blocks_to_match, params.lru_capacity_per_server
    if blocks <= 0 and not params.takes_all and not params.max_prefix_tokens_to_match:
        context.warn("maxPrefixBlocksToMatch", f"{blocks} is not positive; {DEFAULT_BLOCKS} is used")
    if capacity <= 0:
        context.warn("lruCapacityPerServer", f"{capacity} is not positive; {DEFAULT_CAPACITY} is used")
    tokens = context.key(TOKENIZED_PROMPT, params.tokenized_prompt_producer_name)
    return ApproximatePrefixProducer(context, params.index_settings(), tokens)


def _readers(params: ApproximatePrefixParams) -> tuple[str, ...]:
    return (params.index_settings().reader,) if twins.READS_BODIES else ()


APPROXIMATE = PluginType(
    type="approx-prefix-cache-producer",
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Guesses cached prefixes from the prompts sent before.",
    params=ApproximatePrefixParams,
    factory=_create,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    reads=Reads(readers_of=_readers),
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
