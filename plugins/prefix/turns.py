"""Long work on the event loop in turns, so that other requests are served in between.

Threads would not help: Python code in one holds the loop up for the interpreter's switch interval, which is longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from typing import TypeVar

from plugins.prefix import twins
from plugins.prefix.keys import Buffer

T = TypeVar("T")


class Turn:
    """Counts blocks until it is time to let others work."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks = 0

    def is_over(self, blocks: int) -> bool:
        """So many more blocks were worked on."""
        if twins.SLICE_BLOCKS is None:
            return False
        self._blocks += blocks
        if self._blocks < twins.SLICE_BLOCKS:
            return False
        self._blocks = 0
        return True


def slices(data: Buffer, unit: int) -> Iterator[Buffer]:
    """``data`` in pieces of a turn at most.

    Args:
        data: of blocks.
        unit: bytes of a block.
    """
    if twins.SLICE_BLOCKS is None or len(data) <= twins.SLICE_BLOCKS * unit:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), twins.SLICE_BLOCKS * unit):
        yield view[start : start + twins.SLICE_BLOCKS * unit]


async def finish(steps: Generator[None, None, T]) -> T:
    """The result of work of which the first step is done; each further one in a turn of its own."""
    while True:
        await asyncio.sleep(0)
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
