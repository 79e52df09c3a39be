"""mm-embeddings-cache-scorer: prefer endpoints that have encoded the request's media before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import MEDIA_CACHE_MATCH
from epp.framework.params import Former, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "mm-embeddings-cache-scorer"


class MediaCacheScorerParams(Params):
    """Parameters of mm-embeddings-cache-scorer."""

    producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER), Former("encoderCacheMatchInfoProducerName")] = Field(
        default="", description="Producer of the media match; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints that have encoded the request's media before.",
    params=MediaCacheScorerParams,
    consumes=(Consumes(MEDIA_CACHE_MATCH),),
    wait="multimodal encoder caches",
)
