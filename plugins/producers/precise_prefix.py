"""precise-prefix-cache-producer: know cached prefixes from the engines' KV events."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import DataProducer, Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.registry import PluginType
from plugins.kvcache.build import make_parts
from plugins.kvcache.parameters import PreciseProducerParams, lacks_model
from plugins.kvcache.precise import PrecisePrefixCache

TYPE = "precise-prefix-cache-producer"


class PrecisePrefixProducer(PrecisePrefixCache):
    """Know which blocks of a prompt each endpoint holds, from the engines' KV events.

    Engines publish over ZMQ what enters and leaves their caches (vLLM with `--kv-events-config`, SGLang likewise). The picker
    connects to every endpoint of the pool (`discoverPods`, port `socketPort` plus the rank), or binds `zmqEndpoint` for engines
    that connect to it, or both; on a pod's own connection any topic will do, on the common one topics are `kv@<pod>@<model>`. A
    thread of its own receives and applies events. Blocks are known by their tokens, so that neither the engines' hash algorithm
    nor their seed matters; `blockSize` should be theirs, or a divisor of it. The prompt's tokens are those of a token producer
    or of the client if they are of the same model, else those of the plugin's own tokenizers: on disk, of a service, or of the
    Hugging Face hub, in this order. An engine that restarts, a cache that is cleared, messages that were missed: what is no
    longer known is forgotten, and with `replaySocketPort` it is asked for again. `speculativeIndexing` assumes for
    `speculativeTTL` that a prompt is cached where it was just sent, until the engine says so itself.

    Writes: PrefixCacheMatchInfo: consecutive blocks from the first one, with the weight of the best tier that has each.
    Missing data: a prompt that cannot be tokenized, or that the engine will truncate, gets no match; the request goes on.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/preciseprefixcache; llm-d-kv-cache: pkg/kvcache,
        pkg/kvevents
    """


def create_producer(context: PluginContext, params: PreciseProducerParams) -> DataProducer:
    """An index of its own."""
    return PrecisePrefixProducer(context, *make_parts(context, params))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Knows cached prefixes from the engines' KV events.",
    params=PreciseProducerParams,
    hot=False,
    produces=(PREFIX_CACHE_MATCH.by(TYPE),),
    consumes=(
        Consumes(TOKENIZED_PROMPT, when=lambda params: bool(lacks_model(params)), undeclared=lacks_model),
        # One with tokenizers of its own needs nobody to estimate what it never reads.
        Consumes(TOKENIZED_PROMPT, required=False, when=lambda params: not lacks_model(params)),
    ),
    factory=create_producer,
    example="""
        plugins:
        - type: token-producer
          parameters:
            modelName: Qwen/Qwen3-8B
            vllm: {url: "http://tokenizer:8000"}
        - type: endpoint-notification-source
        - type: precise-prefix-cache-producer
          parameters:
            tokenProcessorConfig: {blockSizeTokens: 16}
        - type: prefix-cache-scorer
          parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}
        dataLayer:
          sources:
          - pluginRef: endpoint-notification-source
            extractors:
            - pluginRef: precise-prefix-cache-producer
    """,
)
