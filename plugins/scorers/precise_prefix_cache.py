"""precise-prefix-cache-scorer: prefer endpoints that hold the prompt's blocks, as their KV events say."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest
from plugins.kvcache.parameters import PreciseScorerParams, lacks_model

TYPE = "precise-prefix-cache-scorer"


class PrecisePrefixCacheScorer:
    """Score by the share of the prompt's blocks that the endpoint holds, weighted by the tier that holds them.

    Parameters: scoreNormalization; the others are the index's.
    Reads: PrefixCacheMatchInfo of this instance.
    Formula: ``ratio``: ``s = match / total``. ``minmax``: ``(s - min) / (max - min)`` over all endpoints that the index
        knows, candidates or not; 1.0 for all of them when they are equal.
    Missing data: an endpoint that the index does not know scores 0.0.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/preciseprefixcache; minmax:
        llm-d-router v0.5.0: pkg/plugins/scorer/precise_prefix_cache.go
    """

    def __init__(self, key: DataKey[dict[EndpointId, PrefixMatch]], *, spreads: bool = False) -> None:
        self._key = key
        self._spreads = spreads

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        matches = request.data.get(self._key)
        if not matches:
            return [0.0] * len(candidates)
        if not self._spreads:
            found = map(matches.get, candidates.ids)
            return [match.ratio if match is not None else 0.0 for match in found]
        ratios = {endpoint_id: match.ratio for endpoint_id, match in matches.items()}
        low, high = min(ratios.values()), max(ratios.values())
        if low == high:
            return [1.0 if endpoint_id in ratios else 0.0 for endpoint_id in candidates.ids]
        span = high - low
        return [(ratios.get(endpoint_id, low) - low) / span for endpoint_id in candidates.ids]


def create_scorer(context: PluginContext, params: PreciseScorerParams) -> Scorer:
    """The scoring half. The type has no factory until the other half exists, which reads KV events and writes the match."""
    return PrecisePrefixCacheScorer(PREFIX_CACHE_MATCH.by(context.name), spreads=params.score_normalization == "minmax")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Prefers endpoints that hold the prompt's blocks, as their KV events say.",
    params=PreciseScorerParams,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT, required=False, unless="precise-prefix-cache-producer", undeclared=lacks_model),),
    wait="precise prefix caching",
    example="""
        tokenProcessorConfig: {blockSize: 16}
        indexerConfig:
          tokenizersPoolConfig: {modelName: Qwen/Qwen3-8B}
        kvEventsConfig:
          discoverPods: true
    """,
)
