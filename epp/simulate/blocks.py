"""The KV cache of a simulated engine: blocks shared by prefix, the least recently used ones evicted first.

A sequence is bytes, four to a token. A full block is known by the hash of its own bytes and of all before it, so two sequences
share exactly their common prefix. The last, partly filled block belongs to one sequence alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

BYTES_PER_TOKEN = 4


def tokens_of(size_bytes: int) -> int:
    """Tokens in a text of this size; a rest counts as one."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def block_hashes(data: bytes, block_bytes: int, parent: int, first: int = 0) -> list[int]:
    """Hashes of the full blocks of ``data``, from block ``first`` on.

    Args:
        data: the whole sequence.
        block_bytes: size of a block in bytes.
        parent: hash of the block before ``first``, or the root (which tells adapters and salts apart).
        first: index of the first block to hash.
    """
    hashes = []
    for start in range(first * block_bytes, len(data) - block_bytes + 1, block_bytes):
        parent = hash((parent, data[start : start + block_bytes]))
        hashes.append(parent)
    return hashes


class BlockPool:
    """A fixed number of blocks. Invariant: referenced + private + evictable never exceeds ``num_blocks``.

    Args:
        num_blocks: how many there are.
        on_evicted: called with each block whose content is lost to make room for another.
    """

    def __init__(self, num_blocks: int, on_evicted: Callable[[int], None] | None = None) -> None:
        self.num_blocks = num_blocks
        self._on_evicted = on_evicted
        self._references: dict[int, int] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def used(self) -> int:
        """Blocks that some sequence holds. Cached blocks that nobody holds are free, as in vLLM."""
        return len(self._references) + self._private

    @property
    def available(self) -> int:
        """Blocks that can be had, by evicting cached ones if need be."""
        return self.num_blocks - self.used

    @property
    def cached(self) -> int:
        """Blocks whose content can be found again."""
        return len(self._references) + len(self._evictable)

    @property
    def usage_ratio(self) -> float:
        """Held blocks over all blocks, 0 to 1."""
        return self.used / self.num_blocks

    def match(self, hashes: Iterable[int], limit: int) -> int:
        """How many of the leading blocks are cached, at most ``limit``."""
        count = 0
        for block in hashes:
            if count >= limit or (block not in self._references and block not in self._evictable):
                break
            count += 1
        return count

    def missing(self, hashes: Collection[int]) -> int:
        """How many of these blocks would have to be taken from the available ones."""
        return len(hashes) - sum(map(self._references.__contains__, hashes))

    def hold(self, hashes: Iterable[int]) -> list[int]:
        """Take full blocks, cached or new. The caller has checked that they fit.

        Returns:
            Those that were not cached, in order.
        """
        references, evictable = self._references, self._evictable
        free = self.available - len(evictable)
        new = []
        for block in hashes:
            held = references.get(block)
            if held is not None:
                references[block] = held + 1
                continue
            if block in evictable:
                del evictable[block]
            else:
                if free > 0:
                    free -= 1
                else:
                    self._evict()
                new.append(block)
            references[block] = 1
        return new

    def hold_private(self) -> None:
        """Take one block for the unfinished end of a sequence."""
        self._make_room()
        self._private += 1

    def fill_private(self, block: int) -> list[int]:
        """A private block is full: from now on it is known by its hash; the result is that of `hold`."""
        self._private -= 1
        return self.hold((block,))

    def release(self, hashes: list[int], private: bool) -> None:
        """Give up all blocks of a sequence; the end of it will be evicted first."""
        references, evictable = self._references, self._evictable
        for block in reversed(hashes):
            held = references.pop(block)
            if held > 1:
                references[block] = held - 1
            else:
                evictable[block] = None
        self._private -= private

    def clear(self) -> None:
        """Forget the content of all blocks that nobody holds."""
        self._evictable.clear()

    def _make_room(self) -> None:
        if self.used + len(self._evictable) >= self.num_blocks:
            self._evict()

    def _evict(self) -> None:
        block, _ = self._evictable.popitem(last=False)
        if self._on_evicted is not None:
            self._on_evicted(block)
