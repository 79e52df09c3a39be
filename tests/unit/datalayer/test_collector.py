"""The collector: timing on a virtual clock, failures, and real servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from epp.datalayer.collector import Collector, effective_interval_s
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint, EndpointId, EndpointMetrics
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.metrics_source import PLUGIN as METRICS_SOURCE
from tests.unit.datalayer.servers import PAGE, Respond, answer, hang, page, reset, serving, stop_half_way

A = EndpointId("default/a")
FAILING = "endpoint cannot be scraped, its last metrics stay"
RECOVERED = "endpoint can be scraped again"


class VirtualTime:
    """A clock, and sleepers that wake when it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now_s + seconds, self._count, future))
        await future

    async def run(self, seconds: float) -> None:
        """Move on, waking sleepers in order; everything that follows from a wake-up happens at its time."""
        end = self.now_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now_s, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
                await settle()
        self.now_s = end


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


class Extractor:
    """Reads the waiting queue, or fails."""

    input = "number"

    def __init__(self, error: Exception | None = None, problems: Sequence[str] = (), *, reads: bool = True) -> None:
        self.error = error
        self.problems = problems
        self.reads = reads

    def extract(
        self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics, now_s: float
    ) -> tuple[EndpointMetrics, Sequence[str]]:
        if self.error is not None:
            raise self.error
        metrics = EndpointMetrics(waiting_queue=int(payload), updated_s=now_s) if self.reads else previous
        return metrics, self.problems


class Bench:
    """A collector on virtual time with one source."""

    def __init__(self, *extractors: Extractor, interval_s: float | None = None, refresh_interval_s: float = 0.05) -> None:
        self.time = VirtualTime()
        self.store = EndpointStore()
        self.counters = Counters()
        self.source = Source(self.time.clock, interval_s)
        bound = tuple(ExtractorBinding(f"extractor-{i}", e) for i, e in enumerate(extractors or (Extractor(),), 1))
        self.bindings = [SourceBinding("scrape", "fake-source", self.source, bound)]
        self.collector = self.make(refresh_interval_s)

    def make(self, refresh_interval_s: float = 0.05) -> Collector:
        return Collector(
            self.store,
            self.bindings,
            self.counters,
            refresh_interval_s=refresh_interval_s,
            clock=self.time.clock,
            sleep=self.time.sleep,
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
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("scrape")]


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ── timing ──


async def test_a_new_endpoint_is_read_at_once_and_then_at_the_interval() -> None:
    bench = Bench()
    bench.add("a")
    async with bench.running(1.0):
        times = bench.source.times["a"]
        assert times[0] == 1000.0
        assert 20 <= len(times) <= 21
        assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(times[1:])} == {0.05}
        assert bench.store.metrics(A).waiting_queue == 7
        state = bench.collector.state(A)
        assert state is not None
        assert (state.failures, state.last_success_s) == (0, times[-1])


async def test_endpoints_are_spread_over_the_interval() -> None:
    bench = Bench()
    bench.add(*(f"e{i}" for i in range(100)))
    async with bench.running(0.2):
        offsets = {round(times[-1] % 0.05, 5) for times in bench.source.times.values()}
        assert len(offsets) > 90
        assert max(offsets) - min(offsets) > 0.045


async def test_an_endpoint_keeps_its_moment_over_restarts() -> None:
    benches = [Bench(), Bench()]
    for bench in benches:
        bench.add("a")
        async with bench.running(0.2):
            pass
    assert benches[0].source.times == benches[1].source.times


@pytest.mark.parametrize(
    ("requested_ms", "effective_ms"),
    [(75, 100), (120, 100), (130, 150), (25, 50), (1, 50), (50, 50), (1000, 1000), (5000, 5000)],
)
def test_intervals_are_multiples_of_50_ms(requested_ms: int, effective_ms: int) -> None:
    assert effective_interval_s(requested_ms / 1000) == effective_ms / 1000


async def test_each_source_has_its_own_clock() -> None:
    bench = Bench(refresh_interval_s=5.0)
    models = Source(bench.time.clock, 1.0)
    bench.bindings.append(SourceBinding("models", "models-source", models))
    bench.collector = bench.make(5.0)
    bench.add("a")
    async with bench.running(30.0):
        assert len(bench.source.times["a"]) in (6, 7)
        assert len(models.times["a"]) in (30, 31)


