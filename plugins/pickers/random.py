"""random-picker: any endpoints that passed the filters."""

from __future__ import annotations

import random
from collections.abc import Sequence

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Picker, Role
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest
from plugins.pickers.limit import PickerParams, limit

TYPE = "random-picker"


class RandomPicker:
    """Pick uniformly, whatever the totals.

    Parameters: maxNumOfEndpoints.
    Reads: nothing.
    Formula: a uniform sample without replacement, in random order.
    Missing data: none possible.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/picker/random/picker.go
    """

    def __init__(self, most: int, rng: random.Random) -> None:
        self._most = most
        self._rng = rng

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> list[int]:
        """Positions of the picked candidates."""
        count = len(totals)
        return self._rng.sample(range(count), min(self._most, count))


def _create(context: PluginContext, params: PickerParams) -> Picker:
    return RandomPicker(limit(context, params), context.rng)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PICKER}),
    summary="Picks uniformly at random.",
    params=PickerParams,
    factory=_create,
    example="maxNumOfEndpoints: 2",
)
