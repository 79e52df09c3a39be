"""The collector: timing on a virtual clock, failures, and real servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from epp.datalayer.collector import Collector, effective_interval_s
from epp.datalayer.page_rounds import BURST, MAX_SLOT_TICKS, SLOT_PAGES, TICK_S
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import Extraction, PageAddress
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint, EndpointId, EndpointMetrics
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.metrics_source import PLUGIN as METRICS_SOURCE
from tests.unit.datalayer.collector_bench import Bench, Counters, Extractor, PagesSource, Source, scrape_tasks, settle
from tests.unit.datalayer.servers import PAGE, Respond, answer, hang, page, reset, serving, stop_half_way

A = EndpointId("default/a")
FAILING = "endpoint cannot be scraped, its last metrics stay"
RECOVERED = "endpoint can be scraped again"


MakeBench = Callable[..., Bench]


@pytest.fixture(params=[Source, PagesSource], ids=["tasks", "pages"])
def make_bench(request: pytest.FixtureRequest) -> MakeBench:
    """Both ways of reading."""
    return partial(Bench, source=request.param)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ── timing ──


async def test_a_new_endpoint_is_read_at_once_and_then_at_the_interval(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.add("a")
    async with bench.running(1.0):
        times = bench.source.times["a"]
        assert times[0] == 1000.0
        assert 20 <= len(times) <= 21
        assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(times[1:])} == {0.05}
        assert bench.store.metrics(A).waiting_queue == 7
        state = bench.collector.state(A)
        assert state is not None
        assert state.failures == 0
        assert state.last_success_s == pytest.approx(times[-1], abs=0.05)


async def test_endpoints_are_spread_over_the_interval() -> None:
    bench = Bench()
    bench.add(*(f"e{i}" for i in range(100)))
    async with bench.running(0.2):
        offsets = {round(times[-1] % 0.05, 5) for times in bench.source.times.values()}
        assert len(offsets) > 90
        assert max(offsets) - min(offsets) > 0.045


async def test_an_endpoint_keeps_its_moment_over_restarts(make_bench: MakeBench) -> None:
    benches = [make_bench(), make_bench()]
    for bench in benches:
        bench.add("a")
        async with bench.running(0.2):
            pass
    assert benches[0].source.times == benches[1].source.times


@pytest.mark.parametrize(
    ("requested_ms", "effective_ms"),
    [(75, 100), (120, 100), (130, 150), (25, 50), (1, 50), (50, 50), (1000, 1000), (5000, 5000)],
)
def test_w11_intervals_are_multiples_of_50_ms(requested_ms: int, effective_ms: int) -> None:
    assert effective_interval_s(requested_ms / 1000) == effective_ms / 1000


async def test_w12_each_source_has_its_own_clock(make_bench: MakeBench) -> None:
    bench = make_bench(refresh_interval_s=5.0)
    models = Source(bench.time.clock, 1.0)
    bench.bindings.append(SourceBinding("models", "models-source", models))
    bench.collector = bench.make(5.0)
    bench.add("a")
    async with bench.running(30.0):
        assert len(bench.source.times["a"]) in (6, 7)
        assert len(models.times["a"]) in (30, 31)


async def test_w13_too_short_intervals_are_told(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(refresh_interval_s=0.01)
    bench.add("a")
    async with bench.running(1.0):
        assert len(bench.source.times["a"]) <= 21
    assert lines(caplog, logging.WARNING) == ["metrics refresh interval is too short, the minimum is used"]


async def test_w11_a_rounded_interval_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Bench(interval_s=0.075)
    assert lines(caplog) == ["interval of a data source rounded to 50 ms"]


async def test_w14_never_two_requests_at_once_and_missed_moments_are_dropped(make_bench: MakeBench) -> None:
    bench = make_bench()
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
        assert bench.store.updated_s(EndpointId("default/b")) == pytest.approx(bench.time.now_s, abs=0.05)
        assert bench.store.metrics(A) is UNSCRAPED


# ── failures ──


async def test_w18_failures_slow_down_and_the_first_success_ends_that(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.source.error = ConnectionRefusedError("refused")
    bench.add("a")
    async with bench.running(60.0):
        times = bench.source.times["a"]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # From the moment at which the failure was seen.
        slack = (1.1 + MAX_SLOT_TICKS if isinstance(bench.source, PagesSource) else 2.1) * TICK_S
        assert gaps[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0], abs=slack)
        assert gaps[7:] == pytest.approx([5.0] * len(gaps[7:]), abs=slack)
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


async def test_a_page_as_before_the_failures_ends_the_slowing_down_too(make_bench: MakeBench) -> None:
    bench = make_bench(Families())
    bench.add("a")
    async with bench.running(1.0):
        bench.source.error = ConnectionRefusedError("refused")
        await bench.time.run(30.0)
        bench.source.error = None
        await bench.time.run(5.5)
        attempts = len(bench.source.times["a"])
        await bench.time.run(1.0)
        assert len(bench.source.times["a"]) - attempts == 20
        state = bench.collector.state(A)
        assert state is not None
        assert (state.consecutive_failures, state.is_failing) == (0, False)


@pytest.mark.parametrize("count", [1, 10, 40, 200])
async def test_every_page_is_read_at_the_interval_however_long_slots_are(count: int) -> None:
    bench = Bench(source=PagesSource)
    bench.add(*(f"e{number}" for number in range(count)))
    async with bench.running(0.1):
        before = {name: len(times) for name, times in bench.source.times.items()}
        await bench.time.run(5.0)
        assert {len(times) - before[name] for name, times in bench.source.times.items()} <= {99, 100, 101}
        moments = [time for times in bench.source.times.values() for time in times if time > bench.time.now_s - 1]
        together = Counter(round(moment, 3) for moment in moments)
        assert max(together.values()) <= max(2 * SLOT_PAGES, count // 2), "not all at once"
        assert len(together) <= 100


async def test_a_long_interval_is_not_shortened_by_failures(make_bench: MakeBench) -> None:
    bench = make_bench(interval_s=20.0)
    bench.source.error = OSError("no")
    bench.add("a")
    async with bench.running(61.0):
        assert len(bench.source.times["a"]) == 4


async def test_w18_one_line_when_an_endpoint_fails_and_one_when_it_is_back(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.source.error = OSError("down")
    bench.add("a")
    with caplog.at_level(logging.INFO):
        async with bench.running(60.0):
            bench.source.error = None
            await bench.time.run(60.0)
    assert lines(caplog) == [FAILING, RECOVERED]


async def test_an_endpoint_that_comes_and_goes_is_told_of_twice_a_minute_at_most(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.add("a")
    with caplog.at_level(logging.INFO):
        async with bench.running():
            for second in range(60):
                bench.source.error = OSError("down") if second % 2 else None
                await bench.time.run(1.0)
    assert lines(caplog) == [FAILING, RECOVERED]


async def test_failures_keep_the_last_metrics(make_bench: MakeBench) -> None:
    bench = make_bench()
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


async def test_w16_one_extractor_fails_and_the_other_is_fine(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(Extractor(RuntimeError("bug")), Extractor())
    bench.add("a")
    async with bench.running(TICK_S):
        assert bench.store.metrics(A).waiting_queue == 7
        assert bench.counters.extracts == {("fake-source", "extractor-1"): 1}
        assert bench.counters.polls == {}
        state = bench.collector.state(A)
        assert state is not None
        assert (state.is_failing, state.problems) == (False, ("extractor-1 failed: RuntimeError: bug",))
    assert lines(caplog, logging.ERROR) == ["plugin failed while endpoints are read"]


async def test_what_could_be_read_is_stored_and_the_rest_is_counted(make_bench: MakeBench) -> None:
    bench = make_bench(Extractor(problems=["kv is missing"]))
    bench.add("a")
    async with bench.running(TICK_S):
        assert bench.store.metrics(A).waiting_queue == 7
        assert bench.counters.extracts == {("fake-source", "extractor-1"): 1}


async def test_a_page_without_any_wanted_value_is_told_of(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(Extractor(problems=["queue is missing", "kv is missing"], reads=False))
    bench.add("a")
    async with bench.running(1.0):
        state = bench.collector.state(A)
        assert state is not None
        assert (state.is_failing, state.last_error, state.last_success_s) == (True, "queue is missing", None)
        assert bench.counters.polls == {}
        assert len(bench.source.times["a"]) >= 20
    assert lines(caplog, logging.WARNING) == [FAILING]


@pytest.mark.usefixtures("debug_log")
async def test_details_are_debug_lines(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench(Extractor(problems=["kv is missing"]))
    bench.add("a")
    async with bench.running():
        bench.source.error = OSError("down")
        await bench.time.run(0.1)
    assert [line for line in lines(caplog, logging.DEBUG) if line in ("metrics incomplete", "scrape failed")]


# ── coming and going ──


async def test_w17_nothing_is_written_for_an_endpoint_that_is_gone() -> None:
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


async def test_an_endpoint_that_moved_is_read_as_a_new_one(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.add("a")
    async with bench.running(0.2):
        bench.source.error = OSError("down")
        bench.store.upsert(Endpoint.of("a", "10.0.0.9", 8000))
        await bench.time.run(0.2)
        assert bench.store.metrics(A) is UNSCRAPED
        assert bench.source.seen[-1].address == "10.0.0.9"


async def test_changed_labels_are_seen_and_the_rhythm_stays(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.add("a")
    async with bench.running(0.2):
        before = len(bench.source.times["a"])
        bench.store.upsert(Endpoint.of("a", "10.0.0.1", 8000, {"role": "decode"}))
        await bench.time.run(0.1)
        assert len(bench.source.times["a"]) == before + 2
        assert bench.source.seen[-1].labels == {"role": "decode"}


async def test_stop_ends_all_tasks_and_closes_the_sources(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.add("a", "b", "c")
    async with bench.running(0.1):
        assert len(list(bench.collector.states())) == 3
    assert bench.source.is_closed
    bench.add("d")
    await settle()
    assert "d" not in bench.source.times


# ── pages that a reader reads ──


async def test_the_loop_is_woken_a_hundred_times_a_second_at_most() -> None:
    bench = Bench(source=PagesSource)
    bench.add(*(f"e{i}" for i in range(100)))
    async with bench.running(1.0):
        assert scrape_tasks() == []
        bench.time.wake_ups = 0
        await bench.time.run(1.0)
        assert bench.time.wake_ups <= 101
        slots = Counter(round(times[-1] % 0.05, 3) % 0.05 for times in bench.source.times.values())
        assert len(slots) == 5
        assert max(slots.values()) < 40


async def test_nobody_is_woken_while_nothing_is_due() -> None:
    bench = Bench(source=PagesSource, interval_s=5.0)
    bench.add("a")
    async with bench.running(1.0):
        bench.time.wake_ups = 0
        await bench.time.run(20.0)
        assert len(bench.source.times["a"]) == 5
        assert bench.time.wake_ups == 2 * 4
        bench.store.delete(A)
        bench.time.wake_ups = 0
        await bench.time.run(20.0)
        assert bench.time.wake_ups <= 1


async def test_many_pages_at_once_are_handled_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(source=PagesSource)
    bench.add(*(f"e{i}" for i in range(3 * BURST)))
    written: Counter[int] = Counter()
    write = bench.store.set_metrics

    def counted(endpoint_id: EndpointId, metrics: EndpointMetrics, updated_s: float | None) -> bool:
        written[bench.time.wake_ups] += 1
        return write(endpoint_id, metrics, updated_s)

    monkeypatch.setattr(bench.store, "set_metrics", counted)
    async with bench.running(TICK_S):
        assert list(written.values()) == [BURST] * 3


class Families(Extractor):
    """Says what it reads, and counts how often it is asked."""

    asked = 0

    def families(self, endpoint: Endpoint) -> frozenset[str]:
        return frozenset({"q"})

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        self.asked += 1
        return super().extract(payload, endpoint, previous)


async def test_the_same_page_again_is_only_newer(make_bench: MakeBench) -> None:
    extractor = Families()
    bench = make_bench(extractor)
    bench.add("a")
    async with bench.running(1.0):
        assert extractor.asked == 1
        metrics = bench.store.metrics(A)
        assert metrics.waiting_queue == 7
        assert bench.store.updated_s(A) == pytest.approx(bench.time.now_s, abs=0.06)
        snapshot = bench.store.snapshot()
        await bench.time.run(1.0)
        assert bench.store.snapshot() is snapshot, "only the age has changed"
        assert snapshot.updated_s == [pytest.approx(bench.time.now_s, abs=0.06)]
        bench.store.set_metrics(A, replace(metrics, attributes={"other": 1}))
        await bench.time.run(0.2)
        assert extractor.asked == 2, "what another source wrote is seen"
        bench.store.upsert(Endpoint.of("a", "10.0.0.1", 8000, {"l": "v"}))
        await bench.time.run(0.2)
        assert extractor.asked == 3, "what is read may depend on labels"


async def test_another_page_with_the_same_values_changes_the_age_alone(make_bench: MakeBench) -> None:
    bench = make_bench(Extractor())
    bench.add("a")
    async with bench.running(1.0):
        snapshot = bench.store.snapshot()
        columns = snapshot.candidates.waiting_queue
        await bench.time.run(1.0)
        assert bench.store.snapshot() is snapshot
        assert snapshot.candidates.waiting_queue is columns
        assert snapshot.candidates.updated_s == [pytest.approx(bench.time.now_s, abs=0.06)]


@pytest.mark.parametrize(
    "extractors",
    [(Extractor(),), (Families(), Extractor()), (Families(problems=["no kv"]),), (Families(reads=False),)],
    ids=["no families", "one without families", "problems", "nothing read"],
)
async def test_the_same_page_is_read_again_unless_all_was_well(make_bench: MakeBench, extractors: Sequence[Extractor]) -> None:
    bench = make_bench(*extractors)
    bench.add("a")
    calls: list[bytes] = []

    class Watching(Extractor):
        def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
            calls.append(payload)
            return extractors[-1].extract(payload, endpoint, previous)

    class WatchingFamilies(Watching, Families):
        pass

    last = WatchingFamilies() if isinstance(extractors[-1], Families) else Watching()
    bound = (*bench.bindings[0].extractors[:-1], ExtractorBinding("watched", last))
    bench.bindings[0] = replace(bench.bindings[0], extractors=bound)
    bench.collector = bench.make()
    async with bench.running(1.0):
        assert len(calls) >= 19


@pytest.mark.parametrize("error", [KeyError("bug"), None], ids=["raises", "none"])
async def test_a_source_that_names_no_page_is_read_by_a_task(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    class Elsewhere(PagesSource):
        def page(self, endpoint: Endpoint) -> PageAddress | None:
            if error is not None:
                raise error
            return None

    bench = Bench(source=Elsewhere)
    bench.add("a", "b")
    async with bench.running(0.2):
        assert len(scrape_tasks()) == 2
        assert bench.store.metrics(A).waiting_queue == 7
    assert lines(caplog, logging.ERROR) == ["plugin failed while endpoints are read"] * (error is not None)


async def test_a_page_that_the_reader_does_not_take_is_read_by_a_task() -> None:
    bench = Bench(source=PagesSource)
    bench.reader.error = ValueError("no address")
    bench.add("a")
    async with bench.running(0.2):
        assert bench.store.metrics(A).waiting_queue == 7
        assert len(scrape_tasks()) == 1
        bench.reader.error = None
        bench.store.upsert(Endpoint.of("a", "10.0.0.1", 8000, {"l": "v"}))
        await bench.time.run(0.2)
        assert scrape_tasks() == []


@pytest.mark.parametrize("seconds", [0.0, 0.2], ids=["at once", "later"])
async def test_without_the_reader_tasks_go_on(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(source=PagesSource)
    bench.add("a", "b")
    if not seconds:
        bench.reader.error = RuntimeError("the thread has ended")
    async with bench.running(seconds):
        bench.reader.error = RuntimeError("the thread has ended")
        await bench.time.run(0.2)
        assert len(scrape_tasks()) == 2
        bench.add("c")
        await bench.time.run(0.2)
        assert bench.store.metrics(EndpointId("default/c")).waiting_queue == 7
    assert lines(caplog, logging.ERROR) == ["pages are read by the event loop from now on, which costs more"]


async def test_a_page_that_cannot_be_handled_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(source=PagesSource)
    bench.add("a", "b")
    write = bench.store.set_metrics

    def broken(endpoint_id: EndpointId, metrics: EndpointMetrics, updated_s: float | None) -> bool:
        if endpoint_id == A:
            raise LookupError("bug")
        return write(endpoint_id, metrics, updated_s)

    monkeypatch.setattr(bench.store, "set_metrics", broken)
    async with bench.running(1.0):
        assert len(bench.source.times["a"]) >= 20
        assert bench.store.updated_s(EndpointId("default/b")) == pytest.approx(bench.time.now_s, abs=0.06)
    assert "LookupError" in caplog.text


async def test_nothing_is_written_for_an_endpoint_that_left_while_it_was_read() -> None:
    bench = Bench(source=PagesSource)
    bench.source.gate = asyncio.Event()
    bench.add("a")
    async with bench.running(0.1):
        bench.store.delete(A)
        bench.source.gate.set()
        bench.add("b")
        await bench.time.run(0.1)
        assert bench.store.metrics(A) is UNSCRAPED
        assert [endpoint.name for endpoint in bench.store.snapshot().scraped] == ["b"]
    assert bench.reader.is_closed


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
async def test_w15_a_server_that_misbehaves_and_recovers(respond: Respond) -> None:
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


async def test_w15_a_server_that_is_not_there_yet() -> None:
    bench = RealBench()
    async with serving() as server:
        endpoint = server.endpoint("a")
    bench.store.upsert(endpoint)
    async with bench.running():
        await bench.until(lambda: bench.counters.polls["metrics-data-source"])
        assert bench.store.metrics(A) is UNSCRAPED
        assert len(bench.store.candidates()) == 1
        assert len(bench.store.snapshot().scraped) == 0


async def test_w14_a_hanging_server_is_given_up_after_the_timeout() -> None:
    bench = RealBench(timeout_s=0.05)
    async with serving(hang) as server:
        bench.store.upsert(server.endpoint())
        async with bench.running():
            await bench.until(lambda: bench.counters.polls["metrics-data-source"] >= 2)
            state = bench.collector.state(A)
            assert state is not None
            assert state.last_error == "no answer within 0.05 s"
