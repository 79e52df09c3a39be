"""Flow control with a clock, an event loop, endpoints and a detector that tests control; requests whose way is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from epp.datalayer.store import EndpointStore
from epp.errors import RequestError
from epp.flowcontrol import pages
from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.settings import BandSettings, EvictionSettings, FlowControlSettings, Named
from epp.flowcontrol.tickets import State, Ticket
from epp.framework.candidates import Candidates
from epp.framework.interfaces import SaturationDetector
from epp.framework.testing import FakeClock, FakeHeaders, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointMetrics
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.flow_control import FlowMetrics
from epp.telemetry.metrics import Metrics
from plugins.flowcontrol import eviction, fairness, ordering, usage_limits
from tests.unit.scheduling.doubles import Reports
from tests.unit.telemetry.scrape import value

POOL = "pool"
TTL_HEADER = "x-llm-d-inference-ttl"


class Alarm:
    """A callback to come."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def ring(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class VirtualTimers:
    """An event loop without waiting: time stands still until it is told to go on."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._soon: list[Alarm] = []
        self._later: list[tuple[float, int, Alarm]] = []
        self._number = 0
        self.rings = 0
        """Timers that came."""

    def call_soon(self, callback: Callable[[], object]) -> Alarm:
        self._soon.append(Alarm(callback))
        return self._soon[-1]

    def call_at(self, when_s: float, callback: Callable[[], object]) -> Alarm:
        self._number += 1
        alarm = Alarm(callback)
        heappush(self._later, (when_s, self._number, alarm))
        return alarm

    @property
    def pending(self) -> int:
        """Callbacks to come."""
        return sum(alarm.callback is not None for _, _, alarm in self._later) + len(self._soon)

    def turn(self) -> None:
        """One turn of the event loop."""
        due, self._soon = self._soon, []
        for alarm in due:
            alarm.ring()

    def settle(self) -> None:
        """Turns until nothing is due now."""
        while self._soon:
            self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that is due on the way."""
        end_s = self._clock.now_s + seconds
        self.settle()
        while self._later and self._later[0][0] <= end_s:
            when_s, _, alarm = heappop(self._later)
            if alarm.callback is None:
                continue
            self._clock.now_s = max(self._clock.now_s, when_s)
            self.rings += 1
            alarm.ring()
            self.settle()
        self._clock.now_s = end_s


class Level:
    """A detector whose answer the test sets. It can neither be foreseen nor counts credits."""

    def __init__(self, level: float = 0.0) -> None:
        self.level = level
        self.asked = 0

    def saturation(self, candidates: Candidates) -> float:
        self.asked += 1
        return self.level if candidates else 1.0


class Foreseen(Level):
    """The same, and nothing but an event changes it."""

    def next_change_s(self) -> float:
        return float("inf")


class Arrival:
    """One request: what became of it, and what its stream and decision do to it."""

    def __init__(self, engine: Engine, name: str, request: Any, *, slow: bool) -> None:
        self.engine, self.name, self.request = engine, name, request
        self.error: RequestError | None = None
        self.ticket: Ticket | None = None
        self.ended_s: float | None = None
        """When it was let go or refused."""
        self.evictions = 0
        self._slow = slow
        try:
            hold = engine.control.admit(request, Candidates((), ()))
        except RequestError as error:
            self.error = error
            self.ended_s = engine.clock.now_s
            engine.on_end(self)
            return
        assert isinstance(hold, Ticket)
        self.ticket = hold
        hold.when_ended(self._goes_on)
        if hold.is_ended:
            self._goes_on()

    @property
    def waits(self) -> bool:
        return self.ticket is not None and self.ticket.state is State.WAITING

    @property
    def is_let_go(self) -> bool:
        return self.ended_s is not None and self.error is None

    @property
    def refusal(self) -> tuple[int, str | None]:
        """Status and reason of its refusal."""
        assert self.error is not None, "it was not refused"
        return self.error.code.http_status, self.error.reason

    def sent(self) -> None:
        """The decision has ended: the request is at an endpoint."""
        assert self.ticket is not None
        self.engine.running += 1
        self.ticket.decided(self._evict)

    def denied(self) -> None:
        """The decision has ended: the request was refused behind flow control."""
        assert self.ticket is not None
        self.ticket.decided(None)
        self.ticket.over()

    def completes(self) -> None:
        """Its response has ended."""
        assert self.ticket is not None
        self.engine.running -= 1
        self.ticket.over()

    def leaves(self) -> None:
        """Its client is gone, wherever the request is; calls are those of the director."""
        assert self.ticket is not None
        state = self.ticket.state
        self.ticket.withdraw()
        if state is State.LET_GO:
            self.ticket.decided(None)
        if state is State.RUNNING:
            self.engine.running -= 1
        self.ticket.over()

    def _goes_on(self) -> None:
        assert self.ticket is not None
        self.error = self.ticket.error
        self.ended_s = self.engine.clock.now_s
        self.engine.on_end(self)
        if self.error is None:
            self.engine.order.append(self.name)
            if not self._slow:
                self.sent()

    def _evict(self) -> None:
        self.evictions += 1
        self.engine.evicted.append(self.name)


