"""queue-scorer: prefer endpoints with a short waiting queue."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import WAITING_QUEUE
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "queue-scorer"


class QueueScorer:
    """Score by waiting-queue length, relative to the other candidates; the shortest queue gets 1.0.

    Parameters: none.
    Reads: waiting_queue, requests.
    Formula: ``(max - q) / (max - min)``; 1.0 for all when all are equal.
    Missing data: None counts as 0, so an endpoint that was never scraped looks idle.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/queuedepth/queue.go
    """

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        queue = [q or 0 for q in candidates.waiting_queue]
        if not queue:
            return []
        low, high = min(queue), max(queue)
        if low == high:
            return [1.0] * len(queue)
        span = high - low
        return [(high - q) / span for q in queue]


def _create(context: PluginContext, params: NoParams) -> Scorer:
    return QueueScorer()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints with a short waiting queue.",
    factory=_create,
    per_snapshot=True,
    consumes=(Consumes(WAITING_QUEUE, required=False),),
)
