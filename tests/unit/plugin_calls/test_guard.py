"""Slow plugins are left out for a while; pauses of the process are nobody's fault."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.testing import FakeClock
from epp.plugin_calls.guard import BUDGET_S, ONE_IN, OVERRUNS, SKIP_S, UNGUARDED, WINDOW_S, Guard

SLOW = 2 * BUDGET_S
QUICK = BUDGET_S / 2


class Watched:
    """A plugin whose calls take as long as told, called as the profile and the hooks do."""

    def __init__(self, *, may_skip: bool = True) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.guard = Guard(self, may_skip=may_skip, clock=self.clock)

    def overran(self) -> None:
        self.events.append("overran")

    def skipped(self) -> None:
        self.events.append("skipped")

    def put_out(self, elapsed_s: float) -> None:
        self.events.append("put out")

    def taken_back(self) -> None:
        self.events.append("taken back")

    def stays_slow(self, elapsed_s: float) -> None:
        self.events.append("stays slow")

    def call(self, elapsed_s: float) -> bool:
        """Whether the plugin was called."""
        guard = self.guard
        if guard.is_out and guard.refuses():
            return False
        guard.calls += 1
        self.clock.advance(elapsed_s)
        if elapsed_s > guard.limit_s:
            guard.exceeded(elapsed_s)
        return True

    def happened(self) -> list[str]:
        """The events since the last look, without single overruns."""
        events, self.events = self.events, []
        return [event for event in events if event != "overran"]


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def out() -> Watched:
    """A plugin that was put out just now."""
    watched = Watched()
    for _ in range(OVERRUNS):
        watched.call(SLOW)
    assert watched.happened() == ["put out"]
    return watched


def test_the_budget_itself_is_in_time(watched: Watched) -> None:
    for _ in range(100):
        watched.call(BUDGET_S)
    assert watched.events == []


def test_each_overrun_is_counted_and_some_do_no_harm(watched: Watched) -> None:
    for _ in range(OVERRUNS - 1):
        watched.call(SLOW)
    assert watched.events == ["overran"] * (OVERRUNS - 1)
    assert not watched.guard.is_out


@pytest.mark.parametrize(
    ("pause_s", "calls_between", "is_out"),
    [
        pytest.param(0.0, 0, True, id="one after the other"),
        pytest.param(WINDOW_S / OVERRUNS, 0, True, id="just within the window"),
        pytest.param(WINDOW_S / (OVERRUNS - 1), 0, False, id="spread over more than the window"),
        pytest.param(0.0, ONE_IN - 1, True, id="every tenth call"),
        pytest.param(0.0, 2 * ONE_IN, False, id="rare among quick calls"),
    ],
)
def test_five_overruns_put_a_plugin_out_if_they_are_near_and_not_rare(
    watched: Watched, pause_s: float, calls_between: int, is_out: bool
) -> None:
    for _ in range(OVERRUNS):
        for _ in range(calls_between):
            watched.call(0.0)
        watched.call(SLOW)
        watched.clock.advance(pause_s)
    assert watched.guard.is_out == is_out
    assert watched.happened() == (["put out"] if is_out else [])


def test_what_requests_cannot_do_without_is_only_reported() -> None:
    watched = Watched(may_skip=False)
    for _ in range(2 * OVERRUNS):
        assert watched.call(SLOW)
    assert watched.happened() == ["stays slow", "stays slow"]


def test_calls_are_left_out_until_the_trial(out: Watched) -> None:
    assert not out.call(QUICK)
    out.clock.advance(SKIP_S - 0.001)
    assert not out.call(QUICK)
    out.clock.advance(0.001)
    assert out.call(QUICK)
    assert out.happened() == ["skipped", "skipped", "taken back"]
    assert not out.guard.is_out


def test_a_slow_trial_keeps_it_out(out: Watched) -> None:
    out.clock.advance(SKIP_S)
    assert out.call(SLOW)
    assert not out.call(QUICK)
    assert out.happened() == ["put out", "skipped"]
    out.clock.advance(SKIP_S)
    assert out.call(QUICK)
    assert out.happened() == ["taken back"]


def test_after_a_good_trial_it_has_all_its_chances_again(out: Watched) -> None:
    out.clock.advance(SKIP_S)
    out.call(QUICK)
    for _ in range(OVERRUNS - 1):
        assert out.call(SLOW)
    assert not out.guard.is_out
    out.call(SLOW)
    assert out.guard.is_out


def test_a_trial_is_one_call_even_while_it_lasts(out: Watched) -> None:
    out.clock.advance(SKIP_S)
    assert not out.guard.refuses()
    assert out.guard.refuses(), "the first one is still running"
    out.guard.check(QUICK)
    assert not out.guard.is_out


def test_a_call_that_began_before_is_no_trial(out: Watched) -> None:
    out.guard.check(SLOW)
    assert out.happened() == []
    assert out.guard.is_out


def test_a_trial_that_never_ends_is_followed_by_another(out: Watched) -> None:
    out.clock.advance(SKIP_S)
    assert not out.guard.refuses()
    out.clock.advance(SKIP_S)
    assert not out.guard.refuses()


def test_unguarded_plugins_are_never_out() -> None:
    UNGUARDED.check(1e9)
    assert not UNGUARDED.is_out
    assert UNGUARDED.limit_s > 1e9


@given(st.lists(st.tuples(st.sampled_from([0.0, QUICK, SLOW, 1.0]), st.floats(0, 60)), max_size=200))
def test_a_quick_plugin_always_comes_back(calls: Sequence[tuple[float, float]]) -> None:
    watched = Watched()
    for elapsed_s, pause_s in calls:
        watched.call(elapsed_s)
        watched.clock.advance(pause_s)
    watched.clock.advance(SKIP_S)
    assert watched.call(QUICK)
    assert not watched.guard.is_out
    assert watched.guard.limit_s == BUDGET_S