def band(**more: Any) -> BandSettings:
    """First come, first served, one queue; ``rr=True`` shares among flows."""
    rr = more.pop("rr", False)
    return BandSettings(
        fairness=more.pop("fairness", None) or named(fairness.ROUND_ROBIN if rr else fairness.GLOBAL_STRICT),
        ordering=more.pop("ordering", None) or named(ordering.FCFS),
        **more,
    )


def named(plugin_type: Any, parameters: Mapping[str, Any] | None = None) -> Named[Any]:
    """A plugin of the tree."""
    return Named(make_plugin(plugin_type, dict(parameters or {})), plugin_type.type, plugin_type.type)


def double(plugin: object, name: str = "double") -> Named[Any]:
    """A plugin of a test."""
    return Named(plugin, name, name)


STATIC = named(usage_limits.STATIC)
EVICTION = EvictionSettings(named(eviction.SHEDDABLE), named(eviction.PRIORITY_THEN_TIME), grace_s=2.3)


class Engine:
    """The engine over endpoints whose number the test sets.

    Args:
        detector: level of saturation at the start, or a detector.
        endpoints: how many there are.
        template: of all bands that ``bands`` does not name.
        more: further fields of ``FlowControlSettings``.
    """

    def __init__(
        self,
        detector: float | SaturationDetector = 0.0,
        *,
        endpoints: int = 1,
        template: BandSettings | None = None,
        bands: Mapping[int, BandSettings] | None = None,
        **more: Any,
    ) -> None:
        self.clock = FakeClock(0.0)
        self.timers = VirtualTimers(self.clock)
        self.detector: Any = Level(detector) if isinstance(detector, (int, float)) else detector
        self.store = EndpointStore()
        self.metrics = Metrics()
        self.reports = Reports()
        self.order: list[str] = []
        """Names of the requests that were let go."""
        self.evicted: list[str] = []
        self.running = 0
        self.on_end: Callable[[Arrival], None] = lambda arrival: None
        """Told of each request that is let go or refused."""
        self.arrivals: list[Arrival] = []
        template = template or band()
        self.settings = FlowControlSettings(
            detector=double(self.detector, "detector"),
            usage=more.pop("usage", STATIC),
            template=template,
            negative_template=more.pop("negative_template", template),
            bands=bands or {},
            **more,
        )
        self.scale(endpoints)
        self.flow_metrics = FlowMetrics(self.metrics, POOL)
        self.control = FlowController(
            self.settings, self.store.candidates, self.flow_metrics, self.reports, clock=self.clock, timers=self.timers
        )
        self.store.subscribe(self.control)
        self.flow_metrics.watch(lambda: pages.snapshot(self.control, self.clock.now_s))

    def scale(self, count: int, labels: Sequence[Mapping[str, str]] = ()) -> None:
        """Have this many endpoints."""
        roles = [*labels, *({} for _ in range(count - len(labels)))]
        self.store.replace_all(
            [Endpoint.of(f"e{i}", f"10.0.0.{i + 1}", 8000, labels) for i, labels in enumerate(roles[:count])]
        )

    def scrape(self, position: int = 0, **metrics: Any) -> None:
        """The metrics of an endpoint are read."""
        endpoint = list(self.store)[position]
        self.store.set_metrics(endpoint.id, EndpointMetrics(**metrics), self.clock.now_s)
        self.control.scraped()

    def arrive(
        self,
        name: str = "",
        *,
        flow: str = "default-flow",
        priority: int = 0,
        size: int = 1,
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
        received_s: float | None = None,
        model: str = "m",
    ) -> Arrival:
        """A request comes."""
        request = replace(
            make_request(),
            headers=FakeHeaders(headers or {}),
            priority=priority,
            fairness_id=flow,
            size_bytes=size,
            model=model,
            target_model=model,
            received_s=self.clock.now_s if received_s is None else received_s,
        )
        arrival = Arrival(self, name or f"r{len(self.arrivals)}", request, slow=slow)
        self.arrivals.append(arrival)
        return arrival

    def level(self, level: float) -> None:
        """The pool is this full from now on, and the engine notices at once, as of a scrape."""
        self.detector.level = level
        self.control.scraped()

    def drain(self) -> list[str]:
        """The pool becomes free; all that waits is let go in this order."""
        begun = len(self.order)
        self.level(0.0)
        self.timers.advance(1.0)
        assert not self.control.bands.count, "something still waits"
        return self.order[begun:]

    def outcomes(self) -> dict[str, float]:
        """How many requests had which outcome."""
        found: dict[str, float] = {}
        for (outcome, _, _), counter in self.metrics._counters[f"{PREFIX}flow_control_requests_total"].children.items():
            found[outcome] = found.get(outcome, 0) + counter.value
        return found

    def metric(self, name: str, /, **labels: str) -> float | None:
        """A sample of flow control's own metrics."""
        return value(self.metrics, f"{PREFIX}flow_control_{name}", **labels)
