"""What is remembered of each pod that publishes events."""

from __future__ import annotations

from typing import NamedTuple

MAX_COUNT = 8
"""A block that was announced more often is removed as if it had been announced this often: some engines announce again what
they reuse, and never take it back."""


class Place(NamedTuple):
    """Where in a pod a block is."""

    tier: int
    group: int | None


class Holding:
    """A block that was announced several times, or that is several of the index's."""

    __slots__ = ("count", "keys")

    def __init__(self, keys: tuple[int, ...], count: int = 1) -> None:
        self.keys = keys
        self.count = count


class Pod:
    """One endpoint's cache, as its events tell it.

    Args:
        name: ``ip:port``, or whatever name it published under before it was discovered.
        slot: its bit in masks.
    """

    __slots__ = ("epoch", "held", "kinds", "mismatch_told", "name", "shared", "slot")

    def __init__(self, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        """-1 = it left."""
        self.epoch = 0
        """Moves when the cache is cleared, so that what was assumed of it before is void."""
        self.held: dict[Place, dict[int, int | Holding]] = {}
        """The engine's keys of the blocks that it holds, with those of the index that they stand for."""
        self.shared: dict[tuple[int, int], int] = {}
        """(tier, key) → how many of the engine's blocks beyond the first stand for the same."""
        self.kinds: dict[int, str] = {}
        """Kind of each group that was announced."""
        self.mismatch_told = False

    @property
    def blocks(self) -> int:
        """Blocks that it holds, in all tiers."""
        return sum(map(len, self.held.values()))
