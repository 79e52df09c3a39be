"""Blocks whose parent nobody knows yet: they wait for it for a while instead of being lost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from plugins.kvcache.events import BlockStored

Key = TypeVar("Key")

MAX_ORPHANS, MAX_BYTES, TTL_S = 10_000, 64 * 1024 * 1024, 600.0
"""Of each base model; the oldest go first."""


class Orphan:
    """An event that waits."""

    __slots__ = ("event", "pod", "removed", "until_s")

    def __init__(self, pod: str, event: BlockStored, until_s: float) -> None:
        self.pod = pod
        self.event = event
        self.until_s = until_s
        self.removed: set[int] = set()
        """Hashes of blocks that the engine dropped meanwhile."""


class Orphans:
    """The waiting events of one base model."""

    def __init__(self) -> None:
        self._by_parent: dict[int, OrderedDict[int, Orphan]] = {}
        self._by_block: dict[tuple[str, int], OrderedDict[int, Orphan]] = {}
        self._in_order: OrderedDict[int, Orphan] = OrderedDict()
        self._next = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, pod: str, event: BlockStored, now_s: float) -> None:
        """Keep an event until its parent comes."""
        assert event.parent is not None
        orphan = Orphan(pod, event, now_s + TTL_S)
        number = self._next
        self._next += 1
        self._in_order[number] = orphan
        self._by_parent.setdefault(event.parent, OrderedDict())[number] = orphan
        for engine_key in event.hashes:
            self._by_block.setdefault((pod, engine_key), OrderedDict())[number] = orphan
        self._bytes += _size(event)
        self.sweep(now_s)

    def sweep(self, now_s: float) -> None:
        """Forget what waited too long, and what is too much."""
        while self._in_order:
            number, oldest = next(iter(self._in_order.items()))
            if oldest.until_s > now_s and len(self._in_order) <= MAX_ORPHANS and self._bytes <= MAX_BYTES:
                return
            self._drop(number, oldest)

    def take(self, parent: int) -> list[Orphan]:
        """The events that waited for this block, in the order in which they came."""
        waiting = self._by_parent.get(parent)
        if waiting is None:
            return []
        found = list(waiting.items())
        for number, orphan in found:
            self._drop(number, orphan)
        return [orphan for _, orphan in found]

    def removed(self, pod: str, engine_keys: Iterable[int]) -> None:
        """The engine dropped these blocks."""
        if not self._in_order:
            return
        for engine_key in engine_keys:
            for orphan in self._by_block.get((pod, engine_key), {}).values():
                orphan.removed.add(engine_key)

    def cleared(self, pod: str) -> None:
        """The engine dropped all its blocks."""
        for number, orphan in [item for item in self._in_order.items() if item[1].pod == pod]:
            self._drop(number, orphan)

    def renamed(self, old: str, new: str) -> None:
        """A pod is known by another name from now on."""
        for number, orphan in [item for item in self._in_order.items() if item[1].pod == old]:
            orphan.pod = new
            for engine_key in orphan.event.hashes:
                _discard(self._by_block, (old, engine_key), number)
                self._by_block.setdefault((new, engine_key), OrderedDict())[number] = orphan

    def _drop(self, number: int, orphan: Orphan) -> None:
        event = orphan.event
        del self._in_order[number]
        self._bytes -= _size(event)
        assert event.parent is not None
        _discard(self._by_parent, event.parent, number)
        for engine_key in event.hashes:
            _discard(self._by_block, (orphan.pod, engine_key), number)


def _size(event: BlockStored) -> int:
    return len(event.tokens) + 64 * len(event.hashes)


def _discard(table: dict[Key, OrderedDict[int, Orphan]], key: Key, number: int) -> None:
    waiting = table.get(key)
    if waiting is not None:
        waiting.pop(number, None)
        if not waiting:
            del table[key]
