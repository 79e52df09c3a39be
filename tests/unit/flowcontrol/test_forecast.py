"""What flow control would do with a request: told without doing any of it, and what then happens to one that comes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from epp.flowcontrol import pages
from epp.flowcontrol.forecast import Forecast, Verdict, forecast
from epp.framework.candidates import Candidates
from epp.framework.flow_control import Credits
from epp.framework.testing import FakeHeaders, make_request
from plugins.flowcontrol import usage_limits
from tests.unit.flowcontrol.rig import EVICTION, STATIC, TTL_HEADER, Engine, Foreseen, band, double, named

FULL = 1.0


class Exact(Foreseen):
    """A detector that counts who is on the way, and finds room for them."""

    shows_after_s = 0.0

    def credit_tokens(self, request: object) -> int:
        return 0

    def saturation_with(self, candidates: Candidates, credit: Credits) -> float:
        return self.saturation(candidates)


def asked(engine: Engine, *, priority: int = 0, flow: str = "default-flow", size: int = 1, **headers: str) -> Forecast:
    """What would become of a request."""
    request = replace(
        make_request(),
        headers=FakeHeaders({name.replace("_", "-"): value for name, value in headers.items()}),
        priority=priority,
        fairness_id=flow,
        size_bytes=size,
        received_s=engine.clock.now_s,
    )
    return forecast(engine.control, request, engine.clock.now_s)


def of_ours(engine: Engine) -> list[bytes]:
    """All that is exposed, but for what the process itself takes."""
    return [line for line in engine.metrics.exposition().splitlines() if line.startswith(b"llm_d_epp_")]


def test_with_room_it_would_pass() -> None:
    found = asked(Engine(0.25))
    assert (found.verdict, found.why, found.saturation, found.ceiling) == (Verdict.PASS, "", 0.25, 1.0)
    assert (found.ahead, found.expected_wait_s, found.longest_wait_s) == (0, None, None)


def test_in_a_full_pool_it_would_wait_behind_its_priority_and_above() -> None:
    engine = Engine(FULL, template=band(ttl_s=30.0))
    for priority in (10, 0, 0, -5):
        engine.arrive(priority=priority)
    found = asked(engine, priority=0)
    assert (found.verdict, found.ahead, found.longest_wait_s) == (Verdict.WAIT, 3, 30.0)
    assert found.why == "the pool is as full as its priority may fill it: saturation 1.00, ceiling 1.00"
    assert found.expected_wait_s is None, "nothing was served lately"
    assert asked(engine, priority=11).ahead == 0
    assert asked(engine, priority=-9).ahead == 4


def test_the_wait_is_that_of_the_last_seconds() -> None:
    engine = Engine(0.0)
    for _ in range(10):
        engine.arrive()
        engine.timers.advance(0.5)
    engine.level(FULL)
    engine.arrive()
    expected = asked(engine).expected_wait_s
    assert expected == engine.control.retry_after_s(engine.control.bands.of(0, 0.0), engine.clock.now_s)
    assert expected == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(
    ("endpoints", "headers", "longest_s"),
    [
        pytest.param(1, {}, 30.0, id="the band's"),
        pytest.param(1, {TTL_HEADER: "2s"}, 2.0, id="the client's"),
        pytest.param(1, {"grpc-timeout": "500m"}, 0.5, id="the deadline"),
        pytest.param(0, {}, 60.0, id="of an empty pool"),
        pytest.param(0, {"grpc-timeout": "1S"}, 1.0, id="the deadline in an empty pool"),
    ],
)
def test_how_long_it_may_wait(endpoints: int, headers: dict[str, str], longest_s: float) -> None:
    engine = Engine(FULL, endpoints=endpoints, template=band(ttl_s=30.0), empty_pool_ttl_s=60.0)
    found = asked(engine, **headers)
    assert (found.verdict, found.longest_wait_s) == (Verdict.WAIT, longest_s)
    assert ("no endpoint" in found.why) is (endpoints == 0)
    arrival = engine.arrive(headers=headers)
    assert arrival.ticket is not None
    assert arrival.ticket.deadline_s - engine.clock.now_s == pytest.approx(longest_s)


def test_what_has_no_room_would_be_refused_and_why() -> None:
    engine = Engine(FULL, template=band(max_requests=1))
    engine.arrive()
    found = asked(engine)
    assert found.verdict is Verdict.REFUSE
    assert found.as_json()["status"] == 429
    assert found.why == "request rejected before queueing: the queue of its priority is at capacity"
    assert asked(engine, priority=7).verdict is Verdict.WAIT, "a band that does not exist yet has room"
    engine.scale(0)
    assert asked(engine).as_json()["status"] == 503


def test_a_body_that_no_band_may_hold() -> None:
    assert asked(Engine(0.0), size=2**31, priority=3).verdict is Verdict.REFUSE


def test_once_it_has_stopped_all_are_refused() -> None:
    engine = Engine(0.0)
    engine.control.stop()
    found = asked(engine)
    assert (found.verdict, found.as_json()["status"]) == (Verdict.REFUSE, 503)
    assert "shutting down" in found.why


def test_a_band_that_does_not_exist_has_the_ceiling_that_it_would_have() -> None:
    holdback = named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.5})
    engine = Engine(0.8, bands={10: band()}, usage=holdback)
    assert (asked(engine, priority=10).verdict, asked(engine, priority=0).verdict) == (Verdict.PASS, Verdict.WAIT)
    assert asked(engine, priority=5).ceiling == 0.75
    assert engine.control.bands.priorities == [10, 0]
    assert engine.arrive(priority=5).waits


@pytest.mark.parametrize(("detector", "ahead"), [(Foreseen, 1), (Exact, 0)], ids=["inexact", "exact"])
def test_what_is_owed_to_a_lower_band_goes_first(detector: type[Foreseen], ahead: int) -> None:
    holdback = named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.5})
    engine = Engine(detector(0.7), bands={10: band(), -1: band(min_share=0.5)}, usage=holdback)
    engine.arrive("low", priority=-1)
    for _ in range(2):
        assert engine.arrive(priority=10).is_let_go
    found = asked(engine, priority=10)
    assert (found.ahead, found.verdict is Verdict.WAIT) == (ahead, ahead == 1)
    assert engine.arrive(priority=10).waits is (ahead == 1)
    assert "low" in engine.order


def test_a_policy_that_counts_its_looks_is_not_asked_for_one() -> None:
    policy = named(usage_limits.SOFT_REFLECTIVE_CEILING)
    engine = Engine(0.8, bands={10: band()}, usage=policy)
    before = policy.plugin._looks
    assert asked(engine).verdict is Verdict.PASS, "it has not looked yet"
    assert policy.plugin._looks == before
    assert engine.arrive().waits
    assert asked(engine).verdict is Verdict.WAIT, "as in its last look"


def test_a_policy_that_fails_is_no_defect_of_a_request_that_nobody_sent() -> None:
    class Fails:
        needs_ticks = False

        def ceilings(self, saturation: float, priorities: Any) -> Any:
            raise ZeroDivisionError

    engine = Engine(0.5, usage=double(Fails()))
    assert asked(engine).verdict is Verdict.PASS
    assert engine.reports.seen == []


def test_running_requests_that_may_be_ended_for_it_are_told_of() -> None:
    engine = Engine(0.0, eviction=EVICTION)
    engine.arrive(priority=-1)
    engine.level(FULL)
    assert asked(engine, priority=5).may_evict
    assert not asked(engine, priority=-1).may_evict
    assert engine.evicted == []


@pytest.mark.parametrize("detector", [Foreseen, Exact], ids=["inexact", "exact"])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_foretold_happens_and_telling_changes_nothing(detector: type[Foreseen], seed: int) -> None:
    """First come, first served in strict order: whatever was before, the forecast is what becomes of the next arrival."""
    rng = random.Random(seed)
    usage = rng.choice([STATIC, named(usage_limits.PRIORITY_HOLDBACK, {"minCeiling": 0.3})])
    engine = Engine(detector(0.0), template=band(max_requests=4, ttl_s=5.0), bands={10: band()}, usage=usage, max_requests=9)
    for _ in range(60):
        what = rng.random()
        if what < 0.3:
            engine.level(rng.choice([0.0, 0.4, 0.7, 1.0]))
        elif what < 0.4:
            engine.scale(rng.randrange(3))
        elif what < 0.5:
            engine.timers.advance(rng.choice([0.0, 0.3, 6.0]))
        engine.timers.settle()
        priority, size = rng.choice([20, 10, 0, 0, -3]), rng.choice([1, 1, 2**31])
        shown, counted = pages.queues(engine.control, engine.clock.now_s), of_ours(engine)
        found = asked(engine, priority=priority, size=size)
        assert pages.queues(engine.control, engine.clock.now_s) == shown
        assert of_ours(engine) == counted
        arrival = engine.arrive(priority=priority, size=size)
        if arrival.error is not None:
            assert (found.verdict, found.refusal) == (Verdict.REFUSE, arrival.error)
        else:
            assert (found.verdict is Verdict.PASS) is arrival.is_let_go, found
            if arrival.waits:
                assert arrival.ticket is not None
                assert found.ahead == arrival.ticket.ahead
