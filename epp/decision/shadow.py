"""A second configuration that decides about the requests that are served, after their answers, and changes nothing of them.

One request is shown to it per turn of the event loop, in a task of its own. What does not fit its queue, or the time that it
may take, is left out from beginning to end, so that its plugins never see half a request. Its hooks are told what was really
done, so that its plugins learn what they would have learnt in use. Left out is what only the serving configuration can do:
direct replies, parsing, body rewriters, admission; and chunks of responses that no plugin in use reads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from epp.decision.cached import more_cached
from epp.decision.candidates import CandidateFinder
from epp.decision.flight import Flight
from epp.decision.pipeline import PipelineInUse
from epp.errors import DropReason, ErrorCode, RequestError, SchedulingError
from epp.framework import log
from epp.framework.data import RequestData
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, Endpoint, InferenceRequest, ResponseInfo, StreamingChunk
from epp.hooks.runner import Spawn
from epp.plugin_calls.step import IN_TASK
from epp.request.edits import EditList
from epp.scheduling.cached_prefix import MatchKey
from epp.seam import Metadata, Request, ResponseHead
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.decision_record import DecisionRecord
from epp.telemetry.metrics import Metrics
from epp.telemetry.shadow_comparison import Comparison, ShadowTally, Verdict, compare, without_pick

MAX_WAITING = 256
"""Requests that wait to be shown; each keeps its body in memory."""
MAX_CHUNKS = 1024
"""Pieces of responses that wait."""
BUDGET = 0.1
"""Share of the event loop's time that may go to the shadow."""
BURST_S = 0.1
"""Time that it may have saved up."""
QUEUE, TIME = "queue", "time"
"""Why a request is left out."""

_logger = log.get("epp.decision.shadow")
Step = Callable[[], Coroutine[Any, Any, None]]


