"""max-score-picker: the endpoints with the highest totals."""

from __future__ import annotations

import random
from collections.abc import Sequence

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Picker, Role
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest
from plugins.pickers.limit import PickerParams, limit

TYPE = "max-score-picker"


class MaxScorePicker:
    """Pick the highest totals; exactly equal ones in random order.

    Parameters: maxNumOfEndpoints.
    Reads: totals.
    Formula: descending total; equal means equal as floats, without tolerance.
    Missing data: none possible; if all totals are 0, every endpoint is equally likely.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/picker/maxscore/picker.go
    """

    def __init__(self, most: int, rng: random.Random) -> None:
        self._most = most
        self._rng = rng

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> list[int]:
        """Positions of the picked candidates, best first."""
        if not totals:
            return []
        if self._most == 1:
            best = max(totals)
            if totals.count(best) == 1:
                return [totals.index(best)]
            return [self._rng.choice([position for position, total in enumerate(totals) if total == best])]
        order = list(range(len(totals)))
        self._rng.shuffle(order)
        order.sort(key=totals.__getitem__, reverse=True)
        return order[: self._most]


def _create(context: PluginContext, params: PickerParams) -> Picker:
    return MaxScorePicker(limit(context, params), context.rng)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PICKER}),
    summary="Picks the endpoints with the highest totals; ties at random.",
    params=PickerParams,
    factory=_create,
    example="maxNumOfEndpoints: 2",
)
