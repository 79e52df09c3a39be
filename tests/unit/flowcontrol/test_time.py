"""Time: two budgets, the hard limit, deadlines of callers, clients that leave, and the stop."""

from __future__ import annotations

from typing import Any

import pytest

from epp.errors import RequestError
from tests.unit.flowcontrol.rig import TTL_HEADER, Arrival, Engine, Foreseen, band

FULL = 1.0
LATE_S = 0.05
"""How late a refusal may be."""


def queued(endpoints: int = 1, ttl_s: float = 0.0, empty_s: float | None = None, **more: Any) -> tuple[Engine, Arrival]:
    """A request that came at 0 to a full pool, or to an empty one."""
    engine = Engine(
        Foreseen(FULL),
        endpoints=endpoints,
        template=band(ttl_s=ttl_s),
        empty_pool_ttl_s=ttl_s if empty_s is None else empty_s,
    )
    return engine, engine.arrive(**more)


def ends(engine: Engine, arrival: Arrival, at_s: float) -> None:
    """The request waits up to a moment, and no longer."""
    engine.timers.advance(at_s - engine.clock.now_s - 0.001)
    assert arrival.waits, "too early"
    engine.timers.advance(LATE_S)
    assert arrival.ended_s is not None, "too late"


def test_flow_57_the_budget_of_a_full_pool() -> None:
    engine, arrival = queued(ttl_s=2.0)
    ends(engine, arrival, 2.0)
    assert arrival.refusal == (429, "rejected-ttl-expired")
    assert engine.outcomes() == {"EvictedTTL": 1}


def test_flow_58_the_budget_of_an_empty_pool() -> None:
    engine, arrival = queued(endpoints=0, ttl_s=2.0, empty_s=30.0)
    engine.timers.advance(29.9)
    assert arrival.waits
    ends(engine, arrival, 30.0)
    assert arrival.refusal == (503, "rejected-no-endpoints")
    assert engine.outcomes() == {"EvictedNoEndpoints": 1}


def test_flow_59_the_first_endpoint_begins_a_new_budget() -> None:
    engine, arrival = queued(endpoints=0, ttl_s=2.0, empty_s=30.0)
    engine.timers.advance(20.0)
    engine.scale(1)
    ends(engine, arrival, 22.0)
    assert arrival.refusal == (429, "rejected-ttl-expired")


def test_flow_60_the_first_endpoint_serves_what_waits() -> None:
    engine, arrival = queued(endpoints=0, ttl_s=2.0, empty_s=30.0)
    engine.timers.advance(20.0)
    engine.detector.level = 0.0
    engine.scale(1)
    engine.timers.settle()
    assert (arrival.is_let_go, arrival.ended_s) == (True, 20.0)


def test_flow_61_the_hard_limit() -> None:
    engine, arrival = queued(endpoints=0, ttl_s=5.0, empty_s=31.0)
    engine.timers.advance(30.5)
    engine.scale(1)
    ends(engine, arrival, 33.0)
    assert arrival.refusal == (429, "rejected-ttl-expired")


def test_flow_62_a_pool_that_becomes_empty_begins_a_new_budget() -> None:
    engine, arrival = queued(ttl_s=10.0, empty_s=3.0)
    engine.timers.advance(1.0)
    engine.scale(0)
    ends(engine, arrival, 4.0)
    assert arrival.refusal == (503, "rejected-no-endpoints")
    assert engine.outcomes() == {"EvictedNoEndpoints": 1}


def test_flow_63_what_comes_later_counts_from_its_arrival() -> None:
    engine, _ = queued(ttl_s=10.0, empty_s=3.0)
    engine.timers.advance(1.0)
    engine.scale(0)
    engine.timers.advance(1.0)
    ends(engine, engine.arrive(), 5.0)


