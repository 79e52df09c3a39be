"""weighted-random-picker: endpoints at random, in proportion to their totals."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Picker, Role
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest
from plugins.pickers.limit import PickerParams, limit

TYPE = "weighted-random-picker"

_SMALLEST_DRAW = 1e-10
"""Stands for a draw of exactly 0, whose logarithm does not exist."""


class WeightedRandomPicker:
    """Draw endpoints one after the other without replacement, each with probability total / sum of totals left.

    Parameters: maxNumOfEndpoints.
    Reads: totals.
    Formula: descending ``ln(U) / total``, U uniform in (0, 1): the order of the keys ``U ** (1 / total)``, which would
        underflow for small totals (Efraimidis and Spirakis, algorithm A-Res).
    Missing data: totals <= 0 and NaN have weight 0 and only fill up, in random order; if all have, the pick is uniform.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/picker/weightedrandom/picker.go
    """

    def __init__(self, most: int, rng: random.Random) -> None:
        self._most = most
        self._rng = rng

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> list[int]:
        """Positions of the picked candidates, in the order of the draws."""
        draw, log = self._rng.random, math.log
        keyed = [(log(draw() or _SMALLEST_DRAW) / total, i) for i, total in enumerate(totals) if total > 0]
        if self._most == 1 and keyed:
            return [max(keyed)[1]]
        keyed.sort(reverse=True)
        picked = [position for _, position in keyed[: self._most]]
        return picked + self._fill(totals, self._most - len(picked))

    def _fill(self, totals: Sequence[float], missing: int) -> list[int]:
        if missing <= 0:
            return []
        rest = [position for position, total in enumerate(totals) if not total > 0]
        return self._rng.sample(rest, min(missing, len(rest)))


def _create(context: PluginContext, params: PickerParams) -> Picker:
    return WeightedRandomPicker(limit(context, params), context.rng)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PICKER}),
    summary="Picks at random in proportion to the totals.",
    params=PickerParams,
    factory=_create,
    example="maxNumOfEndpoints: 2",
)
