"""running-requests-size-scorer: prefer endpoints that run few requests."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import RUNNING_REQUESTS
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "running-requests-size-scorer"


class RunningRequestsScorer:
    """Score by running requests, relative to the other candidates; the fewest get 1.0.

    Parameters: none.
    Reads: running_requests, requests.
    Formula: ``(max - r) / (max - min)``; 1.0 for all when all are equal.
    Missing data: None counts as 0, so an endpoint that was never scraped looks idle.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/runningrequests
    """

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        running = [r or 0 for r in candidates.running_requests]
        if not running:
            return []
        low, high = min(running), max(running)
        if low == high:
            return [1.0] * len(running)
        span = high - low
        return [(high - r) / span for r in running]


def _create(context: PluginContext, params: NoParams) -> Scorer:
    return RunningRequestsScorer()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints that run few requests.",
    factory=_create,
    per_snapshot=True,
    consumes=(Consumes(RUNNING_REQUESTS, required=False),),
)