def test_flow_64_without_budgets_only_the_client_or_the_stop_ends_it() -> None:
    engine, arrival = queued()
    for _ in range(3):
        engine.timers.advance(1_000.0)
        engine.scale(0)
        engine.timers.advance(1_000.0)
        engine.scale(1)
    assert arrival.waits
    arrival.leaves()
    assert engine.outcomes() == {"EvictedContextCancelled": 1}


def test_flow_65_one_budget_for_both() -> None:
    engine, arrival = queued(endpoints=0, ttl_s=5.0)
    ends(engine, arrival, 5.0)
    assert arrival.refusal == (503, "rejected-no-endpoints")


def test_flow_66_no_budget_is_no_limit() -> None:
    engine, arrival = queued(endpoints=0)
    engine.timers.advance(10_000.0)
    assert arrival.waits


def test_flow_67_the_deadline_of_a_grpc_client() -> None:
    engine, arrival = queued(ttl_s=60.0, headers={"grpc-timeout": "1S"})
    assert arrival.ticket is not None
    assert arrival.ticket.ttl_s == 1.0, "by which earliest deadline first orders"
    ends(engine, arrival, 1.0)
    assert engine.outcomes() == {"EvictedTTL": 1}


@pytest.mark.parametrize(
    ("headers", "ttl_s", "expected"),
    [
        pytest.param({TTL_HEADER: "1s"}, 5.0, 1.0, id="a client waits less"),
        pytest.param({TTL_HEADER: " 1s "}, 0.0, 1.0, id="than for ever"),
        pytest.param({TTL_HEADER: "9s"}, 5.0, 5.0, id="but not longer"),
        pytest.param({TTL_HEADER: "0s"}, 5.0, 5.0, id="zero"),
        pytest.param({TTL_HEADER: "-1s"}, 5.0, 5.0, id="negative"),
        pytest.param({TTL_HEADER: "soon"}, 5.0, 5.0, id="no duration"),
        pytest.param({TTL_HEADER: ""}, 5.0, 5.0, id="empty"),
        pytest.param({"grpc-timeout": "2500m"}, 5.0, 2.5, id="milliseconds of gRPC"),
        pytest.param({"grpc-timeout": "123456789S"}, 5.0, 5.0, id="nine digits are no timeout"),
        pytest.param({"grpc-timeout": "1M"}, 0.0, 60.0, id="minutes of gRPC"),
    ],
)
def test_how_long_a_client_waits(headers: dict[str, str], ttl_s: float, expected: float) -> None:
    engine, arrival = queued(ttl_s=ttl_s, headers=headers)
    ends(engine, arrival, expected)
    assert engine.outcomes() == {"EvictedTTL": 1}


def test_a_client_cannot_shorten_the_wait_for_the_first_endpoint() -> None:
    engine, arrival = queued(endpoints=0, empty_s=30.0, headers={TTL_HEADER: "1s"})
    ends(engine, arrival, 30.0)


def test_a_pool_that_is_empty_when_a_caller_gives_up() -> None:
    engine, arrival = queued(endpoints=0, empty_s=30.0, headers={"grpc-timeout": "1S"})
    ends(engine, arrival, 1.0)
    assert engine.outcomes() == {"EvictedTTL": 1}
    assert arrival.refusal == (503, "rejected-no-endpoints")


def test_a_caller_whose_time_was_up_before_is_served_if_there_is_room() -> None:
    engine = Engine(0.0)
    engine.timers.advance(10.0)
    assert engine.arrive(headers={"grpc-timeout": "1S"}, received_s=0.0).is_let_go
    engine.level(FULL)
    late = engine.arrive(headers={"grpc-timeout": "1S"}, received_s=0.0)
    engine.timers.advance(LATE_S)
    assert late.refusal == (429, "rejected-ttl-expired")


def test_a_band_has_a_budget_of_its_own() -> None:
    engine = Engine(Foreseen(FULL), bands={-1: band(ttl_s=1.0)}, template=band(ttl_s=5.0))
    normal, low = engine.arrive(), engine.arrive(priority=-1)
    ends(engine, low, 1.0)
    ends(engine, normal, 5.0)


