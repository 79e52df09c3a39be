"""The formulas that weigh endpoints by headroom."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.latency.weights import Blend, CompositeBlend, composite, inverted, negative, positive

SHARES = Blend(0.8, 0.2).shares()


@pytest.mark.parametrize(
    ("headrooms", "shares", "least", "expected"),
    [
        pytest.param([(100, 5), (300, 15), (200, 15)], SHARES, True, [101, 2, 41], id="C37 least"),
        pytest.param([(100, 5), (300, 15), (200, 15)], SHARES, False, [2, 100, 61], id="C37 most"),
        pytest.param([(100, 0), (300, 0)], (1.0, 0.0), True, [101, 2], id="first token alone"),
        pytest.param([(100, 5), (100, 5)], SHARES, True, [51, 51], id="all alike are in the middle"),
        pytest.param([(100, 5), (100, 15)], SHARES, True, [61, 41], id="only one latency differs"),
        pytest.param([(70, 7)], SHARES, False, [51], id="one"),
        pytest.param([], SHARES, True, [], id="none"),
    ],
)
def test_positive(headrooms: list[tuple[float, float]], shares: tuple[float, float], least: bool, expected: list[int]) -> None:
    assert positive([a for a, _ in headrooms], [b for _, b in headrooms], shares, least=least) == expected


@pytest.mark.parametrize(
    ("headrooms", "expected"),
    [
        pytest.param([(-50, -5), (-150, -5), (-100, -10)], [82, 18, 34], id="C38 both missed"),
        pytest.param([(-50, 0), (-150, 0)], [82, 18], id="first token missed"),
        pytest.param([(5, -5), (5, -15)], [82, 66], id="further tokens missed"),
        pytest.param([(-50, -5), (-900, 1)], [82, 82], id="each bucket is normalised for itself"),
        pytest.param([(5, 5), (-50, -5)], [1, 82], id="without deficit"),
        pytest.param([], [], id="none"),
    ],
)
def test_negative(headrooms: list[tuple[float, float]], expected: list[int]) -> None:
    assert negative([a for a, _ in headrooms], [b for _, b in headrooms], SHARES) == expected


@pytest.mark.parametrize(
    ("rows", "blend", "expected"),
    [
        pytest.param(
            [(0, 0.2, 0.5), (4, 0.5, 0), (2, 0.1, 1)],
            CompositeBlend(1, 1, 1),
            [77, 18, 80],
            id="C39 queue, KV cache and prefix",
        ),
        pytest.param([(0, 0.2, 0.5), (4, 0.5, 0)], CompositeBlend(0, 0, 0), [80, 50], id="all 0: free KV cache"),
        pytest.param([(3, 1, 0), (3, 1, 0)], CompositeBlend(0, 5, 0), [100, 100], id="equal queues"),
        pytest.param([(0, 0, 0.25)], CompositeBlend(0, 0, 2), [26], id="prefix alone"),
        pytest.param([], CompositeBlend(1, 1, 1), [], id="none"),
    ],
)
def test_composite(rows: list[tuple[int, float, float]], blend: CompositeBlend, expected: list[int]) -> None:
    columns = [[row[i] for row in rows] for i in range(3)]
    queue = [int(waiting) for waiting in columns[0]]
    assert composite(queue, columns[1], columns[2], blend.shares()) == expected


def test_the_composite_is_inverted_within_its_bounds() -> None:
    assert inverted([77, 18, 80, 1, 100]) == [24, 83, 21, 100, 1]


@pytest.mark.parametrize(
    ("blend", "expected"),
    [
        pytest.param(Blend(0.8, 0.2), (0.8, 0.2), id="as they are"),
        pytest.param(Blend(8, 2), (0.8, 0.2), id="only their relation counts"),
        pytest.param(Blend(0, 0), (1.0, 0.0), id="both 0: first token"),
        pytest.param(Blend(0, 3), (0.0, 1.0), id="further tokens alone"),
    ],
)
def test_shares(blend: Blend, expected: tuple[float, float]) -> None:
    assert blend.shares() == pytest.approx(expected)


headrooms = st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=8)


@given(headrooms, st.floats(0, 1), st.integers(0, 9))
def test_weights_are_positive_bounded_and_permute(pairs: list[tuple[float, float]], share: float, seed: int) -> None:
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    shares = (share, 1.0 - share)
    ttft, tpot = [a for a, _ in pairs], [b for _, b in pairs]
    moved_ttft, moved_tpot = [ttft[i] for i in order], [tpot[i] for i in order]
    for least in (True, False):
        found = positive(ttft, tpot, shares, least=least)
        assert all(2 <= weight <= 101 for weight in found)
        assert positive(moved_ttft, moved_tpot, shares, least=least) == [found[i] for i in order]
    found = negative(ttft, tpot, shares)
    assert all(1 <= weight <= 82 for weight in found)
    assert negative(moved_ttft, moved_tpot, shares) == [found[i] for i in order]
