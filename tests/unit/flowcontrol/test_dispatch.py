"""Letting go: at once with a detector that counts those on their way, else one in a millisecond; credits always come back."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_context, make_plugin
from plugins.flowcontrol import concurrency_detector, running_requests_detector
from plugins.producers.inflight_load import InflightLoadProducer
from tests.unit.flowcontrol.rig import Arrival, Engine, Foreseen, band
from tests.unit.plugins.flights import decided


class Flights:
    """A pool with a concurrency detector and the real counter behind it."""

    def __init__(self, max_concurrency: int, endpoints: int, **more: object) -> None:
        self.counts = InflightLoadProducer()
        params = concurrency_detector.ConcurrencyDetectorParams.decode({"maxConcurrency": max_concurrency, **more})
        self.engine = Engine(concurrency_detector.ConcurrencyDetector(params, self.counts), endpoints=endpoints)

    def send(self, arrival: Arrival) -> None:
        """It is sent to the first endpoint."""
        endpoint = next(iter(self.engine.store))
        self.counts.pre_request(arrival.request, decided(endpoint), None)  # type: ignore[arg-type]  # not looked at
        arrival.sent()

    def complete(self, arrival: Arrival) -> None:
        """It is over."""
        self.counts.response_complete(arrival.request, None, None)  # type: ignore[arg-type]  # not looked at
        arrival.completes()


def test_flow_82_no_more_are_let_go_than_fit_though_none_is_counted_yet() -> None:
    flights = Flights(max_concurrency=1, endpoints=2)
    arrivals = [flights.engine.arrive(slow=True) for _ in range(10)]
    assert [arrival.is_let_go for arrival in arrivals] == [True, True] + [False] * 8
    flights.engine.timers.advance(0.1)
    assert len(flights.engine.order) == 2
    for arrival in arrivals[:2]:
        flights.send(arrival)
    flights.engine.timers.advance(1.0)
    assert len(flights.engine.order) == 2, "now they are counted instead"
    flights.complete(arrivals[0])
    flights.engine.timers.settle()
    assert flights.engine.order == ["r0", "r1", "r2"]


def test_flow_83_who_is_denied_behind_flow_control_gives_the_credit_back() -> None:
    flights = Flights(max_concurrency=1, endpoints=1)
    first, second = (flights.engine.arrive(slow=True) for _ in range(2))
    first.denied()
    flights.engine.timers.turn()
    assert second.is_let_go
    assert flights.engine.control.saturation.credits.requests == 1


def test_credits_are_counted_in_tokens_where_tokens_count() -> None:
    flights = Flights(max_concurrency=1, endpoints=1, concurrencyMode="tokens", maxTokenConcurrency=2)
    assert flights.engine.arrive(slow=True).is_let_go
    assert flights.engine.control.saturation.credits.tokens == 1, "a quarter of the 5 bytes of the prompt"
    assert flights.engine.arrive(slow=True).is_let_go
    assert flights.engine.arrive(slow=True).waits


def test_an_exact_detector_lets_all_go_that_fit_without_a_tick() -> None:
    flights = Flights(max_concurrency=100, endpoints=0)
    for _ in range(80):
        flights.engine.arrive(slow=True)
    flights.engine.scale(1)
    flights.engine.timers.turn()
    assert len(flights.engine.order) == 32, "others get a turn of the event loop in between"
    flights.engine.timers.settle()
    assert (len(flights.engine.order), flights.engine.clock.now_s) == (80, 0.0)


def test_an_inexact_detector_lets_one_go_in_a_millisecond_and_one_for_an_arrival() -> None:
    engine = Engine(Foreseen(1.0))
    for _ in range(10):
        engine.arrive()
    engine.level(0.0)
    engine.timers.settle()
    assert len(engine.order) == 1
    engine.level(0.0)
    engine.timers.settle()
    assert len(engine.order) == 1, "another scrape within the same millisecond"
    engine.arrive("late")
    assert engine.order == ["r0", "r1"], "the arrival lets the first one go"
    engine.timers.advance(0.0031)
    assert len(engine.order) == 5
    engine.timers.advance(1.0)
    assert engine.order[-1] == "late"


class Numbers:
    """What the running-requests detector reads."""

    def __init__(self, running: int, ready: int) -> None:
        self.running, self.ready = running, ready

    def running_requests(self) -> int:
        return self.running

    def ready_endpoints(self) -> int:
        return self.ready


def test_the_running_requests_detector_counts_what_was_let_go_since_it_looked() -> None:
    numbers = Numbers(running=8, ready=1)
    context = make_context()
    context.pool = numbers
    detector = make_plugin(running_requests_detector.PLUGIN, {"maxConcurrencyPerPod": 10, "cacheTTL": "100ms"}, context)
    engine = Engine(detector)
    context.clock = engine.clock
    detector._clock = engine.clock
    arrivals = [engine.arrive() for _ in range(4)]
    assert [arrival.is_let_go for arrival in arrivals] == [True, True, False, False]
    numbers.running = 9
    engine.timers.advance(0.09)
    assert len(engine.order) == 2, "the numbers are reused"
    engine.timers.advance(0.02)
    assert len(engine.order) == 3, "and then looked at again, without any event"


@pytest.mark.parametrize("end", ["sent", "denied", "leaves"])
def test_every_end_of_a_decision_gives_the_credit_back(end: str) -> None:
    engine = Engine(0.0)
    arrival = engine.arrive(slow=True)
    assert engine.control.saturation.credits.requests == 1
    getattr(arrival, end)()
    assert engine.control.saturation.credits.requests == 0
    if end == "sent":
        arrival.completes()
    assert arrival.ticket is not None
    arrival.ticket.over()
    assert engine.control.saturation.credits.requests == 0


def test_a_stream_that_ends_before_its_decision_gives_the_credit_back_once() -> None:
    engine = Engine(0.0)
    arrival = engine.arrive(slow=True)
    assert arrival.ticket is not None
    arrival.ticket.over()
    arrival.ticket.decided(None)
    assert engine.control.saturation.credits.requests == 0


def test_a_decision_that_fails_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(1.0)
    first, second = engine.arrive(), engine.arrive()

    def fails() -> None:
        raise ZeroDivisionError

    assert first.ticket is not None
    first.ticket.when_ended(fails)
    engine.drain()
    assert second.is_let_go
    assert "a decision failed when its request left the queue" in caplog.text


def test_refusals_are_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = Engine(1.0, template=band(max_requests=1))
    for _ in range(50):
        engine.arrive()
    assert not caplog.records
    engine.timers.advance(3.0)
    (record,) = [record for record in caplog.records if record.name == "epp.flowcontrol"]
    assert record.getMessage().startswith("requests not served by flow control")


def test_those_whom_the_stop_refuses_are_logged_before_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = Engine(1.0)
    engine.arrive()
    engine.control.stop()
    (record,) = [record for record in caplog.records if record.name == "epp.flowcontrol"]
    assert record.getMessage().startswith("requests not served by flow control")
    engine.timers.advance(3.0)
    assert len(caplog.records) == 1
