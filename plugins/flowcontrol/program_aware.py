"""program-aware-fairness: the flow that was served least, or that has come farthest, is next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

from pydantic import Field

from epp.framework.flow_control import FairnessPolicy, Turns, WaitingFlow
from epp.framework.handle import PluginContext, PluginMetrics
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.params import Ignored, Params
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, InferenceRequest

TYPE = "program-aware-fairness"
MAX_SHOWN = 1000
"""Programs with series of their own; clients can invent any number."""
_INDEX = "llm_d_epp_program_aware_jains_fairness_index"
_WAIT = "llm_d_epp_program_aware_avg_wait_time_milliseconds"
_SERVICE = "llm_d_epp_program_aware_attained_service_tokens"
_OUTPUT_WEIGHT = 2
"""A token that is generated costs more than one that is read. Source: llm-d-router, as below."""


class ProgramAwareFairnessParams(Params):
    """Parameters of program-aware-fairness."""

    strategy: Literal["", "las", "turn-priority"] = Field(
        default="las", description="`las`: least attained service; `turn-priority`: most turns; empty = `las`."
    )
    las_weight_service: float = Field(default=0.8, ge=0, description="Weight of the service received.")
    las_weight_head_wait: float = Field(default=0.2, ge=0, description="Weight of the first request's wait.")
    las_half_life_seconds: float = Field(default=60, ge=0, description="Seconds in which service is half forgotten; 0 = never.")
    las_decay_factor: Annotated[float, Ignored("service fades by lasHalfLifeSeconds alone")] = Field(
        default=0.99997, gt=0, le=1, description="Share of the service kept at each pick (llm-d v0.9)."
    )
    eviction_ttl_seconds: float = Field(default=3600, ge=0, description="Idle seconds until a flow is forgotten; 0 = never.")
    eviction_sweep_seconds: float = Field(default=300, gt=0, description="Seconds between searches for idle flows.")
    turn_priority_time_weight: float = Field(default=0.5, ge=0, description="Weight of the seconds waited (`turn-priority`).")


class Program:
    """What is known of one fairness id, in all bands together."""

    __slots__ = ("dispatched", "folded_s", "in_flight", "last_s", "service", "waited_s")

    def __init__(self, now_s: float) -> None:
        self.in_flight = 0
        self.dispatched = 0
        self.waited_s = 0.0
        """Of all its requests together."""
        self.last_s = now_s
        """Its last completion; before the first one, its beginning."""
        self.service = 0.0
        self.folded_s = now_s
        """When ``service`` was right."""

    def faded(self, now_s: float, half_life_s: float) -> float:
        """The service attained, as of now."""
        if half_life_s and now_s > self.folded_s:
            self.service *= 2 ** ((self.folded_s - now_s) / half_life_s)
        self.folded_s = now_s
        return self.service

    @property
    def mean_wait_s(self) -> float:
        """Of a request."""
        return self.waited_s / self.dispatched if self.dispatched else 0.0


class ProgramAwareFairness:
    """Treat all requests of a fairness id as one program, and serve the program that is behind.

    Least attained service (`las`) favours programs that used few tokens of late; `turn-priority` favours those with many
    requests behind them, whose prefixes are still cached. Each look goes through all waiting flows of the band.

    Parameters: strategy, lasWeightService, lasWeightHeadWait, lasHalfLifeSeconds, lasDecayFactor, evictionTtlSeconds,
        evictionSweepSeconds, turnPriorityTimeWeight.
    Reads: the usage that model servers report; how long the first request of each flow has waited.
    Formula: ``las``: highest ``weightService * (1 - norm(service)) + weightHeadWait * norm(wait)``, where service is ``prompt +
        2 * completion`` tokens, halved every half-life, waits are whole milliseconds, and ``norm`` maps the waiting flows to 0
        to 1 (0.5 if all are equal). ``turn-priority``: highest ``requests so far + weight * seconds waited``. Of equals the
        one with the smaller id.
    Missing data: a program that is not known has no service and no turns.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/fairness/program-aware
    """

    by_flow = True

    def __init__(self, params: ProgramAwareFairnessParams, clock: Callable[[], float], metrics: PluginMetrics) -> None:
        self._params = params
        self._clock = clock
        self._metrics = metrics
        self._programs: dict[str, Program] = {}
        self._shown: set[str] = set()
        self._sweep_s = clock() + params.eviction_sweep_seconds

    def new_turns(self) -> Turns:
        """Of one band; programs are known across bands."""
        return _ProgramTurns(self)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """A request of the program is sent."""
        program = self._program(request.fairness_id)
        program.in_flight += 1
        program.dispatched += 1
        self._show(request.fairness_id, program)

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """It is over, and what it used is known."""
        now = self._clock()
        program = self._program(request.fairness_id)
        usage = completion.usage
        program.service = program.faded(now, self._params.las_half_life_seconds)
        program.service += usage.prompt_tokens + _OUTPUT_WEIGHT * usage.completion_tokens
        program.in_flight = max(program.in_flight - 1, 0)
        program.last_s = now
        self._show(request.fairness_id, program)
        self._sweep(now)

    def debug_state(self) -> object:
        """How many programs are known."""
        return {"programs": len(self._programs), "inFlight": sum(p.in_flight for p in self._programs.values())}

    def choose(self, flows: Iterable[WaitingFlow], now_s: float) -> WaitingFlow | None:
        """The flow whose program is behind."""
        waiting = list(flows)
        if not waiting:
            return None
        if len(waiting) == 1:
            chosen = waiting[0]
        elif self._params.strategy == "turn-priority":
            chosen = _highest(self._turn_scores(waiting, now_s), waiting)
        else:
            chosen = _highest(self._las_scores(waiting, now_s), waiting)
        self._program(chosen.id).waited_s += now_s - chosen.head.enqueued_s
        return chosen

    def _las_scores(self, flows: list[WaitingFlow], now_s: float) -> list[float]:
        half_life_s = self._params.las_half_life_seconds
        programs = [self._programs.get(flow.id) for flow in flows]
        service = _norm([program.faded(now_s, half_life_s) if program is not None else 0.0 for program in programs])
        waits = _norm([float(int((now_s - flow.head.enqueued_s) * 1000 + 1e-6)) for flow in flows])
        by_service, by_wait = self._params.las_weight_service, self._params.las_weight_head_wait
        return [by_service * (1 - used) + by_wait * waited for used, waited in zip(service, waits, strict=True)]

    def _turn_scores(self, flows: list[WaitingFlow], now_s: float) -> list[float]:
        weight = self._params.turn_priority_time_weight
        programs = [self._programs.get(flow.id) for flow in flows]
        return [
            (program.dispatched if program is not None else 0) + weight * (now_s - flow.head.enqueued_s)
            for program, flow in zip(programs, flows, strict=True)
        ]

    def _program(self, program_id: str) -> Program:
        program = self._programs.get(program_id)
        if program is None:
            program = self._programs[program_id] = Program(self._clock())
        return program

    def _show(self, program_id: str, program: Program) -> None:
        if program_id not in self._shown:
            if len(self._shown) >= MAX_SHOWN:
                return
            self._shown.add(program_id)
        self._metrics.gauge(_WAIT, program_id=program_id).set(program.mean_wait_s * 1000)
        self._metrics.gauge(_SERVICE, program_id=program_id).set(program.service)

    def _sweep(self, now_s: float) -> None:
        """Forget idle programs, and tell how fair the waits of the others are."""
        if now_s < self._sweep_s:
            return
        self._sweep_s = now_s + self._params.eviction_sweep_seconds
        ttl_s = self._params.eviction_ttl_seconds
        if ttl_s:
            idle = [key for key, p in self._programs.items() if not p.in_flight and now_s - p.last_s > ttl_s]
            for key in idle:
                del self._programs[key]
        self._metrics.gauge(_INDEX).set(jain_index([program.mean_wait_s for program in self._programs.values()]))


class _ProgramTurns:
    """The waiting flows of one band."""

    def __init__(self, policy: ProgramAwareFairness) -> None:
        self._policy = policy
        self._flows: dict[str, WaitingFlow] = {}

    def begin(self, flow: WaitingFlow) -> None:
        self._flows[flow.id] = flow

    def cease(self, flow: WaitingFlow) -> None:
        del self._flows[flow.id]

    def next(self, now_s: float) -> WaitingFlow | None:
        return self._policy.choose(self._flows.values(), now_s)


def jain_index(values: list[float]) -> float:
    """How evenly ``values`` are spread: 1 = all are equal, 1/n = one has all."""
    squares = sum([value * value for value in values])
    return sum(values) ** 2 / (len(values) * squares) if len(values) > 1 and squares else 1.0


def _highest(scores: list[float], flows: list[WaitingFlow]) -> WaitingFlow:
    """Of equal scores the one with the smaller id."""
    best = max(scores)
    return min([flow for score, flow in zip(scores, flows, strict=True) if score == best], key=lambda flow: flow.id)


def _norm(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values] if high > low else [0.5] * len(values)


def _create(context: PluginContext, params: ProgramAwareFairnessParams) -> FairnessPolicy:
    return ProgramAwareFairness(params, context.clock, context.metrics)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FAIRNESS_POLICY, Role.PRE_REQUEST, Role.RESPONSE_COMPLETE}),
    summary="The flow that was served least.",
    params=ProgramAwareFairnessParams,
    factory=_create,
)