def test_flow_69_a_client_that_leaves_frees_its_bytes_and_hears_nothing() -> None:
    engine, arrival = queued(ttl_s=2.0, size=500)
    engine.timers.advance(0.5)
    arrival.leaves()
    assert (engine.control.bands.count, engine.control.bands.bytes, engine.metric("queue_bytes")) == (0, 0, 0)
    engine.timers.advance(5.0)
    assert (arrival.ended_s, engine.outcomes()) == (None, {"EvictedContextCancelled": 1})


def test_flow_70_a_client_that_leaves_just_after_its_turn() -> None:
    engine = Engine(0.0)
    arrival = engine.arrive(slow=True)
    assert engine.control.saturation.credits.requests == 1
    arrival.leaves()
    assert engine.control.saturation.credits.requests == 0
    assert engine.outcomes() == {"Dispatched": 1}


def test_flow_71_the_stop_ends_all_that_waits_and_refuses_all_that_comes() -> None:
    engine = Engine(FULL, template=band(ttl_s=5.0))
    waiting = [engine.arrive() for _ in range(3)]
    engine.control.stop()
    engine.control.stop()
    late = engine.arrive()
    assert {arrival.refusal for arrival in (*waiting, late)} == {(503, "rejected-shutting-down")}
    assert engine.outcomes() == {"EvictedOther": 3, "RejectedOther": 1}
    engine.timers.advance(10.0)
    assert engine.timers.pending == 0


def test_a_picker_that_no_longer_leads_refuses_what_waits_and_serves_what_comes() -> None:
    engine = Engine(FULL)
    waiting = engine.arrive()
    engine.control.refuse_all()
    assert waiting.refusal == (503, "rejected-shutting-down")
    assert engine.arrive().waits
    engine.control.stop()
    engine.control.resume()
    engine.level(0.0)
    assert engine.arrive().is_let_go


# ── what it costs to wait ──


@pytest.mark.parametrize("waiting", [1, 500])
def test_waiting_costs_nothing_while_nothing_changes(waiting: int) -> None:
    engine = Engine(Foreseen(FULL), template=band(ttl_s=3600.0))
    for _ in range(waiting):
        engine.arrive()
    asked, rings = engine.detector.asked, engine.timers.rings
    engine.timers.advance(100.0)
    assert engine.timers.rings - rings <= 101, "a heartbeat"
    assert engine.detector.asked - asked <= 101
    assert engine.timers.pending <= 3, "one timer, whatever waits"


def test_a_detector_that_foresees_nothing_is_asked_every_millisecond() -> None:
    engine = Engine(FULL)
    arrival = engine.arrive()
    engine.detector.level = 0.0
    engine.timers.advance(0.0011)
    assert arrival.is_let_go


# ── when to try again ──


def retry_after(engine: Engine, priority: int = 0) -> str | None:
    """What a refused request is told."""
    error = engine.arrive(priority=priority).error
    assert isinstance(error, RequestError)
    return dict(error.headers).get("retry-after")


def test_retry_after_is_what_waits_by_the_rate_of_late() -> None:
    engine = Engine(0.0, template=band(max_requests=19))
    for _ in range(100):
        engine.arrive()
        engine.timers.advance(0.1)
    engine.level(FULL)
    for _ in range(19):
        engine.arrive()
    assert retry_after(engine) == "2", "20 requests at 10 a second"
    engine.timers.advance(30.0)
    assert retry_after(engine) is None, "nobody knows"


def test_retry_after_is_of_the_own_band_and_bounded() -> None:
    engine = Engine(0.0, template=band(max_requests=10))
    for _ in range(50):
        engine.arrive(priority=5)
    engine.arrive(priority=-5)
    engine.level(FULL)
    for priority in (5, -5):
        for _ in range(10):
            engine.arrive(priority=priority)
    engine.timers.advance(9.0)
    assert (retry_after(engine, 5), retry_after(engine, -5)) == ("2", "60")
