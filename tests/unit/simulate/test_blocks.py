"""The block pool against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.simulate.blocks import BlockPool, block_hashes, tokens_of


@pytest.mark.parametrize(("size_bytes", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (64, 16)])
def test_four_bytes_are_a_token(size_bytes: int, tokens: int) -> None:
    assert tokens_of(size_bytes) == tokens


@given(shared=st.binary(max_size=200), left=st.binary(max_size=100), right=st.binary(max_size=100))
def test_hashes_agree_exactly_on_the_common_full_blocks(shared: bytes, left: bytes, right: bytes) -> None:
    one, two = shared + left, shared + right
    common = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    pairs = zip(block_hashes(one, 16, 0), block_hashes(two, 16, 0), strict=False)
    assert sum(a == b for a, b in pairs) == common // 16


def test_hashing_can_go_on_where_it_stopped() -> None:
    data = bytes(range(100))
    whole = block_hashes(data, 16, 5)
    assert whole[:2] + block_hashes(data[32:], 16, whole[1]) == whole


def test_another_root_shares_nothing() -> None:
    assert not set(block_hashes(bytes(64), 16, 1)) & set(block_hashes(bytes(64), 16, 2))


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 12), unique=True, max_size=4), st.booleans()), max_size=40), st.integers(5, 9)
)
def test_the_pool_equals_a_naive_model(wishes: list[tuple[list[int], bool]], size: int) -> None:
    pool = BlockPool(size)
    held: list[list[int]] = []
    free: list[int] = []  # cached blocks that nobody holds, the oldest first
    for blocks, release_one in wishes:
        if release_one and held:
            given_up = held.pop(0)
            pool.release(given_up, private=False)
            free += [b for b in reversed(given_up) if not any(b in other for other in held)]
        in_use = {b for group in held for b in group}
        fits = len(in_use | {*blocks}) <= size
        assert (pool.missing(blocks) <= pool.available) is fits
        if fits:
            pool.hold(blocks)
            held.append(blocks)
            for block in blocks:
                if block in free:
                    free.remove(block)
                elif block not in in_use:
                    free = free[1:] if len(in_use) + len(free) >= size else free
                in_use.add(block)
        assert pool.used == len(in_use)
        assert {b for b in range(13) if pool.match([b], 1)} == in_use | {*free}


def test_a_match_ends_at_the_first_gap_and_at_the_limit() -> None:
    pool = BlockPool(10)
    pool.hold([1, 2, 4])
    assert pool.match([1, 2, 3, 4], 10) == 2
    assert pool.match([1, 2], 1) == 1


def test_a_private_block_becomes_shared_when_full() -> None:
    pool = BlockPool(10)
    pool.hold_private()
    assert (pool.used, pool.cached) == (1, 0)
    pool.fill_private(7)
    assert (pool.used, pool.cached) == (1, 1)
    pool.release([7], private=False)
    assert (pool.used, pool.match([7], 1)) == (0, 1)
    pool.clear()
    assert pool.match([7], 1) == 0


def test_equal_full_blocks_of_two_sequences_become_one() -> None:
    pool = BlockPool(10)
    pool.hold([7])
    pool.hold_private()
    pool.fill_private(7)
    assert pool.used == 1
