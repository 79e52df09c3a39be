"""Which endpoints hold which prefixes: one bounded LRU of keys for each slot, and the slots of each key.

A slot is a small number that stands for an endpoint. A prefix is of use only as a whole, so of one prompt the last key goes
first: keys are put in from the tail to the head, and the head is the most recent one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from plugins.prefix.keys import Buffer


class LruIndex:
    """The index in Python, the reference of the native one.

    Keys are given as 64 bits each, in the order of the prompt. What a slot holds and which slots hold a key change together.
    """

    def __init__(self) -> None:
        self._recent: dict[int, OrderedDict[int, None]] = {}
        """Slot → its keys, least recent first."""
        self._holders: dict[int, int] = {}
        """Key → bits of the slots that hold it."""
        self._bits: dict[int, int] = {}
        """Slot → its bit. Most keys are held by one slot alone and share this object."""
        self._entries = 0

    def add(self, slot: int, keys: Buffer, capacity: int) -> None:
        """Remember that ``slot`` holds the prefixes of a prompt.

        Args:
            slot: 0 or more.
            keys: of the prompt; the first ``capacity`` of them are kept.
            capacity: most keys of this slot, from now on.
        """
        capacity = max(capacity, 0)
        recent = self._recent.setdefault(slot, OrderedDict())
        bit = self._bits.setdefault(slot, 1 << slot)
        before = len(recent)
        holders = self._holders
        for key in reversed(_read(keys)[:capacity]):
            if key in recent:
                recent.move_to_end(key)
            else:
                recent[key] = None
                holders[key] = holders[key] | bit if key in holders else bit
        while len(recent) > capacity:
            self._let_go(recent.popitem(last=False)[0], bit)
        self._entries += len(recent) - before

    def match(self, keys: Buffer) -> list[tuple[int, int]]:
        """Slots that hold the first key, each with the number of leading keys that it holds; ascending by slot.

        Nothing becomes more recent by being looked up.
        """
        found: list[tuple[int, int]] = []
        alive, count = -1, 0
        for key in _read(keys):
            held = self._holders.get(key, 0)
            gone = alive & ~held if count else 0
            alive &= held
            if gone:
                found += [(slot, count) for slot in _slots(gone)]
            if not alive:
                break
            count += 1
        found += [(slot, count) for slot in _slots(alive if count else 0)]
        found.sort()
        return found

    def clear(self, slot: int) -> None:
        """Forget all that ``slot`` holds."""
        recent = self._recent.pop(slot, None)
        if recent is None:
            return
        bit = self._bits.pop(slot)
        for key in recent:
            self._let_go(key, bit)
        self._entries -= len(recent)

    def size(self, slot: int) -> int:
        """Keys that ``slot`` holds."""
        return len(self._recent.get(slot, ()))

    def keys(self) -> int:
        """Different keys that are held by any slot."""
        return len(self._holders)

    def __len__(self) -> int:
        """Keys of all slots together."""
        return self._entries

    def _let_go(self, key: int, bit: int) -> None:
        rest = self._holders[key] & ~bit
        if rest:
            self._holders[key] = rest
        else:
            del self._holders[key]


def _read(keys: Buffer) -> memoryview:
    return memoryview(keys).cast("B").cast("Q")


def _slots(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
