"""Who is told what the prefix cache of a simulated engine holds."""

from __future__ import annotations

from typing import Protocol

from epp.simulate.sequence import Sequence


class CacheObserver(Protocol):
    """Who is told what the prefix cache holds. Blocks are known by the hashes of `block_hashes`."""

    def stored(self, sequence: Sequence, new: list[int]) -> None:
        """These blocks of ``sequence.blocks`` can be found from now on; in order, and announced when they are reserved."""

    def removed(self, block: int) -> None:
        """The content of a block is lost."""

    def cleared(self) -> None:
        """The content of all blocks is lost."""

    def step_ended(self) -> None:
        """A step is over: what was told since the last one belongs together."""
