"""kv-cache-utilization-scorer: prefer endpoints with a free KV cache."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import KV_CACHE_USAGE
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "kv-cache-utilization-scorer"


class KvCacheUtilizationScorer:
    """Score by the free fraction of the KV cache, whatever the others have.

    Parameters: none.
    Reads: kv_cache_usage, fraction.
    Formula: ``1 - usage``; negative for a server that reports more than 1, which counts as 0.
    Missing data: None counts as 0 used, so an endpoint that was never scraped scores 1.0.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/kvcacheutilization
    """

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores <= 1, shape ``(len(candidates),)``."""
        return [1.0 if usage is None else 1.0 - usage for usage in candidates.kv_cache_usage]


def _create(context: PluginContext, params: NoParams) -> Scorer:
    return KvCacheUtilizationScorer()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints with a free KV cache.",
    factory=_create,
    per_snapshot=True,
    consumes=(Consumes(KV_CACHE_USAGE, required=False),),
)
