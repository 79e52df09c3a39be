"""mm-embeddings-cache-producer: remember which endpoint has encoded which media."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import MEDIA_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Former, Ignored, Int, Params
from epp.framework.registry import PluginType

TYPE = "mm-embeddings-cache-producer"


class MediaCacheProducerParams(Params):
    """Parameters of mm-embeddings-cache-producer."""

    cache_size_in_mb_per_server: Annotated[Int, Former("cacheSizeInMB")] = Field(
        default=4096,
        alias="cacheSizeInMBPerServer",
        description="Encoder cache of an endpoint in MiB, of which each item takes 2; <= 0 = the default.",
    )
    cache_size: Annotated[Int, Ignored("it counted items; cacheSizeInMBPerServer is a size, 2 MiB for each item")] = Field(
        default=0, description="Items of an endpoint (llm-d before v0.9)."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Remembers which endpoint has encoded which media.",
    params=MediaCacheProducerParams,
    produces=(MEDIA_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    wait="multimodal encoder caches",
)
