"""Flow control: a request goes on at once, waits for its turn, or is refused.

All of it is plain functions on the event loop, atomic between two turns of it. A waiting request is a ticket in a heap: no
task, no future, no timer of its own. Something is done only when something has changed: an arrival, a credit that came back, a
stream that ended, a scrape, an endpoint; or when the one timer comes, which is set to the next moment at which time alone can
change something. Each ticket gets exactly one outcome: here, in ``_let_go``, ``_refuse`` and ``left``.

Source: llm-d-router: pkg/epp/flowcontrol; its sharding, sweeping and ticking are not needed on one event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from math import inf
from typing import Any

from epp.errors import RequestError
from epp.flowcontrol.admission import Hold
from epp.flowcontrol.alarm import Alarm
from epp.flowcontrol.bands import Bands
from epp.flowcontrol.books import Books
from epp.flowcontrol.cycle import Cycle
from epp.flowcontrol.deadlines import Deadlines
from epp.flowcontrol.eviction import Evictor
from epp.flowcontrol.outcomes import Outcome, refusal
from epp.flowcontrol.patience import caller_deadline_s, queue_ttl_s, time_to_wait_s
from epp.flowcontrol.queues import Band
from epp.flowcontrol.refusal_log import RefusalLog
from epp.flowcontrol.saturation import TICK_S, Saturation
from epp.flowcontrol.settings import FlowControlSettings, Named
from epp.flowcontrol.shares import Shares
from epp.flowcontrol.tickets import State, Ticket
from epp.flowcontrol.timers import Handle, LoopTimers, Timers
from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.types import EndpointChange, InferenceRequest
from epp.plugin_calls.defects import Defects
from epp.telemetry.flow_control import FlowMetrics, FlowSeries

BATCH = 32
"""Requests that are let go one after the other before others have a turn of the event loop: some 2 ms of decisions."""
HEARTBEAT_S = 1.0
"""Longest time without a look while requests wait: what a plugin changes without telling is noticed then."""
COLLECT_EVERY_S = 60.0

_logger = log.get("epp.flowcontrol")


class FlowController:
    """Lets the requests of one pool in. Implements ``Admission``, ``Desk`` and ``FollowsEndpoints``.

    Args:
        settings: of the first configuration.
        endpoints: all endpoints of the pool, with their metrics.
        metrics: where it is counted.
        defects: told of policies that fail.
        clock: seconds, monotonic.
        stopwatch: seconds; of how long an arrival or a cycle takes.
        timers: call back; default: the event loop that runs.
    """

    needs_candidates = False

    def __init__(
        self,
        settings: FlowControlSettings,
        endpoints: Callable[[], Candidates],
        metrics: FlowMetrics,
        defects: Defects,
        *,
        clock: Callable[[], float] = time.monotonic,
        stopwatch: Callable[[], float] = time.perf_counter,
        timers: Timers | None = None,
    ) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self._defects = defects
        self._clock = clock
        self._stopwatch = stopwatch
        self._timers = timers or LoopTimers(clock)
        self._alarm = Alarm(self._timers, self._run)
        self._books = Books(metrics, RefusalLog(clock, self._timers))
        self.bands = Bands(settings, self._failed)
        self.saturation = Saturation(settings.detector, self._failed)
        self.deadlines = Deadlines()
        self.deadlines.begin(pool_is_empty=not endpoints())
        self.evictor = Evictor(settings.eviction, metrics, self._failed) if settings.eviction is not None else None
        self.shares = Shares(self.bands)
        self.shares.look()
        self.cycle = Cycle(settings.usage, self.bands, self.shares, self._failed)
        self.is_stopped = False
        """Nothing is taken any more."""
        self._is_running = False
        self._collector: Handle | None = None
        self._next_s = -inf
        """When an inexact detector lets the next request go that is no arrival."""
        self._goes_on = False
        """It has let one go, and there may be room for more."""

    # ── Admission ──

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold:  # noqa: ARG002 — it stands before them
        """A ticket, which has ended already if the request may go on.

        Raises:
            RequestError: there is no room to wait, or flow control has stopped.
        """
        now, begun = self._clock(), self._stopwatch()
        band = self.bands.of(request.priority, now)
        series = self._books.series(request, now)
        if self._collector is None and not self.is_stopped:
            self._collector = self._timers.call_at(now + COLLECT_EVERY_S, self._collect)
        self._check(request, band, series, now, begun)
        ticket = Ticket(self, request, band, series, self.bands.next_sequence(), now)
        if self.bands.count:
            self._enqueue(ticket, now)
            self._run(ticket)
        else:
            endpoints = self._look_at_pool(now)
            saturation = self.saturation.effective(endpoints)
            stopped = self.cycle.stopped(saturation if endpoints else inf)
            if band.index < stopped:
                self._let_go(ticket, now)
            else:
                self._enqueue(ticket, now)
                self._reclaim(now, saturation, stopped)
                self._set_timer(now)
        self._books.accepted(series, self._stopwatch() - begun)
        return ticket

    # ── Desk ──

    def left(self, ticket: Ticket) -> None:
        """The client of a waiting request is gone: its place is free at once."""
        if ticket.state is not State.WAITING:
            return
        self._leave(ticket, Outcome.EVICTED_CONTEXT_CANCELLED, self._clock())
        self._wake()

    def decided(self, ticket: Ticket, evict: Callable[[], None] | None) -> None:
        """A request that was let go now shows in the counts of whoever counts, or will not."""
        if ticket.state is not State.LET_GO:
            return
        self.saturation.give_back(ticket.tokens)
        ticket.state = State.OVER if evict is None else State.RUNNING
        if evict is not None and self.evictor is not None:
            self.evictor.track(ticket, evict)
        self._wake()

    def over(self, ticket: Ticket) -> None:
        """Its stream has ended."""
        if ticket.state is State.LET_GO:
            self.saturation.give_back(ticket.tokens)
        elif ticket.state is State.RUNNING and self.evictor is not None:
            self.evictor.untrack(ticket, self._clock())
        ticket.state = State.OVER
        self._wake()

    # ── what changes ──

    def endpoints_changed(self, change: EndpointChange) -> None:  # noqa: ARG002 — the whole pool is looked at
        """Endpoints came, changed or left."""
        self._look_at_pool(self._clock())
        self._wake()

    def scraped(self) -> None:
        """The metrics of an endpoint were read."""
        self._wake()

    def want(self, priorities: Collection[int]) -> None:
        """Objectives of the pool name these priorities."""
        self.bands.want(priorities, self._clock())
        self._bands_changed()

    def use(self, settings: FlowControlSettings) -> None:
        """Go on by another configuration: what waits stays, with its deadlines, in the order of the new policies."""
        self.settings = settings
        self.bands.use(settings, self._clock())
        self.saturation.use(settings.detector)
        self.cycle.use(settings.usage)
        if settings.eviction is None:
            if self.evictor is not None:
                self.evictor.close(self._clock())
            self.evictor = None
        elif self.evictor is None:
            self.evictor = Evictor(settings.eviction, self._books.metrics, self._failed)
        else:
            self.evictor.use(settings.eviction)
        self._bands_changed()

    def refuse_all(self) -> None:
        """Refuse what waits, as if flow control stopped: another picker takes over, which clients reach when they try again."""
        now = self._clock()
        for ticket in list(self.bands.waiting()):
            self._refuse(ticket, Outcome.EVICTED_OTHER, now)

    def stop(self) -> None:
        """Refuse what waits and what still comes; what was let go is not touched. The second time nothing happens."""
        self.is_stopped = True
        self.refuse_all()
        self._books.write()
        self._alarm.cancel()
        if self._collector is not None:
            self._collector.cancel()
            self._collector = None

    def resume(self) -> None:
        """Take requests again."""
        self.is_stopped = False

    # ── arrivals ──

    def _check(self, request: InferenceRequest, band: Band, series: FlowSeries, now_s: float, begun: float) -> None:
        """Refuse a request for which there is no room. It is asked for even if the request need not wait: whether a client may
        send a body of a size must not depend on who else is there.
        """
        what = "" if self.is_stopped else self.bands.shortage(request, band)
        if not what and not self.is_stopped:
            return
        outcome = Outcome.REJECTED_OTHER
        if what:
            outcome = Outcome.REJECTED_CAPACITY if self._look_at_pool(now_s) else Outcome.REJECTED_NO_ENDPOINTS
        self._books.rejected(outcome, band, series, self._stopwatch() - begun)
        raise self._refusal(outcome, band, now_s, what)

    def _enqueue(self, ticket: Ticket, now_s: float) -> None:
        request, band = ticket.request, ticket.band
        ticket.last_s = caller_deadline_s(request.headers, request.received_s)
        ticket.ttl_s = time_to_wait_s(queue_ttl_s(request.headers, band.settings.ttl_s), ticket.last_s - now_s)
        ticket.empty_pool_ttl_s = self.settings.empty_pool_ttl_s
        ticket.ahead = self.bands.ahead_of(band)
        band.push(ticket)
        self.deadlines.add(ticket)
        self._books.waits(ticket)

    # ── dispatch ──

    def _wake(self) -> None:
        """Something has changed: look for requests to let go, once for all that changes in this turn of the event loop."""
        if not self.is_stopped and self.bands.count:
            self._alarm.soon()

    def _run(self, arrival: Ticket | None = None) -> None:
        """Refuse those whose time is up, let go those whose turn it is, and set the timer.

        Args:
            arrival: has just come.
        """
        if self._is_running or self.is_stopped:
            return  # what goes on within a release wakes by itself
        self._is_running = True
        try:
            now = self._clock()
            self._look_at_pool(now)
            while (ticket := self.deadlines.pop(now)) is not None:
                self._expire(ticket, now)
            if self.evictor is not None:
                self.evictor.give_up(now)
            self._dispatch(now, arrival)
            self._set_timer(now)
        finally:
            self._is_running = False

    def _dispatch(self, now_s: float, arrival: Ticket | None) -> None:
        """With an exact detector as many as may go; otherwise one for an arrival, and one in a millisecond.

        The arrival itself is scheduled once ``admit`` has returned, and whoever comes behind it must come later.
        """
        self._goes_on = False
        if self.saturation.is_exact:
            left = BATCH
            while left and self.bands.count and (ticket := self._let_one_go(now_s)) is not None:
                left = left - 1 if ticket is not arrival else 0
            if not left:
                self._wake()
        elif self.bands.count and (arrival is not None or now_s >= self._next_s):
            self._goes_on = self._let_one_go(now_s) is not None
            if self._goes_on and arrival is None:
                self._next_s = now_s + TICK_S

    def _let_one_go(self, now_s: float) -> Ticket | None:
        """One cycle; the ticket that was let go."""
        begun = self._stopwatch()
        endpoints = self.endpoints()
        saturation = self.saturation.effective(endpoints)
        stopped = self.cycle.stopped(saturation if endpoints else inf)
        ticket = self.cycle.take(stopped, now_s)
        self._books.metrics.cycle_s.observe(self._stopwatch() - begun)
        if ticket is None:
            self._reclaim(now_s, saturation, stopped)
        else:
            self._let_go(ticket, now_s)
        return ticket

    def _let_go(self, ticket: Ticket, now_s: float) -> None:
        """It may be scheduled: within this call if it waited, once ``admit`` has returned if it has just come."""
        has_waited = ticket.state is State.WAITING
        ticket.state = State.LET_GO
        ticket.dispatched_s = now_s
        ticket.tokens = self.saturation.take(ticket.request)
        ticket.band.drain.count(now_s)
        if self.shares.is_used:
            self.shares.let_go(ticket.band)
        if has_waited:
            self.deadlines.remove(ticket)
        self._books.let_go(ticket, now_s, has_waited=has_waited)
        self._end(ticket, None)

    def _reclaim(self, now_s: float, saturation: float, stopped: int) -> None:
        """Perhaps end running requests for the bands from ``stopped`` on."""
        if self.evictor is not None and stopped < len(self.bands.ordered) and not self.deadlines.pool_is_empty:
            self.evictor.reclaim(now_s, saturation, self.cycle.ceilings[stopped:], self.bands.ordered[stopped:])

    # ── ends without service ──

    def _expire(self, ticket: Ticket, now_s: float) -> None:
        is_callers = now_s >= ticket.last_s
        outcome = Outcome.EVICTED_TTL
        if self.deadlines.pool_is_empty and not is_callers:
            outcome = Outcome.EVICTED_NO_ENDPOINTS
        self._refuse(ticket, outcome, now_s)

    def _refuse(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        self._leave(ticket, outcome, now_s)
        self._end(ticket, self._refusal(outcome, ticket.band, now_s))

    def _refusal(self, outcome: Outcome, band: Band, now_s: float, what: str = "") -> RequestError:
        is_empty = self.deadlines.pool_is_empty
        return refusal(outcome, pool_is_empty=is_empty, what=what, retry_after_s=self.retry_after_s(band, now_s))

    def _leave(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        ticket.state = State.OVER
        ticket.band.remove(ticket, now_s)
        self.deadlines.remove(ticket)
        self._books.left(ticket, outcome, now_s)

    def _end(self, ticket: Ticket, error: RequestError | None) -> None:
        """Let the decision go on; what goes wrong there must not keep others waiting."""
        try:
            if error is None:
                ticket.release()
            else:
                ticket.refuse(error)
        except Exception as failure:  # noqa: BLE001 — a defect of the decision, which its own stream is told of
            _logger.error("a decision failed when its request left the queue", exc=failure)

    def retry_after_s(self, band: Band, now_s: float) -> float | None:
        """When what waits in a band now will have been served, at the rate of the last seconds; None = it had none."""
        rate = band.drain.per_second(now_s)
        return (band.count + 1) / rate if rate else None

    def ceiling(self, band: Band) -> float | None:
        """Of the last cycle; None if there was none since the bands are as they are."""
        ceilings = self.cycle.ceilings
        return ceilings[band.index] if len(ceilings) == len(self.bands.ordered) else None

    # ── time ──

    def _look_at_pool(self, now_s: float) -> Candidates:
        """All endpoints; that the pool has become empty, or is no longer, is noticed here."""
        endpoints = self.endpoints()
        is_empty = not endpoints
        if is_empty != self.deadlines.pool_is_empty:
            self.deadlines.switch(now_s, self.bands.waiting(), pool_is_empty=is_empty)
        return endpoints

    def _set_timer(self, now_s: float) -> None:
        """Come back when time alone may change something."""
        if not self.bands.count or self.is_stopped:
            return
        when_s = min(self.deadlines.next_s(), now_s + HEARTBEAT_S)
        if self._goes_on or self.cycle.needs_ticks:
            when_s = min(when_s, now_s + TICK_S)
        elif now_s < self._next_s:
            when_s = min(when_s, self._next_s)
        else:
            when_s = min(when_s, self.saturation.next_change_s(now_s))
        if self.evictor is not None and self.evictor.next_s() > now_s:
            when_s = min(when_s, self.evictor.next_s())
        self._alarm.at(when_s)

    def _collect(self) -> None:
        """Forget bands and series that nobody has used for long."""
        now = self._clock()
        self._collector = None
        may_go = self.bands.collect(now)
        if self._books.metrics.prune(now) or may_go:
            self._collector = self._timers.call_at(now + COLLECT_EVERY_S, self._collect)

    def _bands_changed(self) -> None:
        self.shares.look()
        self._wake()

    def _failed(self, role: str, policy: Named[Any], problem: Exception | str) -> None:
        self._defects.plugin_failed(role, policy.type, policy.name, problem)
