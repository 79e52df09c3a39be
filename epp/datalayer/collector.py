"""Collector: reads every endpoint at an interval and writes what it learned into the store.

One long-lived task for each endpoint and source, so that a slow or dead server delays nobody else and is never asked twice at
once. The moments of different endpoints are spread over the interval.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import ChoosesPath, DataSource, Extractor, TakesPaths
from epp.framework.types import Endpoint, EndpointId, EndpointMetrics

logger = logging.getLogger(__name__)

MIN_INTERVAL_S = 0.05
"""Model servers render their page on the loop that streams tokens: more often than this costs them too much."""
MAX_BACKOFF_S = 5.0
TIMEOUT_S = 1.0
LOG_PAUSE_S = 30.0
"""At most one line about an endpoint's health in this time."""


class CollectorCounters(Protocol):
    """The metrics that the collector moves."""

    def datalayer_poll_error(self, source_type: str) -> None: ...
    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ExtractorBinding:
    """An extractor of a source."""

    type: str
    extractor: Extractor


@dataclass(frozen=True, slots=True)
class SourceBinding:
    """A source with all its extractors, in the order of the configuration."""

    name: str
    type: str
    source: DataSource
    extractors: tuple[ExtractorBinding, ...] = ()


@dataclass(slots=True)
class ScrapeState:
    """How the scraping of one endpoint by one source goes."""

    endpoint_id: EndpointId
    source: str
    is_failing: bool = False
    """The last attempt gave nothing."""
    last_success_s: float | None = None
    """Monotonic time of the last attempt that gave something."""
    failures: int = 0
    """Attempts that gave nothing, since the endpoint is known."""
    consecutive_failures: int = 0
    """Fetches that failed since the last one that did not."""
    last_error: str = ""
    """Of the last failure; stays for those who look later."""
    problems: tuple[str, ...] = ()
    """Values that the last page did not give."""


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
        clock, sleep: replaced in tests.
    """

    def __init__(
        self,
        store: EndpointStore,
        sources: Sequence[SourceBinding],
        counters: CollectorCounters,
        *,
        refresh_interval_s: float = MIN_INTERVAL_S,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counters = counters
        self.store = store
        self.timeout_s = timeout_s
        self.clock = clock
        self.sleep = sleep
        self._intervals = [(binding, _interval(binding, refresh_interval_s)) for binding in sources]
        self._targets: dict[EndpointId, _Target] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._reported_defects: dict[str, float] = {}
        for binding in sources:
            _bind_paths(binding)

    async def start(self) -> None:
        """Begin: every endpoint is read at once, then at its interval."""
        self.store.subscribe(self)

    async def stop(self) -> None:
        """End all scraping; nothing is written any more when this returns. Closes the sources."""
        self.store.unsubscribe(self)
        for target in self._targets.values():
            self._end(target)
        self._targets.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for binding, _ in self._intervals:
            await binding.source.close()

    def states(self) -> Iterator[ScrapeState]:
        """The state of each endpoint and source."""
        for target in self._targets.values():
            for scraper in target.scrapers:
                yield scraper.state

    def state(self, endpoint_id: EndpointId) -> ScrapeState | None:
        """The state of an endpoint with its first source; None if it is not scraped."""
        target = self._targets.get(endpoint_id)
        return target.scrapers[0].state if target is not None and target.scrapers else None

    # ── StoreListener ──

    def endpoint_added(self, endpoint: Endpoint) -> None:
        """Begin to read it."""
        target = self._targets[endpoint.id] = _Target(endpoint)
        for binding, interval_s in self._intervals:
            target.scrapers.append(_Scraper(self, target, binding, interval_s))

    def endpoint_updated(self, endpoint: Endpoint) -> None:
        """Go on with the new labels."""
        self._targets[endpoint.id].endpoint = endpoint

    def endpoint_removed(self, endpoint: Endpoint) -> None:
        """Stop reading it; what is under way is thrown away."""
        target = self._targets.pop(endpoint.id, None)
        if target is not None:
            self._end(target)

    # ── inside ──

    def _end(self, target: _Target) -> None:
        target.is_gone = True
        for scraper in target.scrapers:
            scraper.task.cancel()
            # The loop holds tasks only weakly.
            self._ending.add(scraper.task)
            scraper.task.add_done_callback(self._ending.discard)

    def report_defect(self, culprit: str, error: Exception) -> None:
        """Log an exception that is a plugin's bug; one line per culprit and 30 s."""
        now = self.clock()
        if now >= self._reported_defects.get(culprit, now):
            self._reported_defects[culprit] = now + LOG_PAUSE_S
            logger.error("plugin failed while endpoints are read", exc_info=error, extra={"plugin": culprit})


class _Target:
    """An endpoint that is scraped, and what was last said about it."""

    __slots__ = ("endpoint", "is_gone", "next_line_s", "said_failing", "scrapers")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_gone = False
        self.scrapers: list[_Scraper] = []
        self.said_failing = False
        self.next_line_s = float("-inf")

    def report(self, now_s: float) -> None:
        """Say so when the endpoint began or ceased to fail, at most once in 30 s."""
        failing = next((scraper.state for scraper in self.scrapers if scraper.state.is_failing), None)
        if (failing is not None) == self.said_failing or now_s < self.next_line_s:
            return
        self.said_failing = failing is not None
        self.next_line_s = now_s + LOG_PAUSE_S
        if failing is None:
            logger.info("endpoint can be scraped again", extra={"endpoint": self.endpoint.id})
        else:
            details = {"endpoint": self.endpoint.id, "source": failing.source, "error": failing.last_error}
            logger.warning("endpoint cannot be scraped, its last metrics stay", extra=details)


