"""Flow control as a state machine: whatever comes, changes and fails in whatever order, its invariants hold.

The engine runs on a clock that stands still until a step lets time pass. Requests, endpoints, the level of saturation,
objectives and decisions change at random; what the engine does is compared with a model that is as simple as the specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from epp.flowcontrol.tickets import State
from plugins.flowcontrol import concurrency_detector, usage_limits
from plugins.producers.inflight_load import InflightLoadProducer
from tests.unit.flowcontrol.rig import TTL_HEADER, Arrival, Engine, Level, band, named
from tests.unit.plugins.flights import decided

LATE_S = 0.05
FLOWS, PRIORITIES = "abc", (-2, 0, 5)
CONFIGURED = 5
MAX_CONCURRENCY = 2
TTLS = [0.0, 1.0, 3.0]
EPSILON_S = 1e-9


class FlowControl(RuleBasedStateMachine):
    """Steps and invariants; what kind of detector there is, subclasses say."""

    exact = False
    """The detector counts requests on their way."""

    @initialize(
        rr=st.booleans(),
        ttl_s=st.sampled_from(TTLS),
        empty_s=st.sampled_from(TTLS),
        endpoints=st.integers(0, 2),
        max_requests=st.sampled_from([2, 4, 100]),
        max_bytes=st.sampled_from([10, 1000]),
        all_requests=st.sampled_from([0, 5]),
        all_bytes=st.sampled_from([0, 15]),
        holdback=st.booleans(),
    )
    def begin(self, rr: bool, ttl_s: float, empty_s: float, endpoints: int, holdback: bool, **limits: int) -> None:
        self.rr, self.ttl_s, self.empty_s, self.limits = rr, ttl_s, empty_s, limits
        self.counts = InflightLoadProducer()
        self.engine = Engine(
            self.make_detector(),
            endpoints=endpoints,
            template=band(rr=rr, ttl_s=ttl_s, max_requests=limits["max_requests"], max_bytes=limits["max_bytes"]),
            bands={CONFIGURED: band(rr=rr, ttl_s=ttl_s, max_requests=limits["max_requests"], max_bytes=limits["max_bytes"])},
            usage=named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.3}) if holdback else named(usage_limits.STATIC),
            max_requests=limits["all_requests"],
            max_bytes=limits["all_bytes"],
            empty_pool_ttl_s=empty_s,
        )
        self.engine.on_end = self.ended
        self.failures: list[AssertionError] = []
        self.since_s = -inf
        self.endpoints = endpoints
        self.wanted: set[int] = set()
        self.left: list[Arrival] = []
        self.stopped = False

    def make_detector(self) -> Any:
        return Level(0.0)

    # ── steps ──

    @rule(
        flow=st.sampled_from(FLOWS),
        priority=st.sampled_from(PRIORITIES),
        size=st.integers(0, 6),
        ttl=st.none() | st.sampled_from(["500ms", "2s"]),
        slow=st.booleans(),
    )
    def arrive(self, flow: str, priority: int, size: int, ttl: str | None, slow: bool) -> None:
        room = self.has_room(priority, size)
        headers = {} if ttl is None else {TTL_HEADER: ttl}
        arrival = self.engine.arrive(flow=flow, priority=priority, size=size, headers=headers, slow=slow or self.exact)
        is_rejected = arrival.ticket is None
        assert is_rejected == (self.stopped or not room), "I5: refused exactly if there is no room"
        if is_rejected:
            expected = "rejected-shutting-down" if self.stopped else self.full_reason()
            assert arrival.refusal[1] == expected, "I24: the status says why"

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 1000))
    def client_leaves(self, which: int) -> None:
        """Its room is free at once, and the order of the others stays."""
        arrivals = self.waiting()
        arrival = arrivals[which % len(arrivals)]
        others = [other for other in arrivals if other is not arrival]
        arrival.leaves()
        self.left.append(arrival)
        assert [other for other in self.waiting() if other in others] == others, "I16: nobody else is touched"
        assert self.has_room(arrival.request.priority, arrival.request.size_bytes), "I15: its room is free at once"

    @precondition(lambda self: self.of(State.LET_GO))
    @rule(which=st.integers(0, 1000), how=st.sampled_from(["sent", "denied", "leaves"]))
    def decision_ends(self, which: int, how: str) -> None:
        arrivals = self.of(State.LET_GO)
        arrival = arrivals[which % len(arrivals)]
        before = self.engine.control.saturation.credits.requests
        if how == "sent":
            self.count(arrival)
        getattr(arrival, how)()
        assert self.engine.control.saturation.credits.requests == before - 1, "I17, I18: its credit comes back, once"

    @precondition(lambda self: self.of(State.RUNNING))
    @rule(which=st.integers(0, 1000), leaves=st.booleans())
    def response_ends(self, which: int, leaves: bool) -> None:
        arrivals = self.of(State.RUNNING)
        arrival = arrivals[which % len(arrivals)]
        self.counts.response_complete(arrival.request, None, None)  # type: ignore[arg-type]  # not looked at
        (arrival.leaves if leaves else arrival.completes)()

    @rule(level=st.sampled_from([0.0, 0.5, 0.9, 1.0, 2.0]))
    def saturation(self, level: float) -> None:
        if not self.exact:
            self.engine.level(level)

    @rule(count=st.integers(0, 3))
    def scale(self, count: int) -> None:
        if (count == 0) != (self.endpoints == 0):
            self.since_s = self.engine.clock.now_s
        self.endpoints = count
        self.engine.scale(count)

    @rule(times=st.integers(1, 8), pause_s=st.sampled_from([0.3, 0.9]))
    def pool_flaps(self, times: int, pause_s: float) -> None:
        """It is empty and not by turns, each time before any budget is spent: only the hard limit ends a wait."""
        for count in (0, 1) * times:
            self.scale(count)
            self.engine.timers.advance(pause_s)

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.01, 0.4, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.engine.timers.advance(seconds)

    @rule(priorities=st.sets(st.sampled_from([7, -2])))
    def objectives(self, priorities: set[int]) -> None:
        self.wanted = priorities
        self.engine.control.want(priorities)

    @precondition(lambda self: not self.stopped)
    @rule()
    def waits_for_a_tick(self) -> None:
        """Within a millisecond something that may go on does."""
        self.engine.timers.settle()
        expected = self.may_go_on()
        before = len(self.engine.order)
        self.engine.timers.advance(0.0011)
        assert len(self.engine.order) > before or not expected, "I7: something waits though there is room"

    @rule(sure=st.integers(0, 20))
    def stop(self, sure: int) -> None:
        if sure:
            return  # rarely, as nothing happens afterwards
        self.engine.control.stop()
        self.engine.control.stop()
        self.stopped = True
        assert not self.waiting(), "I25: all that waited has its answer without time passing"

    # ── what holds always ──

    @invariant()
    def each_end_was_right(self) -> None:
        """The engine keeps what fails within a release from others, so that failures are looked at afterwards."""
        assert self.failures == []

    @invariant()
    def counters_equal_contents(self) -> None:
        bands = self.engine.control.bands
        for each in bands.ordered:
            mine = [arrival.request for arrival in self.waiting() if arrival.request.priority == each.priority]
            assert (each.count, each.bytes) == (len(mine), sum(r.size_bytes for r in mine)), "I3: of a band"
            flows = {flow.id: (flow.count, flow.bytes) for flow in each.flows.values()}
            by_flow = Counter(request.fairness_id for request in mine)
            assert {name: count for name, (count, _) in flows.items()} == by_flow, "I3: of its flows"
            assert each.count <= self.limits["max_requests"], "I4: a band is bounded"
            assert each.bytes <= self.limits["max_bytes"], "I4: in bytes too"
        assert self.limits["all_requests"] == 0 or bands.count <= self.limits["all_requests"], "I4: so are all"
        assert self.limits["all_bytes"] == 0 or bands.bytes <= self.limits["all_bytes"], "I4: in bytes too"
        assert self.engine.timers.pending <= 5, "I4: few timers, whatever waits"

    @invariant()
    def credits_balance(self) -> None:
        credit = self.engine.control.saturation.credits
        assert credit.requests == len(self.of(State.LET_GO)), "I18: one for each request that is being decided"
        assert credit.tokens >= 0

    @invariant()
    def one_outcome_each(self) -> None:
        counted = self.engine.outcomes()
        ended = sum(1 for arrival in self.engine.arrivals if not arrival.waits)
        assert sum(counted.values()) == ended, "I2: each request that is not waiting has one outcome"
        assert counted.get("EvictedContextCancelled", 0) == len(self.left), "I17: those who left were not let go"

    @invariant()
    def nobody_waits_too_long(self) -> None:
        now = self.engine.clock.now_s
        for arrival in self.waiting():
            assert now <= self.deadline(arrival) + LATE_S, "I12, I13: in time"

    @invariant()
    def bands_that_are_needed_exist(self) -> None:
        needed = {0, CONFIGURED, *self.wanted, *(arrival.request.priority for arrival in self.waiting())}
        assert needed <= set(self.engine.control.bands.priorities), "I26: bands that somebody needs"

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.engine.control.stop()
        for arrival in self.of(State.LET_GO):
            arrival.denied()
        assert not self.waiting(), "I1: nobody is lost"
        assert all(arrival.ended_s is not None for arrival in self.engine.arrivals if arrival not in self.left), "I1"
        assert sum(self.engine.outcomes().values()) == len(self.engine.arrivals), "I2: outcomes are arrivals"
        assert self.engine.control.bands.count == self.engine.control.bands.bytes == 0, "I3: all zero in the end"
        assert self.failures == []
        late = self.engine.arrive()
        assert late.refusal == (503, "rejected-shutting-down"), "I25: later calls too"
        assert not self.engine.reports.seen

    # ── at each end ──

    def ended(self, arrival: Arrival) -> None:
        """A request was let go or refused."""
        try:
            self.check_end(arrival)
        except AssertionError as failure:
            self.failures.append(failure)

    def check_end(self, arrival: Arrival) -> None:
        if arrival.error is None:
            self.check_turn(arrival)
            return
        if arrival.ticket is None or self.stopped or arrival.error.reason == "rejected-shutting-down":
            return
        assert arrival.ended_s is not None
        assert arrival.ended_s >= self.deadline(arrival) - EPSILON_S, "I12, I14: never early"
        expected = (503, "rejected-no-endpoints") if not self.endpoints else (429, "rejected-ttl-expired")
        assert arrival.refusal == expected, "I24: the status says why"

    def check_turn(self, arrival: Arrival) -> None:
        request = arrival.request
        control = self.engine.control
        for other in self.waiting():
            assert other.request.priority <= request.priority, "I6: nothing above it waits"
            if other.request.priority != request.priority or other is arrival:
                continue
            earlier = self.engine.arrivals.index(other) < self.position(arrival)
            if not self.rr:
                assert not earlier, "I9: one queue for all flows"
            elif other.request.fairness_id == request.fairness_id:
                assert not earlier, "I8: first come, first served within a flow"
        assert self.endpoints, "I7: nothing is let go to an empty pool"
        ceiling = control.ceiling(control.bands.of(request.priority, 0.0))
        assert ceiling is not None
        if not self.exact:
            assert self.engine.detector.level < ceiling, "I7: the gate holds"
        else:
            in_flight = len(self.of(State.RUNNING)) + len(self.of(State.LET_GO)) + (arrival not in self.engine.arrivals)
            assert in_flight <= self.endpoints * MAX_CONCURRENCY, "I19: no more than fit"

    # ── the model ──

    def waiting(self) -> list[Arrival]:
        return [arrival for arrival in self.engine.arrivals if arrival.waits]

    def of(self, state: State) -> list[Arrival]:
        return [a for a in self.engine.arrivals if a.ticket is not None and a.ticket.state is state]

    def position(self, arrival: Arrival) -> int:
        arrivals = self.engine.arrivals
        return arrivals.index(arrival) if arrival in arrivals else len(arrivals)

    def has_room(self, priority: int, size: int) -> bool:
        waiting = [arrival.request for arrival in self.waiting()]
        mine = [request for request in waiting if request.priority == priority]
        held, all_held = (sum(request.size_bytes for request in requests) for requests in (mine, waiting))
        limits = self.limits
        return (
            len(mine) < limits["max_requests"]
            and held + size <= limits["max_bytes"]
            and (not limits["all_requests"] or len(waiting) < limits["all_requests"])
            and (not limits["all_bytes"] or all_held + size <= limits["all_bytes"])
        )

    def full_reason(self) -> str:
        return "rejected-saturated" if self.endpoints else "rejected-no-endpoints"

    def deadline(self, arrival: Arrival) -> float:
        """As the specification says."""
        asked = {"500ms": 0.5, "2s": 2.0}.get(arrival.request.headers.get(TTL_HEADER) or "", 0.0)
        ttl_s = min([each for each in (self.ttl_s, asked) if each] or [0.0])
        assert arrival.ticket is not None
        came_s = arrival.ticket.enqueued_s
        budget_s = ttl_s if self.endpoints else self.empty_s
        if not budget_s:
            return inf
        deadline_s = max(came_s, self.since_s) + budget_s
        return min(deadline_s, came_s + max(ttl_s, self.empty_s) + 2.0) if ttl_s and self.empty_s else deadline_s

    def may_go_on(self) -> bool:
        """Something waits, and all bands down to it are open."""
        if not self.waiting() or not self.endpoints:
            return False
        control = self.engine.control
        level = control.saturation.read(control.endpoints()).effective
        ceilings = self.engine.settings.usage.plugin.ceilings(level, control.bands.priorities)
        highest = max(arrival.request.priority for arrival in self.waiting())
        return bool(level < ceilings[control.bands.priorities.index(highest)])

    def count(self, arrival: Arrival) -> None:
        """The producer of the load in flight is told."""
        if self.endpoints:
            endpoint = next(iter(self.engine.store))
            self.counts.pre_request(arrival.request, decided(endpoint), None)  # type: ignore[arg-type]  # not looked at


class ExactFlowControl(FlowControl):
    """The same with the real concurrency detector and the real counter of requests in flight."""

    exact = True

    def make_detector(self) -> Any:
        params = concurrency_detector.ConcurrencyDetectorParams.decode({"maxConcurrency": MAX_CONCURRENCY})
        return concurrency_detector.ConcurrencyDetector(params, self.counts)


@pytest.mark.parametrize("machine", [FlowControl, ExactFlowControl], ids=["a level", "requests in flight"])
def test_i1_to_i26_hold_in_any_order_of_events(machine: Callable[[], RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
