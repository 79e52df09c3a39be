"""Ending running requests for waiting ones: who, how many, how often, and each exactly once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.flowcontrol.settings import EvictionSettings
from tests.unit.flowcontrol.rig import EVICTION, Arrival, Engine, Foreseen, double

GRACE_S = EVICTION.grace_s


def crowded(level: float, running: dict[int, int], **more: Any) -> Engine:
    """A pool in which so many requests of each priority run."""
    engine = Engine(Foreseen(0.0), eviction=EVICTION, **more)
    for priority, count in running.items():
        for i in range(count):
            engine.arrive(f"{priority}/{i}", priority=priority)
            engine.timers.advance(0.01)
    engine.level(level)
    return engine


def end(engine: Engine, name: str) -> None:
    """The stream of an ended request ends."""
    (arrival,) = [arrival for arrival in engine.arrivals if arrival.name == name]
    arrival.completes()


def test_flow_84_a_pool_that_is_just_full_ends_one() -> None:
    engine = crowded(1.0, {0: 30, -1: 10})
    engine.arrive(priority=0)
    assert engine.evicted == ["-1/9"], "the newest"
    assert engine.metric("revocations_issued_total", priority="0") == 1
    assert engine.metric("reclaim_target") == 0
    assert engine.metric("pending_reclaim") == pytest.approx(1 / 40)


def test_flow_85_never_more_than_two_at_once() -> None:
    engine = crowded(1.1, {0: 30, -1: 10})
    engine.arrive(priority=0)
    assert engine.evicted == ["-1/9", "-1/8"]
    assert engine.metric("reclaim_target") == pytest.approx(0.1)


def test_flow_86_only_lower_priorities_are_ended() -> None:
    engine = crowded(1.1, {0: 30, -1: 1, -5: 1})
    engine.arrive(priority=-3)
    assert engine.evicted == ["-5/0"]


def test_flow_87_nobody_is_ended_for_an_equal() -> None:
    engine = crowded(1.1, {-5: 3})
    engine.arrive(priority=-5)
    assert engine.evicted == []


def test_flow_88_no_decision_before_the_last_one_shows() -> None:
    engine = crowded(1.0, {0: 30, -1: 10})
    begun_s = engine.clock.now_s
    engine.arrive(priority=0)
    engine.timers.advance(0.3)
    end(engine, "-1/9")
    engine.timers.advance(begun_s + 0.3 + GRACE_S - 0.001 - engine.clock.now_s)
    engine.arrive(priority=0)
    assert len(engine.evicted) == 1
    engine.timers.advance(0.01)
    assert len(engine.evicted) == 2, "without any event"
    assert engine.metric("revocations_total", outcome="confirmed") == 1
    assert engine.metric("revocation_confirmation_seconds_sum") == pytest.approx(0.3)


def test_flow_88_a_stream_that_does_not_end_counts_as_over_after_ten_seconds() -> None:
    engine = crowded(1.0, {0: 30, -1: 10})
    engine.arrive(priority=0)
    engine.timers.advance(10.0 + GRACE_S - 0.01)
    assert len(engine.evicted) == 1
    engine.timers.advance(0.05)
    assert len(engine.evicted) == 2
    assert engine.metric("revocations_total", outcome="timed_out") == 1
    end(engine, "-1/9")
    assert engine.metric("revocations_total", outcome="confirmed") is None, "one outcome each"


def test_a_reload_without_eviction_counts_those_that_were_ended_before() -> None:
    engine = crowded(1.1, {0: 30, -1: 10})
    engine.arrive(priority=0)
    engine.control.use(replace(engine.settings, eviction=None))
    end(engine, "-1/9")
    engine.control.use(engine.settings)
    end(engine, "-1/8")
    assert engine.metric("revocations_issued_total", priority="0") == 2
    assert engine.metric("revocations_total", outcome="timed_out") == 2


def test_flow_90_a_ceiling_of_0_ends_nobody() -> None:
    class Closed:
        needs_ticks = False

        def ceilings(self, saturation: float, priorities: list[int]) -> list[float]:
            return [0.0] * len(priorities) if saturation else [1.0] * len(priorities)

    engine = crowded(1.0, {-1: 10}, usage=double(Closed()))
    engine.arrive(priority=0)
    assert engine.evicted == []


def test_i23_decisions_follow_each_other_only_when_the_last_is_over() -> None:
    engine = crowded(1.5, {0: 10, -1: 10, -2: 10})
    for _ in range(20):
        engine.arrive(priority=0)
    seen = 0
    quiet_until_s = 0.0
    for _ in range(200):
        new = engine.evicted[seen:]
        if new:
            assert len(new) <= 2
            assert engine.clock.now_s >= quiet_until_s
            seen += len(new)
            engine.timers.advance(0.3)
            assert engine.evicted[seen:] == [], "their streams have not ended"
            for name in new:
                end(engine, name)
            quiet_until_s = engine.clock.now_s + GRACE_S
        engine.timers.advance(0.1)
    assert seen == 18, "as many decisions as fit"
    assert engine.evicted[0].startswith("-2/"), "the lowest priority first"
    assert len(engine.evicted) == len(set(engine.evicted))
    assert engine.metric("revocations_total", outcome="confirmed") == len(engine.evicted)


def test_who_has_ended_by_himself_is_not_ended() -> None:
    engine = crowded(1.1, {0: 30, -1: 3})
    end(engine, "-1/2")
    engine.arrive(priority=0)
    assert engine.evicted == ["-1/1", "-1/0"]


def test_nobody_is_ended_while_higher_bands_have_no_demand() -> None:
    engine = crowded(0.0, {0: 30, -1: 3})
    engine.timers.advance(10.0)
    assert engine.evicted == []


def test_an_empty_pool_ends_nobody() -> None:
    engine = crowded(0.0, {-1: 3})
    engine.scale(0)
    engine.arrive(priority=0)
    engine.timers.advance(5.0)
    assert engine.evicted == []


@pytest.mark.parametrize("broken", ["filter", "order"])
def test_a_failing_policy_protects_the_request(broken: str) -> None:
    class Broken:
        def may_evict(self, running: object) -> bool:
            raise ZeroDivisionError("no word")

        def sort_key(self, running: object) -> tuple[float, float]:
            raise ZeroDivisionError("no word")

    policies = {"filter": EVICTION.filter, "order": EVICTION.order, broken: double(Broken(), "broken")}
    engine = Engine(0.0, eviction=EvictionSettings(**policies, grace_s=1.0))
    engine.arrive(priority=-1)
    engine.level(1.0)
    engine.arrive(priority=0)
    assert engine.evicted == []
    assert engine.reports.seen[0][1:] == ("broken", "no word")


def test_many_that_ended_take_no_memory() -> None:
    engine = Engine(Foreseen(0.0), eviction=EVICTION)
    for _ in range(1000):
        arrival: Arrival = engine.arrive(priority=-1)
        arrival.completes()
    assert engine.control.evictor is not None
    assert len(engine.control.evictor._heap) < 200
    assert engine.control.evictor.state() == {"running": 0, "evictable": 0, "outstanding": 0}
