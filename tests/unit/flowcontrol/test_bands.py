"""Which bands exist: configured ones and those of objectives stay, others go when they were idle for long."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.flowcontrol.rig import Engine, Foreseen, band

MINUTE = 60.0


def test_flow_56_the_band_of_a_deleted_objective_serves_what_waits_and_goes_later() -> None:
    engine = Engine(Foreseen(1.0))
    engine.control.want({50})
    engine.arrive("held", priority=50)
    engine.control.want(())
    engine.timers.advance(20 * MINUTE)
    assert 50 in engine.control.bands.priorities, "a band with requests never goes"
    assert engine.drain() == ["held"]
    engine.timers.advance(9 * MINUTE)
    assert 50 in engine.control.bands.priorities
    engine.timers.advance(3 * MINUTE)
    assert engine.control.bands.priorities == [0]


def test_bands_of_objectives_exist_before_requests_do() -> None:
    engine = Engine(0.0, bands={100: band()})
    engine.control.want({3, -5})
    assert engine.control.bands.priorities == [100, 3, 0, -5]
    engine.arrive(priority=8)
    engine.timers.advance(30 * MINUTE)
    assert engine.control.bands.priorities == [100, 3, 0, -5], "nobody wants the band 8"


def test_a_request_that_comes_while_its_band_goes_is_not_lost() -> None:
    engine = Engine(Foreseen(0.0))
    engine.arrive(priority=8)
    engine.level(1.0)
    engine.timers.advance(11 * MINUTE - 1)
    late = engine.arrive(priority=8)
    engine.timers.advance(10 * MINUTE)
    assert late.waits
    assert engine.drain() == [late.name]


def test_a_band_that_is_configured_no_longer_goes_when_it_was_idle_for_long() -> None:
    engine = Engine(Foreseen(0.0), bands={9: band(), 4: band()})
    engine.timers.advance(60 * MINUTE)
    engine.control.use(replace(engine.settings, bands={4: band()}))
    engine.arrive()
    engine.timers.advance(9 * MINUTE)
    assert engine.control.bands.priorities == [9, 4, 0]
    engine.arrive()
    engine.timers.advance(2 * MINUTE)
    assert engine.control.bands.priorities == [4, 0]


def test_series_of_idle_flows_are_dropped_and_those_of_others_stay() -> None:
    engine = Engine(Foreseen(1.0))
    engine.arrive("gone", flow="a").leaves()
    engine.arrive("stays", flow="b")
    engine.timers.advance(7 * MINUTE)
    assert engine.metric("queue_size", fairness_id="a") is None
    assert engine.metric("request_queue_duration_seconds_count", fairness_id="a") is None
    assert engine.metric("queue_size", fairness_id="b") == 1
    assert engine.metric("requests_total", outcome="EvictedContextCancelled") == 1, "it is of the band"


def test_a_flow_of_two_models_keeps_what_they_have_in_common() -> None:
    engine = Engine(0.0)
    engine.arrive(flow="a", model="old")
    engine.timers.advance(4 * MINUTE)
    engine.arrive(flow="a", model="new")
    engine.timers.advance(2 * MINUTE)
    assert engine.metric("queue_size", fairness_id="a", model_name="old") is None
    assert engine.metric("queue_size", fairness_id="a", model_name="new") == 0
    assert engine.metric("request_enqueue_duration_seconds_count", fairness_id="a") == 2


def test_an_idle_engine_has_no_timers() -> None:
    engine = Engine(0.0)
    engine.arrive()
    engine.timers.advance(10 * MINUTE)
    assert engine.timers.pending == 0
