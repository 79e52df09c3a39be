"""Scrape: one endpoint read by one source, again and again: what came of it, and when it is due.

Who fetches is another matter: a task of the event loop, or native code. Both tell their scrape how each fetch ended.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from epp.datalayer.store import EndpointStore
from epp.framework import log
from epp.framework.interfaces import DataSource, Extraction, Extractor, ReadsFamilies
from epp.framework.types import UNSCRAPED, Endpoint, EndpointId, EndpointMetrics

_logger = log.get(__name__)

MAX_BACKOFF_S = 5.0
LOG_PAUSE_S = 30.0
"""At most one line about an endpoint's health in this time."""
MAX_REMEMBERED_BYTES = 16 * 1024
"""Excerpts are far smaller; a whole page is hardly ever the same twice, and would only fill the memory."""


class CollectorCounters(Protocol):
    """The metrics that the collector moves."""

    def datalayer_poll_error(self, source_type: str) -> None: ...
    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None: ...


class Books(Protocol):
    """What all scrapes share: where metrics go, and where failures are told."""

    @property
    def store(self) -> EndpointStore: ...
    @property
    def counters(self) -> CollectorCounters: ...
    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, monotonic."""
        ...

    def report_defect(self, culprit: str, error: Exception) -> None:
        """An exception that is a plugin's bug."""
        ...


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


class Target:
    """An endpoint that is scraped, and what was last said about it."""

    __slots__ = ("endpoint", "is_gone", "next_line_s", "said_failing", "scrapes")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_gone = False
        self.scrapes: list[Scrape] = []
        self.said_failing = False
        self.next_line_s = float("-inf")

    def report(self, now_s: float) -> None:
        """Say so when the endpoint began or ceased to fail, at most once in 30 s."""
        failing = next((scrape.state for scrape in self.scrapes if scrape.state.is_failing), None)
        if (failing is not None) == self.said_failing or now_s < self.next_line_s:
            return
        self.said_failing = failing is not None
        self.next_line_s = now_s + LOG_PAUSE_S
        if failing is None:
            _logger.info("endpoint can be scraped again", endpoint=self.endpoint.id)
        else:
            details = {"endpoint": self.endpoint.id, "source": failing.source, "error": failing.last_error}
            _logger.warning("endpoint cannot be scraped, its last metrics stay", details=details)


class Scrape:
    """One endpoint and one source.

    Args:
        books: shared by all.
        target: the endpoint.
        binding: the source and its extractors.
        interval_s: between two reads.
    """

    __slots__ = (
        "_books",
        "_is_repeatable",
        "_payload",
        "_phase_s",
        "_seen",
        "_written",
        "binding",
        "interval_s",
        "state",
        "target",
    )

    def __init__(self, books: Books, target: Target, binding: SourceBinding, interval_s: float) -> None:
        self.target = target
        self.binding = binding
        self.state = ScrapeState(target.endpoint.id, binding.name)
        self._books = books
        self.interval_s = interval_s
        self._phase_s = interval_s * zlib.crc32(f"{target.endpoint.id} {binding.name}".encode()) / 2**32
        self._is_repeatable = all(isinstance(entry.extractor, ReadsFamilies) for entry in binding.extractors)
        self._payload: bytes | None = None
        """The last one, if all was well with it: the same again says the same again, as ``ReadsFamilies`` promises."""
        self._seen = target.endpoint
        self._written = UNSCRAPED
        """What the store had for it then."""

    def due_s(self, now_s: float) -> float:
        """When to read next: on this endpoint's own grid, later and later while it fails. What was missed is dropped."""
        interval = self.interval_s
        if self.state.consecutive_failures:
            backoff = min(interval * 2.0 ** min(self.state.consecutive_failures, 16), MAX_BACKOFF_S)
            return now_s + max(interval, backoff)
        left = interval - (now_s - self._phase_s) % interval
        # A timer that fires a little early must not make two attempts of one.
        return now_s + (left if left > interval / 4 else left + interval)

    def fetched(self, payload: bytes, now_s: float) -> None:
        """A payload came: extract and store."""
        if self.target.is_gone:
            return
        state = self.state
        state.consecutive_failures = 0
        endpoint = self.target.endpoint
        previous = self._books.store.metrics(endpoint.id)
        if payload == self._payload and previous is self._written and endpoint is self._seen:
            self._store(previous, now_s, is_fresh=True)
            self._report(now_s)
            return
        metrics, problems, is_fresh = self._extracted(payload, endpoint, previous)
        state.problems = tuple(problems)
        self._payload = None
        if metrics is not previous or is_fresh:
            self._store(metrics, now_s, is_fresh=is_fresh)
            is_well = not problems and is_fresh
            if is_well and self._is_repeatable and len(payload) <= MAX_REMEMBERED_BYTES:
                self._payload, self._seen = payload, endpoint
        elif problems:
            state.is_failing = True
            state.failures += 1
            state.last_error = problems[0]
        else:
            state.is_failing = False
            state.last_success_s = now_s
        self._report(now_s)

    def failed(self, error: str) -> None:
        """Nothing came."""
        if self.target.is_gone:
            return
        state = self.state
        state.is_failing = True
        state.failures += 1
        state.consecutive_failures += 1
        state.last_error = error
        self._books.counters.datalayer_poll_error(self.binding.type)
        if _logger.v(log.DEBUG):
            details = {"endpoint": state.endpoint_id, "source": state.source, "error": error}
            _logger.debug("scrape failed", details=details)
        self._report(self._books.clock())

    def crashed(self, error: Exception) -> None:
        """Nothing came, and that is the source's own fault."""
        self.misbehaved(error)
        self.failed(f"{type(error).__name__}: {error}")

    def misbehaved(self, error: Exception) -> None:
        """The source or one of its extractors has a bug."""
        self._books.report_defect(self.binding.type, error)

    def _store(self, metrics: EndpointMetrics, now_s: float, *, is_fresh: bool) -> None:
        state, store = self.state, self._books.store
        store.set_metrics(state.endpoint_id, metrics, now_s if is_fresh else None)
        self._written = store.metrics(state.endpoint_id)
        state.is_failing = False
        state.last_success_s = now_s

    def _extracted(self, payload: bytes, endpoint: Endpoint, metrics: EndpointMetrics) -> Extraction:
        """What all extractors together made of it."""
        problems: list[str] = []
        is_fresh = False
        for binding in self.binding.extractors:
            found: Sequence[str]
            try:
                metrics, found, fresh = binding.extractor.extract(payload, endpoint, metrics)
                is_fresh = is_fresh or fresh
            except Exception as error:  # noqa: BLE001 — a plugin's bug must not end the scraping
                self._books.report_defect(binding.type, error)
                found = (f"{binding.type} failed: {type(error).__name__}: {error}",)
            if found:
                self._tell(binding.type, found)
                problems += found
        return Extraction(metrics, problems, is_fresh)

    def _tell(self, extractor_type: str, problems: Sequence[str]) -> None:
        self._books.counters.datalayer_extract_error(self.binding.type, extractor_type)
        if _logger.v(log.DEBUG):
            details = {"endpoint": self.state.endpoint_id, "extractor": extractor_type, "problems": list(problems)}
            _logger.debug("metrics incomplete", details=details)

    def _report(self, now_s: float) -> None:
        if self.state.is_failing or self.target.said_failing:
            self.target.report(now_s)
