"""Collector: reads every endpoint at an interval and writes what it learned into the store.

A plain page is read by native code, where that is installed; every other source by one long-lived task for each endpoint.
Either way a slow or dead server delays nobody else and is never asked twice at once, and the moments of different endpoints
are spread over the interval.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from epp.datalayer.page_rounds import CallLater, PageReader, PageRounds
from epp.datalayer.scrape import LOG_PAUSE_S, CollectorCounters, Scrape, ScrapeState, SourceBinding, Target
from epp.datalayer.store import EndpointStore
from epp.framework import log
from epp.framework.interfaces import ChoosesPath, TakesPaths
from epp.framework.notifications import TellsOfEndpoints
from epp.framework.types import Endpoint, EndpointChange, EndpointId

_logger = log.get(__name__)

MIN_INTERVAL_S = 0.05
"""Model servers render their page on the loop that streams tokens: more often than this costs them too much."""
TIMEOUT_S = 1.0


def effective_interval_s(requested_s: float) -> float:
    """The interval that is used instead of a source's own: the nearest multiple of 50 ms, halves up, at least one."""
    step_us = round(MIN_INTERVAL_S * 1e6)
    steps = max(1, (2 * round(requested_s * 1e6) + step_us) // (2 * step_us))
    return steps * step_us / 1e6


class Collector:
    """Scrapes all endpoints of a store from ``start`` to ``stop``; follows their coming and going.

    Args:
        store: whose endpoints are read, and where metrics go.
        sources: what is read from each endpoint.
        counters: told of failures.
        refresh_interval_s: interval of sources that have none of their own.
        timeout_s: time of one fetch.
        pages: reads plain pages; None = tasks read them too.
        clock, sleep, call_later: replaced in tests.
    """

    def __init__(
        self,
        store: EndpointStore,
        sources: Sequence[SourceBinding],
        counters: CollectorCounters,
        *,
        refresh_interval_s: float = MIN_INTERVAL_S,
        timeout_s: float = TIMEOUT_S,
        pages: PageReader | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        call_later: CallLater | None = None,
    ) -> None:
        self.counters = counters
        self.store = store
        self.clock = clock
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._rounds = PageRounds(pages, self._read_by_tasks, clock, call_later) if pages is not None else None
        self._notified = [binding for binding in sources if isinstance(binding.source, TellsOfEndpoints)]
        self._intervals = [
            (binding, _interval(binding, refresh_interval_s)) for binding in sources if binding not in self._notified
        ]
        self._targets: dict[EndpointId, Target] = {}
        self._tasks: dict[Scrape, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._reported_defects: dict[str, float] = {}
        for binding in sources:
            _bind_paths(binding)

    @property
    def has_reader(self) -> bool:
        """Plain pages are not read by tasks."""
        return self._rounds is not None

    async def start(self) -> None:
        """Begin: every endpoint is read at once, then at its interval."""
        self.store.subscribe(self)

    async def stop(self) -> None:
        """End all scraping; nothing is written any more when this returns. Closes the sources."""
        self.store.unsubscribe(self)
        for target in self._targets.values():
            self._end(target)
        self._targets.clear()
        if self._rounds is not None:
            self._rounds.close()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for binding in (*self._notified, *(polled for polled, _ in self._intervals)):
            await binding.source.close()

    def states(self) -> Iterator[ScrapeState]:
        """The state of each endpoint and source."""
        for target in self._targets.values():
            for scrape in target.scrapes:
                yield scrape.state

    def state(self, endpoint_id: EndpointId) -> ScrapeState | None:
        """The state of an endpoint with its first source; None if it is not scraped."""
        target = self._targets.get(endpoint_id)
        return target.scrapes[0].state if target is not None and target.scrapes else None

    # ── FollowsEndpoints ──

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Stop reading those that are gone, what is under way is thrown away; begin to read those that came."""
        for endpoint in change.removed:
            self._remove(endpoint)
        for endpoint in change.updated:
            self._update(endpoint)
        for endpoint in change.added:
            self._add(endpoint)

    # ── Books ──

    def report_defect(self, culprit: str, error: Exception) -> None:
        """Log an exception that is a plugin's bug; one line per culprit and 30 s."""
        now = self.clock()
        if now >= self._reported_defects.get(culprit, now):
            self._reported_defects[culprit] = now + LOG_PAUSE_S
            _logger.error("plugin failed while endpoints are read", exc=error, plugin=culprit)

    # ── inside ──

    def _add(self, endpoint: Endpoint) -> None:
        target = self._targets[endpoint.id] = Target(endpoint)
        self._notify(target)
        for binding, interval_s in self._intervals:
            scrape = Scrape(self, target, binding, interval_s)
            target.scrapes.append(scrape)
            self._begin(scrape)

    def _update(self, endpoint: Endpoint) -> None:
        """Go on with the new labels, which may say that its page is elsewhere."""
        target = self._targets[endpoint.id]
        target.endpoint = endpoint
        self._notify(target)
        if self._rounds is None:
            return
        for scrape in target.scrapes:
            if self._rounds.follow(scrape):
                self._stop_task(scrape)
            elif scrape not in self._tasks:
                self._start_task(scrape)

    def _remove(self, endpoint: Endpoint) -> None:
        target = self._targets.pop(endpoint.id, None)
        if target is not None:
            self._end(target)

    def _notify(self, target: Target) -> None:
        """Give the endpoint to the extractors of sources that are not polled."""
        for binding in self._notified:
            Scrape(self, target, binding, MIN_INTERVAL_S).fetched(b"", self.clock())

    def _begin(self, scrape: Scrape) -> None:
        if self._rounds is None or not self._rounds.follow(scrape):
            self._start_task(scrape)

    def _end(self, target: Target) -> None:
        target.is_gone = True
        for scrape in target.scrapes:
            if self._rounds is not None:
                self._rounds.forget(scrape)
            self._stop_task(scrape)

    def _read_by_tasks(self, scrapes: Sequence[Scrape]) -> None:
        """Native code cannot read these."""
        for scrape in scrapes:
            if not scrape.target.is_gone:
                self._start_task(scrape)

    def _start_task(self, scrape: Scrape) -> None:
        name = f"scrape {scrape.state.endpoint_id} {scrape.binding.name}"
        self._tasks[scrape] = asyncio.create_task(self._run(scrape), name=name)

    def _stop_task(self, scrape: Scrape) -> None:
        task = self._tasks.pop(scrape, None)
        if task is not None:
            task.cancel()
            # The loop holds tasks only weakly.
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _run(self, scrape: Scrape) -> None:
        while True:
            await self._fetch(scrape)
            now = self.clock()
            await self._sleep(scrape.due_s(now) - now)

    async def _fetch(self, scrape: Scrape) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                payload = await scrape.binding.source.fetch(scrape.target.endpoint)
        except TimeoutError as error:
            scrape.failed(str(error) or f"no answer within {self._timeout_s:g} s")
        except OSError as error:
            scrape.failed(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 — a plugin's bug must not end the scraping
            scrape.crashed(error)
        else:
            scrape.fetched(payload, self.clock())


def _interval(binding: SourceBinding, refresh_interval_s: float) -> float:
    requested = binding.source.interval_s
    if requested is None:
        if refresh_interval_s < MIN_INTERVAL_S:
            _logger.warning(
                "metrics refresh interval is too short, the minimum is used",
                requested_s=refresh_interval_s,
                effective_s=MIN_INTERVAL_S,
            )
        return max(refresh_interval_s, MIN_INTERVAL_S)
    effective = effective_interval_s(requested)
    if effective != requested:
        details = {"source": binding.name, "requested_s": requested, "effective_s": effective}
        _logger.info("interval of a data source rounded to 50 ms", details=details)
    return effective


def _bind_paths(binding: SourceBinding) -> None:
    if not isinstance(binding.source, TakesPaths):
        return
    for entry in binding.extractors:
        if isinstance(entry.extractor, ChoosesPath):
            binding.source.take_paths(entry.extractor)
