"""The index of prefixes where its sets of slots span several words, come and go: as the reference has it."""

from __future__ import annotations

import random
import struct

from epp_native import LruIndex
from hypothesis import given
from hypothesis import strategies as st

from plugins.prefix import lru_index

SLOTS = (0, 1, 2, 63, 64, 65, 127, 128, 700)
_CHAINS = st.tuples(st.integers(0, 3), st.integers(0, 12)).map(lambda of: [100 * of[0] + place for place in range(of[1])])
"""Prompts: the beginnings of a few long ones."""
_STEPS = st.lists(
    st.tuples(st.sampled_from(SLOTS), _CHAINS | st.lists(st.integers(0, 5), max_size=6), st.integers(0, 20) | st.none()),
    max_size=60,
)


def pack(keys: list[int]) -> bytes:
    return struct.pack(f"<{len(keys)}Q", *keys)


def check(native: LruIndex, reference: lru_index.LruIndex, prompts: list[list[int]]) -> None:
    assert (len(native), native.keys()) == (len(reference), reference.keys())
    assert [native.size(slot) for slot in SLOTS] == [reference.size(slot) for slot in SLOTS]
    for prompt in prompts:
        assert native.match(pack(prompt)) == reference.match(pack(prompt))


@given(_STEPS)
def test_slots_that_share_keys(steps: list[tuple[int, list[int], int | None]]) -> None:
    """A capacity of None clears the slot."""
    native, reference = LruIndex(), lru_index.LruIndex()
    prompts = [list(range(100 * chain, 100 * chain + 12)) for chain in range(4)]
    for slot, keys, capacity in steps:
        for index in (native, reference):
            if capacity is None:
                index.clear(slot)
            else:
                index.add(slot, pack(keys), capacity)
        check(native, reference, [keys, *prompts])


def test_a_long_life() -> None:
    """Conversations that grow on changing slots, with slots that fill up and endpoints that go."""
    rng = random.Random(7)
    native, reference = LruIndex(), lru_index.LruIndex()
    talks = [[rng.getrandbits(64) for _ in range(40)] for _ in range(60)]
    for step in range(4000):
        slot = rng.choice(SLOTS)
        keys = rng.choice(talks)[: rng.randint(1, 40)]
        for index in (native, reference):
            if step % 97 == 0:
                index.clear(slot)
            else:
                index.add(slot, pack(keys), 300 if step % 50 else 200)
        if step % 10 == 0:
            check(native, reference, [keys])
    check(native, reference, talks)
    for slot in SLOTS:
        native.clear(slot)
    assert (len(native), native.keys(), [native.match(pack(talk)) for talk in talks]) == (0, 0, [[]] * len(talks))


def test_a_set_of_slots_in_the_place_of_one_that_is_gone() -> None:
    index = LruIndex()
    for key, slots in ((1, (0, 1, 5)), (2, (2, 3, 5))):
        for slot in slots:
            index.add(slot, pack([key]), 9)
    assert index.match(pack([1])) == [(0, 1), (1, 1), (5, 1)]
    assert index.match(pack([2])) == [(2, 1), (3, 1), (5, 1)]