class Shadow:
    """Decides beside the serving configuration.

    Args:
        used: its pipeline.
        finder: the candidates.
        metrics: where comparisons are counted.
        spawn: starts its task.
        share: of the requests, from 0 to 1.
        clock: seconds, monotonic; of the budget.
        stopwatch: seconds; of what is spent.
    """

    def __init__(
        self,
        used: PipelineInUse,
        finder: CandidateFinder,
        metrics: Metrics,
        spawn: Spawn,
        *,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.used = used
        self.finder = finder
        self.tally = ShadowTally()
        self.waiting = 0
        """Requests that were taken and not yet shown."""
        self.is_over = False
        """No request is shown any more; those that were are told of to their end."""
        self._metrics = metrics
        self._spawn = spawn
        self._share = share
        self._due = 0.0
        self._clock = clock
        self._stopwatch = stopwatch
        self._budget_s = BURST_S
        self._budget_at_s = clock()
        self._steps: deque[Step] = deque()
        self._is_working = False
        self._took = metrics.histogram(f"{PREFIX}shadow_decision_duration_seconds")

    def offer(self, flight: Flight, request: Request) -> ShadowedRequest | None:
        """A request was sent on its way; None if it is left out."""
        if flight.result is None:
            return None
        self._due += self._share
        if self._due < 1.0:
            return None
        self._due -= 1.0
        if self.waiting >= MAX_WAITING:
            self._leave_out(QUEUE)
            return None
        if not self._has_time():
            self._leave_out(TIME)
            return None
        shown = ShadowedRequest(
            self, flight.inference, flight.result, flight.used.pipeline.match_keys, flight.path, request.metadata
        )
        self.used.begin()
        self.waiting += 1
        self.put(shown.decide)
        return shown

    def retire(self, when_idle: Callable[[], None]) -> None:
        """Show it no more requests; ``when_idle`` is called when the last one is over."""
        self.is_over = True
        self.used.retire(when_idle)

    def put(self, step: Step) -> None:
        """Do this in a later turn of the event loop, after all that was put before."""
        self._steps.append(step)
        if not self._is_working:
            self._is_working = True
            _ = self._spawn(self._work(), "shadow")

    def put_chunk(self, step: Step) -> None:
        """The same for what may be lost."""
        if len(self._steps) < MAX_CHUNKS:
            self.put(step)

    def count(self, found: Comparison, took_s: float) -> None:
        """A request was compared."""
        self.tally.add(found)
        self._took.observe(took_s)
        metrics = self._metrics
        metrics.counter(f"{PREFIX}shadow_decisions_total", result=found.verdict.value).inc()
        if found.verdict is not Verdict.DISAGREE:
            return
        metrics.counter(f"{PREFIX}shadow_disagreements_total", reason=found.reason).inc()
        if found.margin is not None:
            metrics.histogram(f"{PREFIX}shadow_score_margin").observe(found.margin)
        if found.prefix_tokens:
            change = "won" if found.prefix_tokens > 0 else "lost"
            metrics.counter(f"{PREFIX}shadow_prefix_tokens_total", change=change).inc(abs(found.prefix_tokens))

    def spend(self, seconds: float) -> None:
        """The event loop was held for that long."""
        self._budget_s -= seconds

    async def _work(self) -> None:
        try:
            while self._steps:
                step = self._steps.popleft()
                try:
                    await _Metered(step(), self.spend, self._stopwatch)
                except Exception as error:  # noqa: BLE001 — a defect of ours; requests and later steps go on
                    _logger.error("internal error", exc=error, place="shadow")
                await asyncio.sleep(0)
        finally:
            self._is_working = False

    def _has_time(self) -> bool:
        now = self._clock()
        self._budget_s = min(self._budget_s + (now - self._budget_at_s) * BUDGET, BURST_S)
        self._budget_at_s = now
        return self._budget_s > 0

    def _leave_out(self, why: str) -> None:
        self.tally.skip(why)
        self._metrics.counter(f"{PREFIX}shadow_skipped_total", reason=why).inc()


class ShadowedRequest:
    """One request as the shadow sees it. Implements ``flight.Shadowed``.

    Args:
        shadow: its shadow.
        request: as plugins in use have left it.
        result: what was done.
        live_keys: where producers in use have written their matches.
        path: of the request.
        metadata: of the data plane.
    """

    __slots__ = ("_is_shown", "_live", "_live_keys", "_metadata", "_path", "_request", "_result", "_shadow", "_tail")

    def __init__(
        self,
        shadow: Shadow,
        request: InferenceRequest,
        result: SchedulingResult,
        live_keys: tuple[MatchKey, ...],
        path: str,
        metadata: Metadata,
    ) -> None:
        self._shadow = shadow
        self._live = request
        self._live_keys = live_keys
        self._path = path
        self._metadata = metadata
        self._request = replace(request, data=_known(shadow, request))
        self._result = result
        self._is_shown = False
        self._tail: asyncio.Task[None] | None = None

    # ── from the director ──

    def chunks(self, told: Sequence[StreamingChunk]) -> None:
        """Pieces of the response, where plugins in use read them."""
        if self._shadow.used.pipeline.hooks.hooks.streaming:
            self._shadow.put_chunk(partial(self._tell_chunks, told))

    def over(self, completion: Completion | None, head: ResponseHead | None) -> None:
        """The response is over; called once."""
        self._shadow.put(partial(self._tell_end, completion, head))

    # ── later ──

    async def decide(self) -> None:
        """Decide, compare, and tell the plugins what was done."""
        shadow = self._shadow
        shadow.waiting -= 1
        if shadow.is_over:
            return
        self._is_shown = True
        begun = time.perf_counter()
        record = DecisionRecord(path=self._path, request_id=self._live.request_id, model=self._live.model)
        found = await self._compare(record)
        shadow.count(found, time.perf_counter() - begun)
        hooks = shadow.used.pipeline.hooks
        if hooks.hooks.pre_request:
            try:
                await hooks.pre_request(self._request, self._result, EditList(), IN_TASK)
            except RequestError as error:
                _logger.verbose("shadow refuses", request_id=self._live.request_id, problem=str(error))

    async def _compare(self, record: DecisionRecord) -> Comparison:
        live = _target(self._result)
        try:
            result = await self._decided(record)
        except RequestError as error:
            verdict = Verdict.FAILED if error.code is ErrorCode.INTERNAL else Verdict.REFUSED
            return without_pick(record, live.host_port, verdict, str(error))
        except SchedulingError as error:  # without a reason a plugin has failed
            return without_pick(record, live.host_port, Verdict.FAILED if error.reason is None else Verdict.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 — whatever it is, it is the shadow's
            _logger.error("internal error", exc=error, place="shadow decision")
            return without_pick(record, live.host_port, Verdict.FAILED, f"{type(error).__name__}: {error}")
        keys = self._shadow.used.pipeline.match_keys
        known, keys = (self._request, keys) if keys else (self._live, self._live_keys)
        target = _target(result)
        return compare(record, live.host_port, target.host_port, more_cached(known, keys, target.id, live.id))

    async def _decided(self, record: DecisionRecord) -> SchedulingResult:
        """As the director decides, as far as it can be done twice.

        Raises:
            RequestError, SchedulingError: there is no decision.
        """
        shadow, request = self._shadow, self._request
        pipeline = shadow.used.pipeline
        hooks = pipeline.hooks
        hooks.request_header(request, EditList(), record)
        candidates = hooks.screen(request, shadow.finder.find(self._metadata), record)
        if not candidates:
            raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, "screeners leave no candidate", DropReason.NO_ENDPOINTS)
        await hooks.produce(request, candidates, IN_TASK, record)
        await hooks.admit(request, candidates, IN_TASK, record)
        return pipeline.scheduler.schedule(request, candidates, record)

    async def _tell_chunks(self, told: Sequence[StreamingChunk]) -> None:
        if not self._is_shown:
            return
        for chunk in told:
            self._tail = self._shadow.used.pipeline.hooks.streaming(self._request, self._result, chunk, self._tail)

    async def _tell_end(self, completion: Completion | None, head: ResponseHead | None) -> None:
        used = self._shadow.used
        try:
            if self._is_shown and completion is not None:
                hooks = used.pipeline.hooks
                if head is not None and hooks.hooks.received:
                    response = ResponseInfo(head.status, head.headers, completion.served, head.metadata, head.at_s)
                    hooks.received(self._request, self._result, response, EditList())
                told = replace(completion, metadata={})
                self._tail = hooks.complete(self._request, self._result, told, self._tail)
        finally:
            if self._tail is not None and not self._tail.done():
                self._tail.add_done_callback(lambda _: used.end())
            else:
                used.end()


@dataclass(slots=True)
class _Metered:
    """Awaits ``work`` and tells how long each of its turns held the event loop; what it waits for is free."""

    work: Coroutine[Any, Any, None]
    spend: Callable[[float], None]
    stopwatch: Callable[[], float]

    def __await__(self) -> Generator[Any, Any, None]:
        turn: Callable[[], Any] = partial(self.work.send, None)
        while True:
            begun = self.stopwatch()
            try:
                waited_for = turn()
            except StopIteration:
                return
            finally:
                self.spend(self.stopwatch() - begun)
            try:
                turn = partial(self.work.send, (yield waited_for))
            except BaseException as error:  # noqa: BLE001 — cancellation, which is the work's to see
                turn = partial(self.work.throw, error)


def _known(shadow: Shadow, request: InferenceRequest) -> RequestData:
    """What the transport has read of the body, as far as plugins of the shadow want that; nothing of other plugins."""
    data = RequestData()
    for key in shadow.used.pipeline.readings:
        if (value := request.data.get(key)) is not None:
            data.set(key, value)
    return data


def _target(result: SchedulingResult) -> Endpoint:
    """The picked endpoint itself, where a proxy's port has taken the place of its own."""
    run = result.profiles.get(result.primary)
    return run.targets[0] if run is not None else result.targets[0]
