"""Requests that wait: limits, strict priority, flows, order, and what a failing policy means."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest

from epp.flowcontrol.queues import MIN_DEAD
from epp.framework.flow_control import SortKey, WaitingRequest
from plugins.flowcontrol import ordering
from tests.unit.flowcontrol.rig import TTL_HEADER, Engine, Foreseen, band, double, named

FULL = 1.0


def test_flow_34_with_room_a_request_passes_within_the_call() -> None:
    engine = Engine(0.0)
    arrival = engine.arrive()
    assert arrival.is_let_go
    assert engine.metric("queue_size", fairness_id="default-flow") == 0
    assert engine.outcomes() == {"Dispatched": 1}
    assert engine.metric("request_queue_duration_seconds_count", outcome="Dispatched") == 1
    assert engine.metric("request_enqueue_duration_seconds_count", outcome="NotYetFinalized") == 1


def test_flow_35_a_full_band_refuses_the_newcomer() -> None:
    engine = Engine(FULL, template=band(max_requests=3))
    waiting = [engine.arrive() for _ in range(3)]
    fourth = engine.arrive()
    assert all(arrival.waits for arrival in waiting)
    assert fourth.refusal == (429, "rejected-saturated")
    assert engine.outcomes() == {"RejectedCapacity": 1}
    assert engine.metric("capacity_utilization_requests", priority="0") == 1
    assert engine.metric("queue_size") == 3


def test_flow_36_a_client_that_leaves_makes_room_at_once() -> None:
    engine = Engine(FULL, template=band(max_requests=3))
    first, *_ = [engine.arrive() for _ in range(3)]
    first.leaves()
    assert engine.arrive().waits
    assert engine.outcomes() == {"EvictedContextCancelled": 1}


def test_flow_37_a_full_band_of_an_empty_pool() -> None:
    engine = Engine(endpoints=0, template=band(max_requests=3))
    for _ in range(3):
        assert engine.arrive().waits
    assert engine.arrive().refusal == (503, "rejected-no-endpoints")
    assert engine.outcomes() == {"RejectedNoEndpoints": 1}


def test_flow_38_bytes_may_fill_a_band_exactly() -> None:
    engine = Engine(FULL, template=band(max_bytes=100))
    assert engine.arrive(size=60).waits
    assert engine.arrive(size=40).waits
    assert engine.arrive(size=1).refusal == (429, "rejected-saturated")
    assert engine.metric("capacity_utilization_bytes", priority="0") == 1
    assert engine.metric("queue_bytes") == 100


@pytest.mark.parametrize("limits", [{"max_requests": 2}, {"max_bytes": 2}], ids=["requests", "bytes"])
def test_flow_39_nothing_is_displaced_for_a_higher_priority(limits: dict[str, int]) -> None:
    engine = Engine(FULL, bands={10: band()}, **limits)
    low = [engine.arrive(priority=0) for _ in range(2)]
    assert engine.arrive(priority=10).refusal == (429, "rejected-saturated")
    assert all(arrival.waits for arrival in low)
    assert engine.metric(f"global_capacity_utilization_{next(iter(limits)).removeprefix('max_')}") == 1


def test_flow_40_a_body_larger_than_its_band_is_refused_by_an_idle_pool() -> None:
    engine = Engine(0.0)
    assert engine.arrive(size=2**31).refusal == (429, "rejected-saturated")


@pytest.mark.parametrize("limits", [{"max_flow_requests": 2}, {"max_flow_bytes": 2}], ids=["requests", "bytes"])
@pytest.mark.parametrize("rr", [False, True], ids=["one queue", "round robin"])
def test_one_flow_cannot_fill_its_band(limits: dict[str, int], rr: bool) -> None:
    engine = Engine(FULL, template=band(rr=rr, **limits))
    assert [engine.arrive(flow="noisy").waits for _ in range(3)] == [True, True, False]
    assert engine.arrive(flow="quiet").waits


def test_flow_41_the_higher_priority_goes_first() -> None:
    engine = Engine(FULL)
    engine.arrive("low", priority=0)
    engine.arrive("high", priority=10)
    assert engine.drain() == ["high", "low"]


def test_flow_42_a_priority_that_nobody_configured_begins_by_the_template() -> None:
    engine = Engine(FULL, template=band(max_requests=1))
    assert engine.arrive(priority=7).waits
    assert engine.arrive(priority=7).refusal == (429, "rejected-saturated")
    assert engine.arrive(priority=8).waits
    assert engine.control.bands.priorities == [8, 7, 0]


def test_flow_43_negative_priorities_have_a_template_of_their_own() -> None:
    engine = Engine(FULL, negative_template=band(max_requests=2))
    low = [engine.arrive(f"low{i}", priority=-3) for i in range(3)]
    assert [arrival.waits for arrival in low] == [True, True, False]
    engine.arrive("normal", priority=0)
    assert engine.drain() == ["normal", "low0", "low1"], "it is never served as priority 0"


def test_flow_44_round_robin_takes_turns() -> None:
    engine = Engine(FULL, template=band(rr=True))
    for flow in "aaabcc":
        engine.arrive(flow, flow=flow)
    assert engine.drain() == list("abcaca")


def test_flow_45_round_robin_goes_on_behind_a_flow_that_is_gone() -> None:
    engine = Engine(Foreseen(FULL), template=band(rr=True))
    for flow in "abc":
        engine.arrive(flow, flow=flow)
    engine.level(0.0)
    engine.timers.turn()
    engine.timers.advance(0.001)
    assert engine.order == ["a", "b"]
    engine.level(FULL)
    engine.timers.settle()
    assert set(engine.control.bands.ordered[0].flows) == {"c"}
    engine.arrive("a2", flow="a")
    assert engine.drain() == ["c", "a2"]


def test_flow_46_global_strict_is_one_queue_for_all_flows() -> None:
    engine = Engine(FULL)
    for flow in "xyyx":
        engine.arrive(flow, flow=flow)
        engine.timers.advance(0.01)
    assert engine.drain() == list("xyyx")


@pytest.mark.parametrize("rr", [False, True], ids=["one queue", "round robin"])
def test_flow_47_equal_times_go_in_the_order_of_arrival(rr: bool) -> None:
    engine = Engine(FULL, template=band(rr=rr))
    names = [engine.arrive().name for _ in range(5)]
    assert engine.drain() == names


def test_flow_55_a_policy_that_fails_costs_its_band_a_cycle_and_no_other() -> None:
    class Broken:
        by_flow = True

        def new_turns(self) -> Broken:
            return self

        def begin(self, flow: object) -> None: ...
        def cease(self, flow: object) -> None: ...
        def next(self, now_s: float) -> None:
            raise ZeroDivisionError("no idea")

    engine = Engine(FULL, bands={10: band(fairness=double(Broken(), "broken"))})
    engine.arrive("stuck", priority=10)
    engine.arrive("served", priority=0)
    engine.level(0.0)
    engine.timers.advance(0.1)
    assert engine.order == ["served"]
    assert ("FairnessPolicy", "broken", "no idea") in engine.reports.seen
    engine.control.stop()
    assert engine.outcomes() == {"Dispatched": 1, "EvictedOther": 1}


def test_a_policy_that_chooses_a_flow_that_does_not_wait_is_reported() -> None:
    class Invents:
        by_flow = True
        id = "nobody"

        def new_turns(self) -> Invents:
            return self

        def begin(self, flow: object) -> None: ...
        def cease(self, flow: object) -> None: ...
        def next(self, now_s: float) -> Invents:
            return self

    engine = Engine(FULL, template=band(fairness=double(Invents(), "invents")))
    arrival = engine.arrive()
    engine.level(0.0)
    engine.timers.settle()
    assert arrival.waits
    assert engine.reports.seen[-1][2] == "chose the flow 'nobody', of which nothing waits"


@pytest.mark.parametrize("chosen", ["a name", ["a list"]])
def test_a_policy_that_chooses_what_is_no_flow_costs_only_its_band_a_cycle(chosen: object) -> None:
    class Confused:
        by_flow = True
        id = chosen

        def new_turns(self) -> Confused:
            return self

        def begin(self, flow: object) -> None: ...
        def cease(self, flow: object) -> None: ...
        def next(self, now_s: float) -> object:
            return chosen if isinstance(chosen, str) else self

    engine = Engine(FULL, bands={10: band(fairness=double(Confused(), "confused"))})
    stuck = engine.arrive(priority=10)
    engine.level(0.0)
    engine.timers.settle()
    assert stuck.waits
    assert engine.arrive("served").is_let_go
    assert engine.reports.seen[0][:2] == ("FairnessPolicy", "confused")


@pytest.mark.parametrize("key", [(float("nan"), 0.0), ZeroDivisionError("no key"), 7], ids=["NaN", "raises", "no pair"])
def test_a_failing_ordering_policy_counts_as_first_come_first_served(key: object) -> None:
    class Broken:
        def sort_key(self, waiting: WaitingRequest) -> SortKey:
            if isinstance(key, Exception):
                raise key
            return key  # type: ignore[return-value]  # what a plugin must not return

    engine = Engine(FULL, template=band(ordering=double(Broken(), "broken")))
    names = [engine.arrive().name for _ in range(3)]
    assert engine.drain() == names
    assert {report[:2] for report in engine.reports.seen} == {("OrderingPolicy", "broken")}


def test_a_failing_detector_counts_as_a_full_pool() -> None:
    class Broken:
        def saturation(self, candidates: object) -> float:
            raise ZeroDivisionError("no level")

    engine = Engine(Broken())
    assert engine.arrive().waits
    assert ("SaturationDetector", "detector", "no level") in engine.reports.seen


def test_a_number_that_is_none_counts_as_a_full_pool() -> None:
    engine = Engine(float("nan"))
    assert engine.arrive().waits
    assert engine.reports.seen[0][2] == "gave nan, which is no saturation"


@pytest.mark.parametrize(
    ("ceilings", "expected"),
    [
        pytest.param([0.5, 0.9], [0.5, 0.5], id="rising"),
        pytest.param([1.0], [1.0, 1.0], id="too few"),
        pytest.param([float("nan"), 0.5], [1.0, 0.5], id="NaN first"),
        pytest.param(ZeroDivisionError("none"), [1.0, 1.0], id="raises"),
    ],
)
def test_ceilings_that_break_the_contract_are_put_right(ceilings: object, expected: list[float]) -> None:
    class Broken:
        needs_ticks = False

        def ceilings(self, saturation: float, priorities: object) -> object:
            if isinstance(ceilings, Exception):
                raise ceilings
            return ceilings

    engine = Engine(0.3, usage=double(Broken(), "broken"), bands={10: band()})
    assert engine.arrive().is_let_go
    assert [engine.control.ceiling(each) for each in engine.control.bands.ordered] == expected
    assert {report[:2] for report in engine.reports.seen} == {("UsageLimitPolicy", "broken")}


def test_a_ceiling_that_is_no_number_counts_as_1() -> None:
    class Broken:
        needs_ticks = False

        def ceilings(self, saturation: float, priorities: object) -> object:
            return ["full"]

    engine = Engine(0.3, usage=double(Broken(), "broken"))
    assert engine.arrive().is_let_go
    assert {report[:2] for report in engine.reports.seen} == {("UsageLimitPolicy", "broken")}


def test_a_request_knows_how_many_were_ahead_of_it() -> None:
    engine = Engine(FULL, bands={10: band()})
    arrivals = [engine.arrive(priority=priority) for priority in (0, 0, 10, 0, 10)]
    assert [arrival.ticket.ahead for arrival in arrivals if arrival.ticket] == [0, 1, 0, 3, 1]


def test_those_who_left_take_no_memory() -> None:
    engine = Engine(FULL, template=band(rr=True))
    stays = [engine.arrive(flow="f") for _ in range(10)]
    for _ in range(20 * MIN_DEAD):
        engine.arrive(flow="f", headers={TTL_HEADER: "1h"}).leaves()
    flow = engine.control.bands.ordered[0].flows["f"]
    assert len(flow.queue._heap) <= 10 + 2 * MIN_DEAD
    assert len(engine.control.deadlines._heap) <= 2 * MIN_DEAD + 1
    assert engine.drain() == [arrival.name for arrival in stays]


@pytest.mark.parametrize("rr", [False, True])
def test_bodies_of_those_who_are_gone_are_freed_at_once(rr: bool) -> None:
    engine = Engine(FULL, template=band(rr=rr, ttl_s=60.0), bands={10: band(ttl_s=60.0)})
    engine.arrive()
    left = [engine.arrive() for _ in range(MIN_DEAD // 2)]
    served = [engine.arrive(priority=10) for _ in range(MIN_DEAD // 2)]
    headers = [weakref.ref(arrival.request.headers) for arrival in (*left, *served)]
    engine.level(0.0)
    engine.timers.advance(MIN_DEAD // 2 * 0.001)
    engine.level(FULL)
    for arrival in left:
        arrival.leaves()
    for arrival in served:
        arrival.completes()
    del engine.arrivals[1:], left, served, arrival
    assert engine.control.bands.count == 1
    assert not any(each() for each in headers)


def test_what_waits_stays_when_the_configuration_is_replaced() -> None:
    engine = Engine(FULL, bands={5: band()}, template=band(ttl_s=10))
    for flow in "aab":
        engine.arrive(flow, flow=flow)
    engine.arrive("five", priority=5)
    newer = band(rr=True, ordering=named(ordering.EDF), ttl_s=1)
    settings = type(engine.settings)(engine.settings.detector, engine.settings.usage, newer, newer, max_requests=4)
    engine.control.use(settings)
    engine.timers.advance(5)
    assert all(arrival.waits for arrival in engine.arrivals), "with their deadlines"
    assert engine.arrive().refusal == (429, "rejected-saturated"), "new limits hold"
    assert engine.drain() == ["five", "a", "b", "a"], "in the order of the new policies"


def test_turns_go_on_where_they_were_when_other_settings_are_replaced() -> None:
    rr = band(rr=True)
    engine = Engine(FULL, template=rr)
    for flow in "aaabbbccc":
        engine.arrive(flow, flow=flow)
    engine.level(0.0)
    engine.timers.advance(0.001)
    engine.level(FULL)
    begun = list(engine.order)
    newer = replace(rr, max_requests=7, ordering=named(ordering.EDF))
    engine.control.use(replace(engine.settings, template=newer, negative_template=newer))
    assert engine.arrive().refusal == (429, "rejected-saturated"), "new limits hold"
    assert begun + engine.drain() == list("abcabcabc")


def test_requests_that_wait_are_put_in_the_order_of_another_policy() -> None:
    fcfs = band(ttl_s=60.0)
    engine = Engine(FULL, template=fcfs)
    for name, ttl in (("third", "30s"), ("first", "10s"), ("gone", "5s"), ("second", "20s")):
        engine.arrive(name, headers={TTL_HEADER: ttl})
    engine.arrivals[2].leaves()
    newer = replace(fcfs, ordering=named(ordering.EDF))
    engine.control.use(replace(engine.settings, template=newer, negative_template=newer))
    assert engine.drain() == ["first", "second", "third"]
