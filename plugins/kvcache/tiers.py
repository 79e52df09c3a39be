"""Tiers of the engines' caches, by number, with what a block there is worth."""

from __future__ import annotations

from collections.abc import Mapping

from plugins.kvcache.events import GPU

DEFAULT_WEIGHTS: Mapping[str, float] = {GPU: 1.0, "cpu": 0.8}
MAX_TIERS = 16
"""Engines have two or three; more are the invention of somebody who publishes garbage."""
ASSUMED = "speculative"
ASSUMED_WEIGHT = 1.0
"""Of a block that is only assumed to be there, because its prompt was just sent."""


class Tiers:
    """Names and weights of tiers; number 0 is the GPU's.

    Args:
        weights: by name, in any case; empty = the defaults.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        given = {name.lower(): weight for name, weight in (weights or DEFAULT_WEIGHTS).items()}
        self._given = given
        self._least = min(given.values())
        self.names: list[str] = []
        self.weights: list[float] = []
        """Of each tier; one without a weight of its own is worth as little as the least of those that have."""
        self.by_worth: tuple[int, ...] = ()
        """Numbers of the tiers, the best first."""
        self.number(GPU)

    def number(self, name: str) -> int | None:
        """The tier's number, a new one if it has none; None if there are too many."""
        try:
            return self.names.index(name)
        except ValueError:
            if len(self.names) >= MAX_TIERS:
                return None
        # Appended in this order: the event loop reads while another thread writes.
        self.weights.append(self._given.get(name, self._least))
        self.names.append(name)
        self.by_worth = tuple(sorted(range(len(self.names)), key=lambda number: -self.weights[number]))
        return len(self.names) - 1