async def test_too_short_intervals_are_told(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(refresh_interval_s=0.01)
    bench.add("a")
    async with bench.running(1.0):
        assert len(bench.source.times["a"]) <= 21
    assert lines(caplog, logging.WARNING) == ["metrics refresh interval is too short, the minimum is used"]


async def test_a_rounded_interval_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Bench(interval_s=0.075)
    assert lines(caplog) == ["interval of a data source rounded to 50 ms"]


async def test_never_two_requests_at_once_and_missed_moments_are_dropped() -> None:
    bench = Bench()
    bench.source.gate = asyncio.Event()
    bench.add("a")
    async with bench.running(0.5):
        assert len(bench.source.times["a"]) == 1
        bench.source.gate.set()
        await bench.time.run(0.1)
        assert 2 <= len(bench.source.times["a"]) <= 4


async def test_an_endpoint_that_hangs_delays_no_other() -> None:
    bench = Bench()

    class Hanging(Source):
        async def fetch(self, endpoint: Endpoint) -> bytes:
            if endpoint.name == "a":
                await asyncio.Event().wait()
            return await super().fetch(endpoint)

    bench.bindings[0] = SourceBinding("scrape", "fake-source", Hanging(bench.time.clock), bench.bindings[0].extractors)
    bench.collector = bench.make()
    bench.add("a", "b")
    async with bench.running(1.0):
        assert bench.store.metrics(EndpointId("default/b")).updated_s == pytest.approx(bench.time.now_s, abs=0.05)
        assert bench.store.metrics(A) is UNSCRAPED


# ── failures ──


async def test_failures_slow_down_and_the_first_success_ends_that() -> None:
    bench = Bench()
    bench.source.error = ConnectionRefusedError("refused")
    bench.add("a")
    async with bench.running(60.0):
        times = bench.source.times["a"]
        gaps = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]
        assert gaps[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
        assert set(gaps[7:]) == {5.0}
        state = bench.collector.state(A)
        assert state is not None
        assert state.failures == state.consecutive_failures == len(times) == bench.counters.polls["fake-source"]
        assert state.last_error == "refused"
        bench.source.error = None
        await bench.time.run(5.0)
        attempts = len(times)
        await bench.time.run(1.0)
        assert len(times) - attempts == 20
        assert (state.consecutive_failures, state.is_failing) == (0, False)


async def test_a_long_interval_is_not_shortened_by_failures() -> None:
    bench = Bench(interval_s=20.0)
    bench.source.error = OSError("no")
    bench.add("a")
    async with bench.running(60.0):
        assert len(bench.source.times["a"]) == 4


async def test_one_line_when_an_endpoint_fails_and_one_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.source.error = OSError("down")
    bench.add("a")
    with caplog.at_level(logging.INFO):
        async with bench.running(60.0):
            bench.source.error = None
            await bench.time.run(60.0)
    assert lines(caplog) == [FAILING, RECOVERED]


async def test_an_endpoint_that_comes_and_goes_is_told_of_twice_a_minute_at_most(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.add("a")
    with caplog.at_level(logging.INFO):
        async with bench.running():
            for second in range(60):
                bench.source.error = OSError("down") if second % 2 else None
                await bench.time.run(1.0)
    assert lines(caplog) == [FAILING, RECOVERED]


async def test_failures_keep_the_last_metrics() -> None:
    bench = Bench()
    bench.add("a")
    async with bench.running(0.1):
        before = bench.store.metrics(A)
        bench.source.error = OSError("down")
        await bench.time.run(10.0)
        assert bench.store.metrics(A).waiting_queue == before.waiting_queue == 7
        assert [e.name for e in bench.store.snapshot().endpoints] == ["a"]


async def test_a_source_with_a_bug_goes_on_and_is_reported_rarely(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.source.error = KeyError("bug")
    bench.add("a", "b")
    async with bench.running(10.0):
        assert len(bench.source.times["a"]) > 3
    assert lines(caplog, logging.ERROR) == ["plugin failed while endpoints are read"]
    assert "KeyError" in caplog.text


async def test_one_extractor_fails_and_the_other_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Extractor(RuntimeError("bug")), Extractor())
    bench.add("a")
    async with bench.running():
        assert bench.store.metrics(A).waiting_queue == 7
        assert bench.counters.extracts == {("fake-source", "extractor-1"): 1}
        assert bench.counters.polls == {}
        state = bench.collector.state(A)
        assert state is not None
        assert (state.is_failing, state.problems) == (False, ("extractor-1 failed: RuntimeError: bug",))
    assert lines(caplog, logging.ERROR) == ["plugin failed while endpoints are read"]


async def test_what_could_be_read_is_stored_and_the_rest_is_counted() -> None:
    bench = Bench(Extractor(problems=["kv is missing"]))
    bench.add("a")
    async with bench.running():
        assert bench.store.metrics(A).waiting_queue == 7
        assert bench.counters.extracts == {("fake-source", "extractor-1"): 1}


async def test_a_page_without_any_wanted_value_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Extractor(problems=["queue is missing", "kv is missing"], reads=False))
    bench.add("a")
    async with bench.running(1.0):
        state = bench.collector.state(A)
        assert state is not None
        assert (state.is_failing, state.last_error, state.last_success_s) == (True, "queue is missing", None)
        assert bench.counters.polls == {}
        assert len(bench.source.times["a"]) >= 20
    assert lines(caplog, logging.WARNING) == [FAILING]


async def test_details_are_debug_lines(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Extractor(problems=["kv is missing"]))
    bench.add("a")
    with caplog.at_level(logging.DEBUG, "epp.datalayer.scrape"):
        async with bench.running():
            bench.source.error = OSError("down")
            await bench.time.run(0.1)
    assert [line for line in lines(caplog, logging.DEBUG) if line in ("metrics incomplete", "scrape failed")]


# ── coming and going ──


async def test_nothing_is_written_for_an_endpoint_that_is_gone() -> None:
    bench = Bench()
    bench.source.gate = asyncio.Event()
    bench.add("a")
    async with bench.running():
        bench.source.gate.set()
        # The answer is there, the task has not run yet.
        bench.store.delete(A)
        bench.add("a")
        await bench.time.run(0.0)
        assert len(bench.source.times["a"]) == 2
        assert bench.store.metrics(A).waiting_queue == 7
        bench.store.delete(A)
        await settle()
        assert bench.collector.state(A) is None
        assert list(bench.collector.states()) == []
        assert scrape_tasks() == []


async def test_an_endpoint_that_moved_is_read_as_a_new_one() -> None:
    bench = Bench()
    bench.add("a")
    async with bench.running(0.2):
        bench.source.error = OSError("down")
        bench.store.upsert(Endpoint.of("a", "10.0.0.9", 8000))
        await bench.time.run(0.2)
        assert bench.store.metrics(A) is UNSCRAPED
        assert bench.source.seen[-1].address == "10.0.0.9"


async def test_changed_labels_are_seen_and_the_rhythm_stays() -> None:
    bench = Bench()
    bench.add("a")
    async with bench.running(0.2):
        before = len(bench.source.times["a"])
        bench.store.upsert(Endpoint.of("a", "10.0.0.1", 8000, {"role": "decode"}))
        await bench.time.run(0.1)
        assert len(bench.source.times["a"]) == before + 2
        assert bench.source.seen[-1].labels == {"role": "decode"}


async def test_stop_ends_all_tasks_and_closes_the_sources() -> None:
    bench = Bench()
    bench.add("a", "b", "c")
    async with bench.running(0.1):
        assert len(list(bench.collector.states())) == 3
    assert bench.source.is_closed
    bench.add("d")
    await settle()
    assert "d" not in bench.source.times


# ── real servers ──


class RealBench:
    """The real source and extractor."""

    def __init__(self, timeout_s: float = 1.0) -> None:
        self.store = EndpointStore()
        self.counters = Counters()
        extractors = (ExtractorBinding("core-metrics-extractor", make_plugin(CORE_METRICS)),)
        binding = SourceBinding("scrape", "metrics-data-source", make_plugin(METRICS_SOURCE), extractors)
        self.attempt = asyncio.Event()
        self.collector = Collector(self.store, [binding], self.counters, timeout_s=timeout_s, sleep=self._sleep)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.collector.start()
        try:
            yield
        finally:
            await self.collector.stop()
            assert scrape_tasks() == []

    async def until(self, condition: Callable[[], object]) -> None:
        """Look after each attempt of the collector whether something has come about."""
        async with asyncio.timeout(10):
            while not condition():
                self.attempt.clear()
                await self.attempt.wait()

    async def _sleep(self, seconds: float) -> None:
        self.attempt.set()
        await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    "respond",
    [
        pytest.param(answer("", 500), id="500"),
        pytest.param(answer("", 404), id="404"),
        pytest.param(reset, id="reset"),
        pytest.param(stop_half_way, id="half a page by length"),
        pytest.param(answer(PAGE[:-5]), id="half a page"),
        pytest.param(answer(b"\x00\x01garbage\n"), id="garbage"),
        pytest.param(hang, id="hangs"),
    ],
)
async def test_a_server_that_misbehaves_and_recovers(respond: Respond) -> None:
    bench = RealBench(timeout_s=0.1)
    async with serving() as server, serving(answer("vllm:num_requests_waiting 1\n")) as healthy:
        bench.store.replace_all([server.endpoint("a"), healthy.endpoint("b")])
        async with bench.running():
            await bench.until(lambda: bench.store.metrics(A).waiting_queue == 3)
            server.respond = respond
            await bench.until(lambda: bench.counters.polls["metrics-data-source"] >= 2)
            assert bench.store.metrics(A).waiting_queue == 3
            state = bench.collector.state(A)
            assert state is not None
            assert state.is_failing
            seen = len(healthy.requests)
            await bench.until(lambda: len(healthy.requests) > seen)
            server.respond = page
            await bench.until(lambda: not state.is_failing)


async def test_a_server_that_is_not_there_yet() -> None:
    bench = RealBench()
    async with serving() as server:
        endpoint = server.endpoint("a")
    bench.store.upsert(endpoint)
    async with bench.running():
        await bench.until(lambda: bench.counters.polls["metrics-data-source"])
        assert bench.store.metrics(A) is UNSCRAPED
        assert len(bench.store.candidates()) == 1
        assert len(bench.store.snapshot().scraped) == 0


async def test_a_hanging_server_is_given_up_after_the_timeout() -> None:
    bench = RealBench(timeout_s=0.05)
    async with serving(hang) as server:
        bench.store.upsert(server.endpoint())
        async with bench.running():
            await bench.until(lambda: bench.counters.polls["metrics-data-source"] >= 2)
            state = bench.collector.state(A)
            assert state is not None
            assert state.last_error == "no answer within 0.05 s"
