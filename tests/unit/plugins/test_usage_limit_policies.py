"""static-usage-limit-, priority-holdback- and soft-reflective-ceiling-policy: how far each priority may fill the pool."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epp.framework.flow_control import UsageLimitPolicy
from epp.framework.testing import make_context, make_plugin
from plugins.flowcontrol import usage_limits
from tests.unit.flowcontrol.rig import Engine, Foreseen, band, named


def holdback(**parameters: Any) -> UsageLimitPolicy:
    made: Any = make_plugin(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.4, "maxCeiling": 0.9, **parameters})
    assert isinstance(made, UsageLimitPolicy)
    return made


def soft() -> UsageLimitPolicy:
    made: Any = make_plugin(usage_limits.SOFT_REFLECTIVE_CEILING)
    return made


@pytest.mark.parametrize(
    ("parameters", "priorities", "expected"),
    [
        pytest.param({}, [10, 0, -10], [0.9, 0.65, 0.4], id="flow 72, H24: by rank"),
        pytest.param({"domain": "value"}, [100, 0, -10], [0.9, 0.4454545, 0.4], id="flow 73: by value"),
        pytest.param({"domain": "value"}, [10, 5, -10], [0.9, 0.775, 0.4], id="H24: by value"),
        pytest.param({}, [0], [0.9], id="flow 75: a single priority"),
        pytest.param({"domain": "value"}, [0], [0.9], id="flow 75: the same by value"),
        pytest.param({"minCeiling": 0, "maxCeiling": 1}, [3, 2, 1, 0, -1], [1, 0.75, 0.5, 0.25, 0], id="the whole range"),
    ],
)
def test_holdback(parameters: dict[str, Any], priorities: Sequence[int], expected: Sequence[float]) -> None:
    assert holdback(**parameters).ceilings(0.5, priorities) == pytest.approx(expected)


def test_flow_74_a_band_at_its_ceiling_waits_and_none_is_refused() -> None:
    usage = named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.4, "maxCeiling": 0.9})
    engine = Engine(Foreseen(0.4), bands={10: band(), -10: band()}, usage=usage)
    arrivals = {priority: engine.arrive(priority=priority) for priority in (-10, 0, 10)}
    engine.timers.advance(10.0)
    assert {priority: arrival.waits for priority, arrival in arrivals.items()} == {-10: True, 0: False, 10: False}
    assert engine.outcomes() == {"Dispatched": 2}


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        pytest.param({}, "minCeiling", id="missing"),
        pytest.param({"minCeiling": 0.9, "maxCeiling": 0.9}, "below maxCeiling", id="nothing between"),
        pytest.param({"minCeiling": 0.5, "shape": "sigmoid"}, "linear", id="shape"),
    ],
)
def test_what_is_refused(parameters: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        make_plugin(usage_limits.PRIORITY_HOLDBACK, parameters)


def looks(policy: UsageLimitPolicy, saturation: float, count: int, calls: int) -> list[list[float]]:
    return [list(policy.ceilings(saturation, range(count, 0, -1))) for _ in range(calls)]


@pytest.mark.parametrize(
    ("saturation", "expected"),
    [
        pytest.param(0.7, [0, 1, 0, 1, 0, 1], id="flow 77: every second look"),
        pytest.param(0.75, [0, 0, 1, 0, 0, 1], id="flow 78: every third look"),
        pytest.param(0.6, [1, 1, 1, 1, 1, 1], id="always open"),
    ],
)
def test_the_lower_of_two_bands(saturation: float, expected: list[float]) -> None:
    assert [ceilings[1] for ceilings in looks(soft(), saturation, 2, 6)] == expected


def test_flow_79_bands_that_are_slowed_down_are_open_together() -> None:
    assert usage_limits.onsets(0.7, 4) == pytest.approx([1.0, 0.76667, 0.53333, 0.3], abs=1e-5)
    assert looks(soft(), 0.7, 4, 4) == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("saturation", "expected"), [(0.3, [1, 1, 1]), (1.0, [1, 0, 0])], ids=["flow 80: calm", "flow 80: full"]
)
def test_the_ends_of_the_range(saturation: float, expected: list[float]) -> None:
    assert looks(soft(), saturation, 3, 3) == [expected] * 3


def test_flow_80_a_full_pool_serves_nobody() -> None:
    engine = Engine(Foreseen(1.0), bands={10: band()}, usage=named(usage_limits.SOFT_REFLECTIVE_CEILING))
    arrival = engine.arrive(priority=10)
    engine.timers.advance(0.1)
    assert arrival.waits


def test_h25_three_bands_at_four_fifths() -> None:
    assert usage_limits.onsets(0.8, 3) == pytest.approx([1.0, 0.6, 0.2])
    assert looks(soft(), 0.8, 3, 8) == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]] * 2


def test_waiting_requests_get_their_looks_without_any_event() -> None:
    engine = Engine(Foreseen(0.75), bands={10: band()}, usage=named(usage_limits.SOFT_REFLECTIVE_CEILING))
    arrivals = [engine.arrive(priority=0) for _ in range(2)]
    assert [arrival.is_let_go for arrival in arrivals] == [False, False]
    engine.timers.advance(0.05)
    assert [arrival.is_let_go for arrival in arrivals] == [True, True]


@pytest.mark.parametrize(
    ("saturation", "expected"), [(0.5, 1), (0.6, 1), (0.7, 2), (0.75, 3), (0.8, 4), (0.9, 9), (0.99, 99)], ids=str
)
def test_periods(saturation: float, expected: int) -> None:
    assert usage_limits.period(saturation) == expected


def test_flow_81_at_the_threshold_a_band_is_stopped() -> None:
    usage = named(usage_limits.STATIC, {"threshold": 0.8})
    assert Engine(0.8, usage=usage).arrive().waits
    assert Engine(0.79, usage=usage).arrive().is_let_go


def test_a_threshold_above_1_is_suspicious() -> None:
    context = make_context()
    make_plugin(usage_limits.STATIC, {"threshold": 1.5}, context)
    assert [name for name, _ in context.warnings] == ["threshold"]


priorities = st.sets(st.integers(-50, 50), min_size=1, max_size=8).map(lambda found: sorted(found, reverse=True))
ceilings = st.floats(0.0, 0.99, allow_nan=False)


@given(priorities, ceilings, st.floats(0.01, 1.0), st.sampled_from(["rank", "value"]))
def test_i20_ceilings_fall_from_the_highest_to_the_lowest(found: list[int], low: float, high: float, domain: str) -> None:
    if low >= high:
        low, high = min(low, high) / 2, max(low, high, 0.01)
    made = holdback(minCeiling=low, maxCeiling=high, domain=domain).ceilings(0.5, found)
    assert all(upper >= lower for upper, lower in pairwise(made))
    assert made[0] == pytest.approx(high)
    assert len(found) == 1 or made[-1] == pytest.approx(low, abs=1e-9)
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in made)


@given(st.floats(0, 3, allow_nan=False), st.integers(1, 8))
def test_i20_soft_ceilings_never_rise(saturation: float, count: int) -> None:
    for made in looks(soft(), saturation, count, 4):
        assert all(upper >= lower for upper, lower in pairwise(made))
        assert made[0] == 1.0


@given(st.floats(0.5, 0.97), st.integers(2, 6), st.integers(1, 5))
def test_i21_bands_that_are_slowed_down_are_open_once_in_a_period(saturation: float, count: int, rounds: int) -> None:
    made = looks(soft(), saturation, count, rounds * usage_limits.period(saturation))
    slowed = [i for i, onset in enumerate(usage_limits.onsets(saturation, count)) if i and saturation >= onset]
    for look in made:
        assert len({look[i] for i in slowed}) <= 1, "all agree"
    for i in slowed:
        assert sum(look[i] for look in made) == rounds
