"""A collector on virtual time, with fakes of all that it uses."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from epp.datalayer.collector import Collector
from epp.datalayer.page_rounds import Page
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import Extraction, PageAddress
from epp.framework.types import Endpoint, EndpointMetrics


class VirtualTime:
    """A clock, sleepers that wake and timers that fire when it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wake_ups = 0
        """Timers that fired."""
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at(seconds, lambda: future.done() or future.set_result(None))
        await future

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.Handle:
        handle = asyncio.Handle(callback, (), asyncio.get_running_loop())

        def fire() -> None:
            if not handle.cancelled():
                self.wake_ups += 1
                callback()

        self._at(seconds, fire)
        return handle

    async def run(self, seconds: float) -> None:
        """Move on, waking what waits in order; everything that follows from a wake-up happens at its time."""
        end = self.now_s + seconds
        await settle()
        while self._waiting and self._waiting[0][0] <= end:
            self.now_s, _, wake = heapq.heappop(self._waiting)
            wake()
            await settle()
        self.now_s = end

    def _at(self, seconds: float, wake: Callable[[], object]) -> None:
        heapq.heappush(self._waiting, (self.now_s + seconds, next(self._count), wake))


async def settle() -> None:
    """Let everything run that can run without I/O."""
    for _ in range(8):
        await asyncio.sleep(0)


class Counters:
    """Counts errors by type."""

    def __init__(self) -> None:
        self.polls: Counter[str] = Counter()
        self.extracts: Counter[tuple[str, str]] = Counter()

    def datalayer_poll_error(self, source_type: str) -> None:
        self.polls[source_type] += 1

    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None:
        self.extracts[source_type, extractor_type] += 1


class Source:
    """A source whose answers are exchanged by the test."""

    output = "number"

    def __init__(self, clock: Callable[[], float], interval_s: float | None = None) -> None:
        self.interval_s = interval_s
        self.clock = clock
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.times: dict[str, list[float]] = {}
        self.seen: list[Endpoint] = []
        self.is_closed = False

    async def fetch(self, endpoint: Endpoint) -> bytes:
        self.times.setdefault(endpoint.name, []).append(self.clock())
        self.seen.append(endpoint)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return b"7"

    async def close(self) -> None:
        self.is_closed = True


class PagesSource(Source):
    """One whose pages can be read by others; the path names the endpoint."""

    def page(self, endpoint: Endpoint) -> PageAddress | None:
        self.seen.append(endpoint)
        return PageAddress("", endpoint.address, endpoint.port, endpoint.host_port, f"/{endpoint.name}")


class FakeReader:
    """Reads pages of a source in its place: what is asked for comes with a later call."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.error: Exception | None = None
        self.is_closed = False
        self._targets: dict[int, str] = {}
        self._under_way: dict[int, str] = {}

    def set_target(
        self, key: int, address: str, port: int, host: str, path: str, url: str, families: Sequence[str] | None
    ) -> None:
        assert key not in self._targets
        if isinstance(self.error, ValueError):
            raise self.error
        self._targets[key] = path.removeprefix("/")

    def remove_target(self, key: int) -> None:
        del self._targets[key]
        self._under_way.pop(key, None)

    def exchange(self, keys: Sequence[int]) -> list[Page]:
        source, came = self.source, list[Page]()
        if isinstance(self.error, RuntimeError):
            raise self.error
        if source.gate is None or source.gate.is_set():
            came = [(key, None, str(source.error)) if source.error else (key, b"7", None) for key in self._under_way]
            self._under_way.clear()
        for key in keys:
            if key not in self._under_way:
                self._under_way[key] = name = self._targets[key]
                source.times.setdefault(name, []).append(source.clock())
        return came

    def close(self) -> None:
        self.is_closed = True


class Extractor:
    """Reads the waiting queue, or fails."""

    input = "number"

    def __init__(self, error: Exception | None = None, problems: Sequence[str] = (), *, reads: bool = True) -> None:
        self.error = error
        self.problems = problems
        self.reads = reads

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        if self.error is not None:
            raise self.error
        metrics = EndpointMetrics(waiting_queue=int(payload)) if self.reads else previous
        return Extraction(metrics, self.problems, self.reads)


class Bench:
    """A collector on virtual time with one source, which is read by tasks or by a reader of pages."""

    def __init__(
        self,
        *extractors: Extractor,
        interval_s: float | None = None,
        refresh_interval_s: float = 0.05,
        source: type[Source] = Source,
    ) -> None:
        self.time = VirtualTime()
        self.store = EndpointStore()
        self.counters = Counters()
        self.source = source(self.time.clock, interval_s)
        self.reader = FakeReader(self.source)
        bound = tuple(ExtractorBinding(f"extractor-{i}", e) for i, e in enumerate(extractors or (Extractor(),), 1))
        self.bindings = [SourceBinding("scrape", "fake-source", self.source, bound)]
        self.collector = self.make(refresh_interval_s)

    def make(self, refresh_interval_s: float = 0.05) -> Collector:
        return Collector(
            self.store,
            self.bindings,
            self.counters,
            refresh_interval_s=refresh_interval_s,
            pages=self.reader,
            clock=self.time.clock,
            sleep=self.time.sleep,
            call_later=self.time.call_later,
        )

    def add(self, *names: str) -> None:
        for number, name in enumerate(names):
            self.store.upsert(Endpoint.of(name, "10.0.0.1", 8000 + number))

    @contextlib.asynccontextmanager
    async def running(self, seconds: float = 0.0) -> AsyncIterator[None]:
        await self.collector.start()
        try:
            await self.time.run(seconds)
            yield
        finally:
            await self.collector.stop()
            assert scrape_tasks() == []


def scrape_tasks() -> list[str]:
    """Names of the tasks that fetch."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("scrape")]
