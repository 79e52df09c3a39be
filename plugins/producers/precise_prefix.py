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


def create_producer(context: PluginContext, params: PreciseProducerParams) -> DataProducer:
    """An index of its own."""
    return PrecisePrefixCache(context, *make_parts(context, params))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Knows cached prefixes from the engines' KV events.",
    params=PreciseProducerParams,
    produces=(PREFIX_CACHE_MATCH.by(TYPE),),
    consumes=(Consumes(TOKENIZED_PROMPT, undeclared=lacks_model),),
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
