"""The index of prefixes; both twins, and a naive one beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.prefix.lru_index import LruIndex
from tests.unit.plugins.prefix.packed import INDEXES, NATIVE, pack

each_twin = pytest.mark.parametrize("make", INDEXES)
Make = Callable[[], Any]


class Naive:
    """What the index must do, with a list for each slot, the least recent key first."""

    def __init__(self) -> None:
        self.slots: dict[int, list[int]] = {}

    def add(self, slot: int, keys: Sequence[int], capacity: int) -> None:
        held = self.slots.setdefault(slot, [])
        for key in reversed(keys[:capacity]):
            if key in held:
                held.remove(key)
            held.append(key)
        del held[: max(len(held) - capacity, 0)]

    def match(self, keys: Sequence[int]) -> list[tuple[int, int]]:
        found = []
        for slot, held in sorted(self.slots.items()):
            leading = next((count for count, key in enumerate(keys) if key not in held), len(keys))
            if leading:
                found.append((slot, leading))
        return found


@each_twin
def test_nothing_is_held_at_first(make: Make) -> None:
    index = make()
    assert index.match(pack(1, 2)) == []
    assert index.match(b"") == []
    assert (len(index), index.keys(), index.size(0)) == (0, 0, 0)


@each_twin
def test_prefix_14_the_head_of_a_prompt_beyond_the_capacity_is_kept(make: Make) -> None:
    index = make()
    index.add(0, pack(*range(10)), 4)
    assert index.match(pack(*range(10))) == [(0, 4)]
    assert (len(index), index.keys(), index.size(0)) == (4, 4, 4)


@each_twin
def test_prefix_15_tails_go_first(make: Make) -> None:
    index = make()
    index.add(0, pack(*range(6)), 10)
    index.add(0, pack(*range(10, 16)), 10)
    assert index.match(pack(*range(6))) == [(0, 4)]
    assert index.match(pack(*range(10, 16))) == [(0, 6)]


@each_twin
def test_prefix_16_only_leading_keys_count(make: Make) -> None:
    index = make()
    index.add(0, pack(0, 1, 2), 10)
    index.add(0, pack(4, 5), 10)
    assert index.match(pack(*range(6))) == [(0, 3)]
    index.add(1, pack(1, 2, 3, 4, 5), 10)
    assert index.match(pack(*range(6))) == [(0, 3)]
    index.add(7, pack(3), 10)
    assert index.match(pack(*range(6))) == [(0, 3)], "what another holds after it is of no use"


@each_twin
def test_each_slot_has_its_own_length(make: Make) -> None:
    index = make()
    for slot, count in ((70, 2), (3, 5), (0, 2), (1, 1)):
        index.add(slot, pack(*range(count)), 10)
    assert index.match(pack(*range(5))) == [(0, 2), (1, 1), (3, 5), (70, 2)]
    assert index.match(pack(*range(9))) == [(0, 2), (1, 1), (3, 5), (70, 2)]
    assert (len(index), index.keys()) == (10, 5)


@each_twin
def test_being_looked_up_keeps_nothing(make: Make) -> None:
    index = make()
    index.add(0, pack(1), 2)
    index.add(0, pack(2), 2)
    index.match(pack(1))
    index.add(0, pack(3), 2)
    assert index.match(pack(1)) == []


@each_twin
def test_being_sent_again_keeps_it(make: Make) -> None:
    index = make()
    index.add(0, pack(1), 2)
    index.add(0, pack(2), 2)
    index.add(0, pack(1), 2)
    index.add(0, pack(3), 2)
    assert index.match(pack(1)) == [(0, 1)]
    assert index.match(pack(2)) == []


@each_twin
def test_a_smaller_capacity_applies_at_once(make: Make) -> None:
    index = make()
    index.add(0, pack(*range(8)), 8)
    index.add(0, b"", 3)
    assert (index.match(pack(*range(8))), len(index)) == ([(0, 3)], 3)
    index.add(0, pack(9), 0)
    assert (index.match(pack(*range(8))), len(index), index.keys()) == ([], 0, 0)


@each_twin
def test_prefix_20_a_cleared_slot_holds_nothing(make: Make) -> None:
    index = make()
    index.add(0, pack(1, 2), 10)
    index.add(1, pack(1, 2, 3), 10)
    index.clear(0)
    index.clear(5)
    assert index.match(pack(1, 2, 3)) == [(1, 3)]
    assert (len(index), index.keys(), index.size(0)) == (3, 3, 0)
    index.add(0, pack(1), 10)
    assert index.match(pack(1, 2, 3)) == [(0, 1), (1, 3)]


@each_twin
def test_prefix_21_nothing_is_left_of_slots_that_come_and_go(make: Make) -> None:
    index = make()
    for round_ in range(100):
        for slot in range(200):
            index.add(slot, pack(slot % 7, 1000 + slot, round_), 5)
        for slot in range(200):
            index.clear(slot)
        assert (len(index), index.keys()) == (0, 0)
    assert index.match(pack(0)) == []


@each_twin
def test_prefix_32_long_prompts_and_many_slots(make: Make) -> None:
    """6,000 keys and 1,000 slots of random depths; what it takes is measured in ``bench/micro/prefix.py``."""
    rng = random.Random(1)
    keys = [rng.getrandbits(64) for _ in range(6000)]
    depths = [rng.randint(0, 6000) if slot % 3 else 0 for slot in range(1000)]
    index = make()
    for slot, depth in enumerate(depths):
        index.add(slot, pack(*keys[:depth]), 6000)
    assert index.match(pack(*keys)) == [(slot, depth) for slot, depth in enumerate(depths) if depth]
    assert (len(index), index.keys()) == (sum(depths), max(depths))


@each_twin
def test_what_is_no_row_of_keys_is_refused(make: Make) -> None:
    index = make()
    for call in (lambda: index.match(b"1234567"), lambda: index.add(0, b"123456789", 5)):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert len(index) == 0


_KEYS = st.lists(st.integers(0, 7) | st.just(2**64 - 1), max_size=8, unique=True)
_STEPS = st.lists(
    st.tuples(st.just("add"), st.integers(0, 3), _KEYS, st.integers(0, 6))
    | st.tuples(st.just("clear"), st.integers(0, 3), st.just([]), st.just(0)),
    max_size=30,
)


@given(_STEPS, st.lists(_KEYS, max_size=3))
def test_twins_do_what_the_naive_index_does(steps: list[tuple[str, int, list[int], int]], prompts: list[list[int]]) -> None:
    """The match is that of each slot's own keys: no slot gets credit for what another holds."""
    naive = Naive()
    twins = [LruIndex()] if NATIVE is None else [LruIndex(), NATIVE.LruIndex()]
    for what, slot, keys, capacity in steps:
        if what == "clear":
            naive.slots.pop(slot, None)
        else:
            naive.add(slot, keys, capacity)
        held = [key for one in naive.slots.values() for key in one]
        for index in twins:
            if what == "clear":
                index.clear(slot)
            else:
                index.add(slot, pack(*keys), capacity)
            assert (len(index), index.keys()) == (len(held), len(set(held)))
            assert index.size(slot) == len(naive.slots.get(slot, ()))
            for prompt in [keys, *prompts]:
                assert index.match(pack(*prompt)) == naive.match(prompt)


@given(_STEPS, _KEYS, st.integers(0, 8))
def test_a_longer_prompt_matches_no_less(steps: list[tuple[str, int, list[int], int]], prompt: list[int], cut: int) -> None:
    index = LruIndex()
    for what, slot, keys, capacity in steps:
        if what == "add":
            index.add(slot, pack(*keys), capacity)
    short, whole = dict(index.match(pack(*prompt[:cut]))), dict(index.match(pack(*prompt)))
    assert short == {slot: min(count, cut) for slot, count in whole.items() if cut}
