"""recent-errors-scorer: avoid endpoints that answered with errors a moment ago."""

from __future__ import annotations

import math
from collections.abc import Callable

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import DurationS, Params
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, EndpointChange, EndpointId, InferenceRequest
from pydantic import Field


class RecentErrorsScorerParams(Params):
    """Parameters of recent-errors-scorer."""

    half_life: DurationS = Field(default=10.0, gt=0, description="Time after which an error counts half.")


class RecentErrorsScorer:
    """Score by the errors that an endpoint answered with, which fade.

    Reads: nothing; counts responses with a status of 500 or above.
    Formula: ``1 / (1 + e)``, where ``e`` is the sum of ``0.5 ** (age / halfLife)`` over the errors.
    Missing data: an endpoint without an error scores 1.0.
    """

    def __init__(self, half_life_s: float, clock: Callable[[], float]) -> None:
        self._half_life_s = half_life_s
        self._clock = clock
        self._errors: dict[EndpointId, tuple[float, float]] = {}
        """Per endpoint: the sum, and when it was right."""

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in the order of the candidates."""
        now = self._clock()
        return [1 / (1 + self._sum(endpoint_id, now)) for endpoint_id in candidates.ids]

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Count an error of the endpoint that really answered."""
        if completion.status >= 500:
            now = self._clock()
            self._errors[completion.served.id] = (self._sum(completion.served.id, now) + 1, now)

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget endpoints that left the pool."""
        for endpoint in change.removed:
            self._errors.pop(endpoint.id, None)

    def debug_state(self) -> object:
        """Shown at /debug/plugins/state."""
        now = self._clock()
        return {endpoint_id: round(self._sum(endpoint_id, now), 3) for endpoint_id in self._errors}

    def _sum(self, endpoint_id: EndpointId, now: float) -> float:
        errors, since = self._errors.get(endpoint_id, (0.0, now))
        return errors * math.exp2((since - now) / self._half_life_s)


def _create(context: PluginContext, params: RecentErrorsScorerParams) -> RecentErrorsScorer:
    return RecentErrorsScorer(params.half_life, context.clock)


PLUGIN = PluginType(
    type="recent-errors-scorer",
    roles=frozenset({Role.SCORER, Role.RESPONSE_COMPLETE}),
    summary="Avoids endpoints that answered with errors a moment ago.",
    params=RecentErrorsScorerParams,
    factory=_create,
    example="halfLife: 30s",
)
