"""Requests between decision and end, and what they load each endpoint with."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from epp.framework.keys import LatencyPrediction
from epp.framework.types import EndpointId, InferenceRequest
from plugins.latency.features import Load, Row
from plugins.shared.slo_headers import Objectives


@dataclass(slots=True)
class Share:
    """What one request adds to the load of one endpoint."""

    load: Load
    tokens: int
    prefill_tokens: int
    """Taken back at the first token."""


@dataclass(slots=True)
class Flight:
    """One request that was sent."""

    request: InferenceRequest
    """Keeps the object alive, so that its identity stays unique: clients may repeat a request id."""
    endpoint_id: EndpointId
    """Where it was sent first."""
    role: str
    """Of the endpoint, as it is learned."""
    objectives: Objectives
    deadline_s: float
    sent_s: float
    row: Row | None
    """The features when it was decided, without output limit; None = not known, nothing is learned."""
    output_cap: float
    """Scaled."""
    prediction: LatencyPrediction | None
    prediction_s: tuple[float, float] = (0.0, 0.0)
    """How long predicting took: first token, further ones."""
    shares: list[Share] = field(default_factory=list)
    status: int = 0
    """HTTP status of the response; 0 before it."""
    first_s: float | None = None
    """When the first chunk of a stream came."""
    first_events: int = 0
    """Events with the first chunk."""
    sampled: int = 0
    """Times that the rate of tokens was measured on the way."""
    next_sample: float = 0.0
    """Events after which it is measured next."""


class Flights:
    """All requests that were sent and are not over, at most ``ttl_s`` each.

    Args:
        clock: seconds, monotonic.
        ttl_s: how long a request is remembered that is never completed.
    """

    def __init__(self, clock: Callable[[], float], ttl_s: float) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self.loads: dict[EndpointId, Load] = {}
        self._flights: dict[int, Flight] = {}
        """By identity of the request, in order of the deadlines, because all have the same time."""

    def __len__(self) -> int:
        return len(self._flights)

    def deadline_s(self) -> float:
        """When a request that is sent now is forgotten."""
        return self._clock() + self._ttl_s

    def begin(self, flight: Flight, targets: Iterable[tuple[EndpointId, int, int]]) -> None:
        """Count a request.

        Args:
            targets: endpoint, prompt tokens, uncached prompt tokens: where it was sent, and where its prompt is computed.
        """
        self.end(flight.request)
        objective_ms = flight.objectives.tpot_ms
        for endpoint_id, tokens, uncached in targets:
            load = self.loads.get(endpoint_id)
            if load is None:
                load = self.loads[endpoint_id] = Load(endpoint_id)
            load.requests += 1
            load.tokens += tokens
            load.prefill_tokens += uncached
            if objective_ms > 0:
                insort(load.tpot_objectives_ms, objective_ms)
            flight.shares.append(Share(load, tokens, uncached))
        self._flights[id(flight.request)] = flight

    def get(self, request: InferenceRequest) -> Flight | None:
        """The flight of a request; None if it was not counted or is over."""
        return self._flights.get(id(request))

    def first_token(self, flight: Flight) -> None:
        """The prompt has been computed."""
        for share in flight.shares:
            share.load.prefill_tokens -= share.prefill_tokens
            share.prefill_tokens = 0

    def end(self, request: InferenceRequest) -> Flight | None:
        """Stop counting a request; None if it is not counted."""
        flight = self._flights.pop(id(request), None)
        if flight is None:
            return None
        self.first_token(flight)
        objective_ms = flight.objectives.tpot_ms
        for share in flight.shares:
            load = share.load
            load.requests -= 1
            load.tokens -= share.tokens
            if objective_ms > 0:
                del load.tpot_objectives_ms[bisect_left(load.tpot_objectives_ms, objective_ms)]
            if not load.requests and self.loads.get(load.endpoint_id) is load:
                del self.loads[load.endpoint_id]
        return flight

    def expire(self) -> None:
        """Drop requests that were never completed."""
        now = self._clock()
        while self._flights:
            oldest = next(iter(self._flights.values()))
            if oldest.deadline_s > now:
                return
            self.end(oldest.request)

    def is_current(self, flight: Flight) -> bool:
        """The endpoint that the request was sent to has not gone away since."""
        return bool(flight.shares) and self.loads.get(flight.endpoint_id) is flight.shares[0].load

    def forget(self, endpoint_id: EndpointId) -> None:
        """The endpoint is gone; one that comes back under the same id begins at 0."""
        self.loads.pop(endpoint_id, None)
