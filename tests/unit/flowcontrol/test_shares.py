"""Minimum shares: every band that has one is served, however much waits above it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.flowcontrol import usage_limits
from tests.unit.flowcontrol.rig import Engine, Foreseen, band, named


def served(engine: Engine, count: int) -> Counter[int]:
    """How many of each priority are among the next ``count``, while something of all priorities waits."""
    found: Counter[int] = Counter()
    priorities = engine.control.bands.priorities
    for _ in range(count):
        for priority in priorities:
            while engine.control.bands.of(priority, 0.0).count < 2:
                engine.arrive(f"{priority}/x", priority=priority)
        before = len(engine.order)
        engine.level(0.0)
        engine.timers.settle()
        engine.level(1.0)
        engine.timers.advance(0.001)
        found.update(int(name.partition("/")[0]) for name in engine.order[before:])
    return found


def crowd(shares: dict[int, float], **more: object) -> Engine:
    """Bands with these shares; of each many requests wait."""
    engine = Engine(Foreseen(1.0), bands={priority: band(min_share=share) for priority, share in shares.items()}, **more)  # type: ignore[arg-type]
    for priority in engine.control.bands.priorities:
        for _ in range(3):
            engine.arrive(f"{priority}/x", priority=priority)
    return engine


def test_without_shares_the_highest_gets_all() -> None:
    assert served(crowd({10: 0.0, 0: 0.0, -10: 0.0}), 50) == {10: 50}


def test_a_share_is_served_and_the_rest_stays_strict() -> None:
    engine = crowd({10: 0.0, 0: 0.2, -10: 0.1})
    served(engine, 10)  # what is owed at first is not a whole request
    assert served(engine, 100) == {10: 70, 0: 20, -10: 10}


def test_a_share_counts_only_while_requests_wait() -> None:
    engine = Engine(Foreseen(1.0), bands={10: band(), 0: band(min_share=0.5)})
    for _ in range(20):
        engine.arrive("10/x", priority=10)
    engine.level(0.0)
    engine.timers.advance(0.0101)
    engine.level(1.0)
    engine.timers.settle()
    assert engine.control.bands.count > 5
    for _ in range(6):
        engine.arrive("0/x", priority=0)
    before = len(engine.order)
    engine.level(0.0)
    engine.timers.advance(0.0051)
    expected = ["10/x", "10/x", "0/x", "10/x", "0/x"]
    assert engine.order[before : before + 5] == expected, "nothing is owed for earlier times"


def test_a_share_is_served_up_to_the_ceiling_of_the_highest_band() -> None:
    holdback = named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.2})
    engine = Engine(Foreseen(1.0), bands={10: band(), 0: band(min_share=0.25)}, usage=holdback)
    for priority in (10, 0):
        for _ in range(8):
            engine.arrive(f"{priority}/x", priority=priority)
    engine.level(0.9)
    engine.timers.advance(0.0089)
    assert Counter(engine.order) == {"10/x": 7, "0/x": 2}
    engine.level(1.0)
    engine.timers.advance(1.0)
    assert len(engine.order) == 9, "a full pool serves nobody"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=5),
    st.integers(20, 120),
)
def test_every_band_with_a_share_progresses(weights: list[int], count: int) -> None:
    """Over any number of requests let go a band gets its share, less a bounded rest."""
    total = max(sum(weights), 20)
    shares = {10 * (len(weights) - i): weight / total for i, weight in enumerate(weights)}
    found = served(crowd(shares), count)
    assert sum(found.values()) == count
    sharing = sum(1 for share in shares.values() if share)
    for priority, share in shares.items():
        assert found[priority] >= int(share * count) - (sharing + 1)
        if share * count >= sharing + 2:
            assert found[priority] > 0


@pytest.mark.parametrize("first", [0, -10])
def test_who_is_owed_most_is_first(first: int) -> None:
    shares = {10: 0.0, 0: 0.1, -10: 0.1, first: 0.5}
    found = served(crowd(shares), 20)
    assert found[first] >= 9
