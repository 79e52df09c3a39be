"""lora-affinity-scorer: prefer endpoints that have the requested LoRA adapter loaded, or room for it."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import ACTIVE_MODELS, WAITING_MODELS
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import EndpointMetrics, InferenceRequest

TYPE = "lora-affinity-scorer"

ACTIVE = 1.0
"""The adapter is loaded."""
FREE_SLOT = 0.8
"""It can be loaded at once."""
WAITING = 0.6
"""It will be loaded for others."""


class LoraAffinityScorer:
    """Score by what a request for this model would find on the server.

    Parameters: none.
    Reads: active_models, waiting_models, max_active_models; the request's target model.
    Formula: 1.0 if the model is active; else 0.8 if active plus waiting ones are fewer than fit; else 0.6 if it is waiting;
        else 0.0.
    Missing data: without LoRA metrics 0.0 for all, so the others decide.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/loraaffinity
    """

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        model = request.target_model
        return [_affinity(model, metrics) for metrics in candidates.metrics]


def _affinity(model: str, metrics: EndpointMetrics) -> float:
    if model in metrics.active_models:
        return ACTIVE
    if len(metrics.active_models) + len(metrics.waiting_models) < metrics.max_active_models:
        return FREE_SLOT
    return WAITING if model in metrics.waiting_models else 0.0


def _create(context: PluginContext, params: NoParams) -> Scorer:
    return LoraAffinityScorer()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints that have the requested LoRA adapter loaded, or room for it.",
    factory=_create,
    consumes=(Consumes(ACTIVE_MODELS, required=False), Consumes(WAITING_MODELS, required=False)),
)
