"""load-aware-scorer: prefer endpoints whose waiting queue is far below a threshold."""

from __future__ import annotations

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import WAITING_QUEUE
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "load-aware-scorer"
DEFAULT_THRESHOLD = 128


class LoadAwareScorerParams(Params):
    """Parameters of load-aware-scorer."""

    threshold: Int = Field(
        default=DEFAULT_THRESHOLD, description="Waiting requests from which an endpoint scores 0; <= 0 = the default."
    )


class LoadAwareScorer:
    """Score by the waiting queue against a fixed threshold.

    Parameters: threshold.
    Reads: waiting_queue, requests.
    Formula: ``0.5 * (1 - min(q, threshold) / threshold)``. It never exceeds 0.5: choose the weight accordingly.
    Missing data: None counts as 0, so an endpoint that was never scraped looks idle.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/loadaware
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 0.5], shape ``(len(candidates),)``."""
        threshold = self._threshold
        return [0.5 if not q else 0.0 if q >= threshold else 0.5 * (1.0 - q / threshold) for q in candidates.waiting_queue]


def _create(context: PluginContext, params: LoadAwareScorerParams) -> Scorer:
    if params.threshold > 0:
        return LoadAwareScorer(params.threshold)
    context.warn("threshold", f"{params.threshold} is not positive; {DEFAULT_THRESHOLD} is used")
    return LoadAwareScorer(DEFAULT_THRESHOLD)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints whose waiting queue is far below a threshold.",
    params=LoadAwareScorerParams,
    factory=_create,
    per_snapshot=True,
    consumes=(Consumes(WAITING_QUEUE, required=False),),
    example="threshold: 64",
)
