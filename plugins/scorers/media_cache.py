"""mm-embeddings-cache-scorer: prefer endpoints that have encoded the request's media before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import MEDIA_CACHE_MATCH, MediaMatch
from epp.framework.params import Former, Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "mm-embeddings-cache-scorer"


class MediaCacheScorerParams(Params):
    """Parameters of mm-embeddings-cache-scorer."""

    producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER), Former("encoderCacheMatchInfoProducerName")] = Field(
        default="", description="Producer of the media match; default: its usual producer."
    )


class MediaCacheScorer:
    """Score by the share of the request's media that the endpoint has encoded before.

    Parameters: producerName.
    Reads: MultiModalEncoderCacheMatchInfo.
    Formula: ``matched / total``, in the units of the producer.
    Missing data: 0.0, also for a request without media.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/mmcacheaffinity
    """

    def __init__(self, key: DataKey[dict[EndpointId, MediaMatch]]) -> None:
        self._key = key

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        matches = request.data.get(self._key)
        if not matches:
            return [0.0] * len(candidates)
        found = map(matches.get, candidates.ids)
        return [match.matched_size / match.total_size if match is not None and match.total_size else 0.0 for match in found]


def _create(context: PluginContext, params: MediaCacheScorerParams) -> MediaCacheScorer:
    return MediaCacheScorer(context.key(MEDIA_CACHE_MATCH, params.producer_name))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints that have encoded the request's media before.",
    params=MediaCacheScorerParams,
    consumes=(Consumes(MEDIA_CACHE_MATCH),),
    factory=_create,
)
