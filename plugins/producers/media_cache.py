"""mm-embeddings-cache-producer: remember which endpoint has encoded which media."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import MEDIA_CACHE_MATCH, TOKENIZED_PROMPT, MediaMatch, TokenizedPrompt
from epp.framework.params import Former, Ignored, Int, Params
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import EndpointChange, EndpointId, InferenceRequest

TYPE = "mm-embeddings-cache-producer"
ITEM_MB = 2
DEFAULT_MB = 4096
SHOWN_ENDPOINTS = 100


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


class MediaCacheProducer:
    """Say how many of the request's media each endpoint has encoded before, judged by what was sent to it.

    Parameters: cacheSizeInMBPerServer.
    Reads: the media of TokenizedPrompt; each counts once.
    Writes: MultiModalEncoderCacheMatchInfo in items, for endpoints that have encoded one; nothing for a request without media.
    Remembers: in PreRequest, the media for the target of the primary profile; the least recent are forgotten first, and all of
        an endpoint that leaves the pool.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/multimodal
    """

    def __init__(self, context: PluginContext, capacity: int) -> None:
        self._key: DataKey[dict[EndpointId, MediaMatch]] = MEDIA_CACHE_MATCH.by(context.name)
        self._prompt: DataKey[TokenizedPrompt] = context.key(TOKENIZED_PROMPT)
        self._capacity = capacity
        self._encoded: dict[EndpointId, OrderedDict[str, None]] = {}
        """Hashes by endpoint of the pool, least recent first."""
        self._metrics = context.metrics
        self._labels = {"plugin_type": context.type, "plugin_name": context.name}
        self._ratio = context.metrics.histogram("llm_d_epp_encoder_cache_hit_ratio", **self._labels)

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Write what each endpoint has encoded."""
        media = self._media(request)
        if not media:
            return
        matches: dict[EndpointId, MediaMatch] = {}
        held: dict[EndpointId, int] = {}
        for digest, modality in media.items():
            self._metrics.counter("llm_d_epp_encoder_cache_queries_total", **self._labels, modality=modality).inc()
            for endpoint_id, encoded in self._encoded.items():
                if digest in encoded:
                    held[endpoint_id] = held.get(endpoint_id, 0) + 1
                    labels = {**self._labels, "modality": modality, "pod": endpoint_id}
                    self._metrics.counter("llm_d_epp_encoder_cache_hits_total", **labels).inc()
        for endpoint_id, count in held.items():
            matches[endpoint_id] = MediaMatch(count, len(media))
        for endpoint_id in candidates.ids:
            self._ratio.observe(held.get(endpoint_id, 0) / len(media))
        request.data.set(self._key, matches)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Remember the media for the endpoint that gets the request."""
        encoded = self._encoded.get(result.target.id)
        if encoded is None:  # it left the pool while a plugin waited
            return
        for digest in self._media(request):
            encoded[digest] = None
            encoded.move_to_end(digest)
        while len(encoded) > self._capacity:
            encoded.popitem(last=False)

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget what endpoints had encoded that are gone or have moved."""
        for endpoint in change.removed:
            self._encoded.pop(endpoint.id, None)
        for endpoint in change.added:
            self._encoded[endpoint.id] = OrderedDict()

    def debug_state(self) -> object:
        """How many items each endpoint has encoded, the most first; no hashes."""
        counts = sorted((-len(encoded), endpoint_id) for endpoint_id, encoded in self._encoded.items())
        return {"capacity": self._capacity, "items": {name: -count for count, name in counts[:SHOWN_ENDPOINTS]}}

    def _media(self, request: InferenceRequest) -> dict[str, str]:
        """Hash → modality."""
        prompt = request.data.get(self._prompt)
        return {item.hash: item.modality for item in prompt.media if item.hash} if prompt is not None else {}


def _create(context: PluginContext, params: MediaCacheProducerParams) -> MediaCacheProducer:
    size_mb = params.cache_size_in_mb_per_server
    if size_mb <= 0:
        context.warn("cacheSizeInMBPerServer", f"{size_mb} is not positive; {DEFAULT_MB} is used")
        size_mb = DEFAULT_MB
    return MediaCacheProducer(context, max(1, size_mb // ITEM_MB))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Remembers which endpoint has encoded which media.",
    params=MediaCacheProducerParams,
    produces=(MEDIA_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    factory=_create,
)