class _Scraper:
    """Reads one endpoint with one source, again and again."""

    __slots__ = ("_binding", "_collector", "_interval_s", "_phase_s", "_target", "state", "task")

    def __init__(self, collector: Collector, target: _Target, binding: SourceBinding, interval_s: float) -> None:
        self._collector = collector
        self._target = target
        self._binding = binding
        self._interval_s = interval_s
        endpoint_id = target.endpoint.id
        self._phase_s = interval_s * zlib.crc32(f"{endpoint_id} {binding.name}".encode()) / 2**32
        self.state = ScrapeState(endpoint_id, binding.name)
        self.task = asyncio.create_task(self._run(), name=f"scrape {endpoint_id} {binding.name}")

    async def _run(self) -> None:
        collector = self._collector
        while True:
            await self._scrape()
            now = collector.clock()
            if self.state.is_failing or self._target.said_failing:
                self._target.report(now)
            await collector.sleep(self._due_s(now) - now)

    def _due_s(self, now_s: float) -> float:
        """When to read next: on this endpoint's own grid, later and later while it fails. What was missed is dropped."""
        interval = self._interval_s
        if self.state.consecutive_failures:
            backoff = min(interval * 2.0 ** min(self.state.consecutive_failures, 16), MAX_BACKOFF_S)
            return now_s + max(interval, backoff)
        left = interval - (now_s - self._phase_s) % interval
        # A timer that fires a little early must not make two attempts of one.
        return now_s + (left if left > interval / 4 else left + interval)

    async def _scrape(self) -> None:
        collector, binding = self._collector, self._binding
        try:
            async with asyncio.timeout(collector.timeout_s):
                payload = await binding.source.fetch(self._target.endpoint)
        except TimeoutError as error:
            self._fetch_failed(str(error) or f"no answer within {collector.timeout_s:g} s")
        except OSError as error:
            self._fetch_failed(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 — a plugin's bug must not end the scraping
            collector.report_defect(binding.type, error)
            self._fetch_failed(f"{type(error).__name__}: {error}")
        else:
            if not self._target.is_gone:
                self._extract(payload, collector.clock())

    def _extract(self, payload: bytes, now_s: float) -> None:
        store, endpoint = self._collector.store, self._target.endpoint
        previous = metrics = store.metrics(endpoint.id)
        problems: list[str] = []
        for binding in self._binding.extractors:
            metrics, found = self._run_extractor(binding, payload, metrics, now_s)
            problems += found
        if metrics is not previous:
            store.set_metrics(endpoint.id, metrics)
        state = self.state
        state.consecutive_failures = 0
        state.problems = tuple(problems)
        if problems and metrics is previous:
            state.is_failing = True
            state.failures += 1
            state.last_error = problems[0]
        else:
            state.is_failing = False
            state.last_success_s = now_s

    def _run_extractor(
        self, binding: ExtractorBinding, payload: bytes, metrics: EndpointMetrics, now_s: float
    ) -> tuple[EndpointMetrics, Sequence[str]]:
        collector = self._collector
        problems: Sequence[str]
        try:
            metrics, problems = binding.extractor.extract(payload, self._target.endpoint, metrics, now_s)
        except Exception as error:  # noqa: BLE001 — a plugin's bug must not end the scraping
            collector.report_defect(binding.type, error)
            problems = (f"{binding.type} failed: {type(error).__name__}: {error}",)
        if problems:
            collector.counters.datalayer_extract_error(self._binding.type, binding.type)
            if logger.isEnabledFor(logging.DEBUG):
                details = {"endpoint": self.state.endpoint_id, "extractor": binding.type, "problems": list(problems)}
                logger.debug("metrics incomplete", extra=details)
        return metrics, problems

    def _fetch_failed(self, error: str) -> None:
        if self._target.is_gone:
            return
        state = self.state
        state.is_failing = True
        state.failures += 1
        state.consecutive_failures += 1
        state.last_error = error
        self._collector.counters.datalayer_poll_error(self._binding.type)
        if logger.isEnabledFor(logging.DEBUG):
            details = {"endpoint": state.endpoint_id, "source": state.source, "error": error}
            logger.debug("scrape failed", extra=details)


def _interval(binding: SourceBinding, refresh_interval_s: float) -> float:
    requested = binding.source.interval_s
    if requested is None:
        if refresh_interval_s < MIN_INTERVAL_S:
            logger.warning(
                "metrics refresh interval is too short, the minimum is used",
                extra={"requested_s": refresh_interval_s, "effective_s": MIN_INTERVAL_S},
            )
        return max(refresh_interval_s, MIN_INTERVAL_S)
    effective = effective_interval_s(requested)
    if effective != requested:
        details = {"source": binding.name, "requested_s": requested, "effective_s": effective}
        logger.info("interval of a data source rounded to 50 ms", extra=details)
    return effective


def _bind_paths(binding: SourceBinding) -> None:
    if not isinstance(binding.source, TakesPaths):
        return
    for entry in binding.extractors:
        if isinstance(entry.extractor, ChoosesPath):
            binding.source.take_paths(entry.extractor)
