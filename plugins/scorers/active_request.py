"""active-request-scorer: prefer endpoints to which this picker has few requests in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.params import Ignored, Int, Params, format_duration, parse_duration
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, EndpointChange, EndpointId, InferenceRequest

TYPE = "active-request-scorer"
DEFAULT_TIMEOUT_S = 120.0


class ActiveRequestScorerParams(Params):
    """Parameters of active-request-scorer."""

    request_timeout: str = Field(
        default="2m",
        description="A request counts at most this long, a duration such as `90s`; what is no positive duration = 2m.",
    )
    idle_threshold: Int = Field(default=0, description="Endpoints with at most this many requests score 1.0; < 0 = 0.")
    max_busy_score: float = Field(
        default=1.0, description="Upper bound of the scores of busy endpoints, in [0, 1]; outside of it = 1.0."
    )
    in_flight_load_producer_name: Annotated[str, Ignored("the scorer counts the requests itself")] = Field(
        default="", description="Producer of the load in flight."
    )


@dataclass(slots=True)
class _Load:
    """Requests in flight to one endpoint. Those of an endpoint that went away count down an orphan."""

    endpoint_id: EndpointId
    active: int = 0


@dataclass(slots=True)
class _Flight:
    """One request and the endpoints it was counted on."""

    request: InferenceRequest
    """Keeps the object alive, so that its identity stays unique."""
    loads: list[_Load]
    deadline_s: float


class ActiveRequestScorer:
    """Score by requests in flight, relative to the busiest candidate.

    Parameters: requestTimeout, idleThreshold, maxBusyScore.
    Reads: nothing; counts the first target of every profile from PreRequest to ResponseComplete, at most requestTimeout.
        Requests are told apart by the object, because clients may repeat a request id.
    Formula: 1.0 up to ``idleThreshold`` requests, else ``(max - c) / max * maxBusyScore``.
    Missing data: an endpoint that was sent nothing has 0 requests. Other pickers' requests are not seen.
    Source: llm-d-router v0.7.1: pkg/plugins/scorer/active_request.go
    """

    def __init__(
        self,
        clock: Callable[[], float],
        timeout_s: float = DEFAULT_TIMEOUT_S,
        idle_threshold: int = 0,
        max_busy_score: float = 1.0,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._idle_threshold = idle_threshold
        self._max_busy_score = max_busy_score
        self._loads: dict[EndpointId, _Load] = {}
        self._flights: dict[int, _Flight] = {}
        """By identity of the request, in order of the deadlines, because all have the same timeout."""

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        if not self._loads:
            return [1.0] * len(candidates)
        loads = self._loads.get
        active = [load.active if (load := loads(endpoint.id)) else 0 for endpoint in candidates.endpoints]
        if expired := self._expired():
            active = [count - expired[endpoint.id] for count, endpoint in zip(active, candidates.endpoints, strict=True)]
        high, idle = max(active, default=0), self._idle_threshold
        if high <= idle:
            return [1.0] * len(active)
        scale = self._max_busy_score / high
        return [1.0 if count <= idle else (high - count) * scale for count in active]

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Count the request on the first target of every profile that picked one."""
        self._expire()
        self._release(id(request))
        loads = []
        for profile in result.profiles.values():
            if profile is not None and profile.targets:
                endpoint_id = profile.targets[0].id
                load = self._loads.get(endpoint_id)
                if load is None:
                    load = self._loads[endpoint_id] = _Load(endpoint_id)
                load.active += 1
                loads.append(load)
        self._flights[id(request)] = _Flight(request, loads, self._clock() + self._timeout_s)

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Stop counting the request; nothing happens if it is not counted."""
        self._release(id(request))

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone; one that comes back under the same id begins at 0."""
        for endpoint in change.removed:
            self._loads.pop(endpoint.id, None)

    def debug_state(self) -> object:
        """Requests in flight by endpoint."""
        self._expire()
        return {"requests": len(self._flights), "active": {load.endpoint_id: load.active for load in self._loads.values()}}

    def _expired(self) -> Counter[EndpointId]:
        """How many of the requests that are counted should not be: scoring looks past them, and leaves them to ``_expire``."""
        now = self._clock()
        expired: Counter[EndpointId] = Counter()
        for flight in self._flights.values():
            if flight.deadline_s > now:
                break
            expired.update(load.endpoint_id for load in flight.loads if self._loads.get(load.endpoint_id) is load)
        return expired

    def _expire(self) -> None:
        now = self._clock()
        while self._flights:
            oldest = next(iter(self._flights))
            if self._flights[oldest].deadline_s > now:
                return
            self._release(oldest)

    def _release(self, key: int) -> None:
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        for load in flight.loads:
            load.active -= 1
            if load.active == 0 and self._loads.get(load.endpoint_id) is load:
                del self._loads[load.endpoint_id]


def _create(context: PluginContext, params: ActiveRequestScorerParams) -> ActiveRequestScorer:
    return ActiveRequestScorer(
        context.clock, _timeout_s(context, params), _idle_threshold(context, params), _max_busy_score(context, params)
    )


def _timeout_s(context: PluginContext, params: ActiveRequestScorerParams) -> float:
    fallback = format_duration(DEFAULT_TIMEOUT_S)
    try:
        timeout_s = parse_duration(params.request_timeout)
    except ValueError as error:
        context.warn("requestTimeout", f"{error}; {fallback} is used")
        return DEFAULT_TIMEOUT_S
    if timeout_s > 0:
        return timeout_s
    context.warn("requestTimeout", f"{params.request_timeout!r} is not positive; {fallback} is used")
    return DEFAULT_TIMEOUT_S


def _idle_threshold(context: PluginContext, params: ActiveRequestScorerParams) -> int:
    if params.idle_threshold >= 0:
        return params.idle_threshold
    context.warn("idleThreshold", f"{params.idle_threshold} is negative; 0 is used")
    return 0


def _max_busy_score(context: PluginContext, params: ActiveRequestScorerParams) -> float:
    if 0 <= params.max_busy_score <= 1:
        return params.max_busy_score
    context.warn("maxBusyScore", f"{params.max_busy_score:g} is outside [0, 1]; 1.0 is used")
    return 1.0


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.PRE_REQUEST, Role.RESPONSE_COMPLETE}),
    summary="Prefers endpoints to which this picker has few requests in flight.",
    params=ActiveRequestScorerParams,
    factory=_create,
    example="""
        requestTimeout: 90s
        idleThreshold: 1
    """,
)
