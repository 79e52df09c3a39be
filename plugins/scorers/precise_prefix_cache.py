"""precise-prefix-cache-scorer: prefer endpoints that hold the prompt's blocks, as their KV events say."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest
from plugins.kvcache.build import make_parts
from plugins.kvcache.parameters import PreciseScorerParams, lacks_model
from plugins.kvcache.precise import PrecisePrefixCache

TYPE = "precise-prefix-cache-scorer"
PRODUCER = "precise-prefix-cache-producer"
"""Type of the plugin that has the index if it is declared."""


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


class HostingScorer(PrecisePrefixCache):
    """Score by the share of the prompt's blocks that the endpoint holds, as the engines' KV events say.

    It receives the events itself, unless a `precise-prefix-cache-producer` is declared, whose matches are scored then. Engines
    publish over ZMQ what enters and leaves their caches (vLLM with `--kv-events-config`, SGLang likewise). The picker connects
    to every endpoint of the pool (`discoverPods`, port `socketPort` plus the rank), or binds `zmqEndpoint` for engines that
    connect to it, or both; on a pod's own connection any topic will do, on the common one topics are `kv@<pod>@<model>`. A
    thread of its own receives and applies events. Blocks are known by their tokens, so that neither the engines' hash algorithm
    nor their seed matters; `blockSize` should be theirs, or a divisor of it. The prompt's tokens are those of a token producer
    or of the client if they are of the same model, else those of the plugin's own tokenizers: on disk, of a service, or of the
    Hugging Face hub, in this order. Conversations are tokenized turn by turn, each turn once. `speculativeIndexing` assumes for
    `speculativeTTL` that a prompt is cached where it was just sent, until the engine says so.

    Parameters: scoreNormalization; the others are the index's.
    Reads: the prompt's tokens, where another plugin made them.
    Formula: ``ratio``: ``s = match / total``, each block by the weight of the best tier that has it. ``minmax``:
        ``(s - min) / (max - min)`` over all endpoints that the index knows, candidates or not; 1.0 for all when they are equal.
    Missing data: an endpoint that the index does not know scores 0.0; so do all for a prompt that cannot be tokenized.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/preciseprefixcache; minmax:
        llm-d-router v0.5.0: pkg/plugins/scorer/precise_prefix_cache.go
    """

    def __init__(self, context: PluginContext, params: PreciseScorerParams) -> None:
        super().__init__(context, *make_parts(context, params))
        self._scorer = _scorer(context.name, params)

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        return self._scorer.score(request, candidates)


def create_scorer(context: PluginContext, params: PreciseScorerParams) -> Scorer:
    """A scorer with an index of its own, or one that reads a declared producer's matches."""
    producer = next((name for name, kind in context.declared.items() if kind == PRODUCER), "")
    return _scorer(producer, params) if producer else HostingScorer(context, params)


def _scorer(writer: str, params: PreciseScorerParams) -> PrecisePrefixCacheScorer:
    return PrecisePrefixCacheScorer(PREFIX_CACHE_MATCH.by(writer), spreads=params.score_normalization == "minmax")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST, Role.ENDPOINT_EXTRACTOR}),
    summary="Prefers endpoints that hold the prompt's blocks, as their KV events say.",
    params=PreciseScorerParams,
    hot=False,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT, required=False, unless=PRODUCER, undeclared=lacks_model),),
    factory=create_scorer,
    example="""
        tokenProcessorConfig: {blockSize: 16}
        indexerConfig:
          tokenizersPoolConfig: {modelName: Qwen/Qwen3-8B}
        kvEventsConfig:
          discoverPods: true
    """,
)
