"""The books of requests under way, against a plain list of them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from epp.framework.testing import FakeClock, make_request
from epp.framework.types import EndpointId, InferenceRequest
from plugins.latency.flights import Flight, Flights
from plugins.shared.slo_headers import Objectives

TTL_S = 10.0
IDS = [EndpointId(f"default/{name}") for name in "abc"]


@dataclass(eq=False)
class Known:
    """A request as the model knows it."""

    request: InferenceRequest
    objective_ms: float
    deadline_s: float
    shares: list[tuple[EndpointId, int, int]]


class FlightsMachine(RuleBasedStateMachine):
    """Any order of beginnings, first tokens, ends, time and endpoints that go away."""

    begun = Bundle("begun")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.flights = Flights(self.clock, TTL_S)
        self.model: list[Known] = []

    @rule(
        target=begun,
        objective_ms=st.sampled_from([0.0, 5.0, 5.0, 20.0]),
        tokens=st.integers(0, 100),
        places=st.lists(st.sampled_from(IDS), min_size=1, max_size=2, unique=True),
    )
    def begin(self, objective_ms: float, tokens: int, places: list[EndpointId]) -> Known:
        shares = [(place, tokens, tokens // 2) for place in places]
        known = Known(make_request(request_id="same for all"), objective_ms, self.clock.now_s + TTL_S, shares)
        flight = Flight(
            request=known.request,
            endpoint_id=places[0],
            role="",
            objectives=Objectives(0.0, objective_ms),
            deadline_s=self.flights.deadline_s(),
            sent_s=self.clock.now_s,
            row=None,
            output_cap=0.0,
            prediction=None,
        )
        self.flights.begin(flight, shares)
        self.model.append(known)
        return known

    @rule(known=begun)
    def first_token(self, known: Known) -> None:
        flight = self.flights.get(known.request)
        if flight is not None:
            self.flights.first_token(flight)
            known.shares = [(place, tokens, 0) for place, tokens, _ in known.shares]

    @rule(known=consumes(begun))
    def end(self, known: Known) -> None:
        self.flights.end(known.request)
        assert self.flights.end(known.request) is None
        self.model = [other for other in self.model if other is not known]

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flights.expire()
        self.model = [known for known in self.model if known.deadline_s > self.clock.now_s]

    @rule(place=st.sampled_from(IDS))
    def endpoint_removed(self, place: EndpointId) -> None:
        self.flights.forget(place)
        for known in self.model:
            known.shares = [share for share in known.shares if share[0] != place]

    @invariant()
    def loads_equal_the_model(self) -> None:
        assert len(self.flights) == len(self.model)
        expected: dict[EndpointId, tuple[int, int, int, list[float]]] = {}
        for place in IDS:
            here = [(known, share) for known in self.model for share in known.shares if share[0] == place]
            if here:
                objectives = sorted(known.objective_ms for known, _ in here if known.objective_ms)
                tokens, prefill = sum(share[1] for _, share in here), sum(share[2] for _, share in here)
                expected[place] = (len(here), tokens, prefill, objectives)
        loads = self.flights.loads
        found = {p: (x.requests, x.tokens, x.prefill_tokens, x.tpot_objectives_ms) for p, x in loads.items()}
        assert found == expected


TestFlightsMachine = FlightsMachine.TestCase
TestFlightsMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
