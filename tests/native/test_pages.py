"""The native reader of pages: excerpts equal whole pages for those who read them; many targets; and the collector with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from epp_native import PageReader, page_excerpt
from hypothesis import example, given
from hypothesis import strategies as st

from epp.datalayer.collector import Collector
from epp.datalayer.page_rounds import make_page_reader
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.prometheus_text import MAX_PAGE_BYTES, FamilyReader, Sample, UnreadablePageError, check_page
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.engine_reader import EngineReader
from plugins.datalayer.engines import BUILT_IN, Engine, EngineConfig, engine_from
from plugins.datalayer.metrics_source import MetricsSource
from tests.property.test_prometheus_text import page_texts
from tests.unit.datalayer import pages
from tests.unit.datalayer.collector_bench import Counters
from tests.unit.datalayer.raw_pages import PAGE, PATIENCE_S, POLL_S, RawServer, Then, ok, raw, raw_server, redirect, taken
from tests.unit.datalayer.servers import reset, serving

NAMES = ("q", "q_depth", "q:depth", "kv", "kv_info", "lora")
HOST = "127.0.0.1"
THREAD = "epp-pages"
SHORT_S = 0.5


# ── excerpts ──

_label_sets = st.sampled_from(["", "{}", '{engine="0"}', '{engine="1",x="a b"}', '{x="\\"\\n}"}', "{x", '{block_size="16"}'])
_values = st.sampled_from(["0", "1.5", "NaN", "+Inf", "-1", "1 5", "1_0", "x", "", "1\r"])
_names = st.sampled_from([*NAMES, *(f"{name}_bucket" for name in NAMES[:2]), "Q"])
_lines = st.one_of(
    st.tuples(_names, _label_sets, st.sampled_from([" ", "\t", ""]), _values).map("".join),
    st.tuples(_names, st.sampled_from(["gauge", "summary", "histogram", " summary", "summary x", ""])).map(
        lambda parts: f"# TYPE {parts[0]} {parts[1]}"
    ),
    _names.map(lambda name: f"# HELP {name} q 1"),
    st.sampled_from(["", " ", "#", "# TYPE q", "q", " q 1"]),
    st.text("q_kv:{}# \t", max_size=8),
)


@st.composite
def _pages(draw: st.DrawFn) -> bytes:
    lines = draw(
        st.lists(st.one_of(_lines, st.tuples(_lines, st.integers(1, 3)).map(lambda many: "\n".join([many[0]] * many[1]))))
    )
    page = "".join(f"{line}\n" for line in ["# HELP first line", *lines])
    return page.encode() if draw(st.booleans()) else page.encode().removeprefix(b"# HELP first line\n")


def _read(name: str, page: bytes) -> list[tuple[str, str, int]] | str:
    try:
        return [_comparable(sample) for sample in FamilyReader(name).read(page)]
    except ValueError as error:
        return str(error)


def _comparable(sample: Sample) -> tuple[str, str, int]:
    return repr(sorted(sample.labels.items())), repr(sample.value), sample.timestamp


def _checked(page: bytes) -> str:
    try:
        check_page(page)
    except UnreadablePageError as error:
        return str(error)
    return ""


def _cut(page: bytes, names: list[str]) -> bytes | str:
    try:
        return page_excerpt(page, names)
    except ValueError as error:
        return str(error)


@given(_pages(), st.lists(st.sampled_from(NAMES), unique=True))
@example(b"# TYPE q summary\nq 1\nkv 2\nq 3\n# TYPE kv summary\nkv 4\n", ["kv", "q"])
def test_each_family_of_an_excerpt_is_that_of_the_page(page: bytes, names: list[str]) -> None:
    """The same samples and the same errors; and an excerpt of the excerpt is the same."""
    excerpt = _cut(page, names)
    if problem := _checked(page):
        assert excerpt == problem
        return
    assert isinstance(excerpt, bytes)
    assert [_read(name, excerpt) for name in names] == [_read(name, page) for name in names]
    assert page_excerpt(excerpt, list(reversed(names))) == excerpt


READER = EngineReader(
    engine_from(
        EngineConfig.model_validate(
            {
                "name": "mine",
                "queuedRequestsSpec": "q",
                "runningRequestsSpec": 'q_depth{engine="0"}',
                "kvUsageSpec": "kv",
                "loraSpec": "lora",
                "cacheInfoSpec": "kv_info",
                "customMetrics": [{"attributeKey": "depth", "metricSpec": "q:depth"}],
            }
        )
    )
)


@given(_pages() | page_texts().map(str.encode))
def test_an_engine_says_of_an_excerpt_what_it_says_of_the_page(page: bytes) -> None:
    """Values and problems."""
    excerpt = _cut(page, sorted(READER.families))
    if isinstance(excerpt, bytes):
        assert repr(READER.read(excerpt, UNSCRAPED)) == repr(READER.read(page, UNSCRAPED))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda page: page + b"\n"))
@example(b"'\"\n")
def test_other_kinds_of_pages_are_refused_in_the_same_words(page: bytes) -> None:
    """Whatever bytes they begin with."""
    excerpt = _cut(page, [])
    assert excerpt == (_checked(page) or b"")


PAGES = (pages.VLLM, pages.VLLM_TWO_ENGINES, pages.SGLANG, pages.SGLANG_OLD, pages.TRTLLM, pages.TRITON_TRTLLM, pages.TRITON)


@pytest.mark.parametrize("engine", [pytest.param(engine, id=name) for name, engine in BUILT_IN.items()])
def test_pages_of_engines(engine: Engine) -> None:
    reader = EngineReader(engine)
    for text in (*PAGES, pages.full_page(), pages.full_page(engines=8)):
        excerpt = page_excerpt(text.encode(), sorted(reader.families))
        assert reader.read(excerpt, UNSCRAPED) == reader.read(text.encode(), UNSCRAPED)
        assert len(excerpt) < 2000


# ── a reader of many ──


@pytest.fixture
def reader() -> Iterator[PageReader]:
    """With little time for each page."""
    reader = PageReader(MAX_PAGE_BYTES, SHORT_S)
    yield reader
    reader.close()


def target(reader: PageReader, key: int, server: RawServer, path: str = "/metrics", families: list[str] | None = None) -> None:
    """The page of a server."""
    reader.set_target(key, HOST, server.port, server.host, path, f"http://{server.host}{path}", families)


async def until_taken(reader: PageReader, *keys: int) -> dict[int, bytes | str | None]:
    """What comes for these, once each."""
    came: dict[int, bytes | str | None] = {}
    async with asyncio.timeout(PATIENCE_S):
        while not came.keys() >= set(keys):
            for key, page, error in reader.exchange([]):
                assert key not in came
                came[key] = page if page is not None else error
            await asyncio.sleep(POLL_S)
    return came


async def until(condition: Callable[[], object]) -> None:
    """Look again and again: pages and metrics are taken, not told."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


async def until_asked(server: RawServer, count: int = 1) -> None:
    """The server has got so many requests."""
    await until(lambda: len(server.requests) >= count)


async def test_only_the_wanted_lines_come(reader: PageReader) -> None:
    async with raw_server(ok(pages.full_page().encode())) as server:
        target(reader, 1, server, families=["vllm:num_requests_running", "not:there"])
        _, page, error = await taken(reader, 1)
        assert error is None
        assert page == (
            b"# TYPE vllm:num_requests_running gauge\n"
            b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
            b'vllm:num_requests_running{engine="1",model_name="m"} 5.0\n'
        )


async def test_a_hundred_pages_come_and_one_that_hangs_delays_no_other(reader: PageReader) -> None:
    async with raw_server(raw(then=Then.HANG)) as hanging, raw_server(ok(PAGE)) as server:
        target(reader, 0, hanging)
        for key in range(1, 101):
            target(reader, key, server, families=[])
        assert reader.exchange(range(101)) == []
        assert await until_taken(reader, *range(1, 101)) == dict.fromkeys(range(1, 101), b"")
        assert await until_taken(reader, 0) == {0: f"no whole answer within 0.5 s from http://{hanging.host}/metrics"}
        assert server.connections == 100


async def test_what_is_under_way_is_not_asked_again(reader: PageReader) -> None:
    async with raw_server(raw(then=Then.HANG)) as server:
        target(reader, 1, server)
        for _ in range(3):
            assert reader.exchange([1, 1, 2]) == []
            await until_asked(server)
        assert len(await until_taken(reader, 1)) == 1
        assert len(server.requests) == 1


async def test_nothing_comes_for_a_target_that_is_gone(reader: PageReader) -> None:
    async with raw_server(raw(then=Then.HANG)) as server, raw_server(ok(PAGE)) as other:
        target(reader, 1, server)
        target(reader, 2, other)
        reader.exchange([1, 2])
        await until_asked(server)
        await until_asked(other)
        await until_taken(reader, 2)
        reader.exchange([2])
        reader.remove_target(1)
        reader.remove_target(2)
        reader.remove_target(3)
        target(reader, 4, other)
        reader.exchange([4])
        assert await until_taken(reader, 4) == {4: PAGE}
        await until(lambda: not server.serving)


async def test_a_target_can_be_replaced_also_while_it_is_under_way(reader: PageReader) -> None:
    async with raw_server(raw(then=Then.HANG)) as server, raw_server(ok(PAGE)) as other:
        target(reader, 1, server)
        reader.exchange([1])
        await until_asked(server)
        target(reader, 1, other)
        assert await taken(reader, 1) == (1, PAGE, None)
        target(reader, 1, other, path="/other", families=[])
        assert await taken(reader, 1) == (1, b"", None)
        assert other.connections == 1
        assert other.requests[1].startswith(b"GET /other HTTP/1.1\r\n")


async def test_a_page_of_what_a_target_was_before_is_not_handed_out(reader: PageReader) -> None:
    async with raw_server(ok(PAGE)) as server, raw_server(ok(b"other 1\n")) as other:
        target(reader, 1, server)
        target(reader, 2, server)
        reader.exchange([1])
        await until_asked(server)
        reader.exchange([2])
        await until_asked(server, 2)
        target(reader, 1, other)
        target(reader, 2, other)
        reader.exchange([1, 2])
        assert await until_taken(reader, 1, 2) == {1: b"other 1\n", 2: b"other 1\n"}


async def test_many_huge_pages_at_once(reader: PageReader) -> None:
    huge = b"#" * (2 * 1024 * 1024) + b"\n"
    async with raw_server(ok(huge)) as server:
        for key in range(10):
            target(reader, key, server, families=["a"])
        reader.exchange(range(10))
        assert await until_taken(reader, *range(10)) == dict.fromkeys(range(10), b"")


async def test_a_redirect_costs_no_new_connection(reader: PageReader) -> None:
    async with raw_server(redirect("/m"), ok(PAGE), redirect("/m"), ok(PAGE)) as server:
        target(reader, 1, server)
        for _ in range(2):
            assert await taken(reader, 1) == (1, PAGE, None)
        assert server.connections == 1


async def test_an_ipv6_address(reader: PageReader) -> None:
    reader.set_target(1, "::1", 1, "[::1]:1", "/", "http://[::1]:1/", None)
    _, page, error = await taken(reader, 1)
    assert page is None
    assert error is not None
    assert error.startswith("cannot connect to http://[::1]:1/: ")


@pytest.mark.parametrize("address", ["localhost", "fe80::1%eth0", ""])
def test_only_addresses_can_be_asked(reader: PageReader, address: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        reader.set_target(1, address, 80, "h", "/", "http://h/", None)


async def test_a_path_that_no_request_can_carry(reader: PageReader) -> None:
    async with raw_server(ok(PAGE)) as server:
        reader.set_target(1, HOST, server.port, "h", "/a b", "http://h/a b", None)
        _, page, error = await taken(reader, 1)
        assert page is None
        assert error is not None
        assert error.startswith("http://h/a b cannot be asked for: ")


def threads() -> list[str]:
    """Names of the system's threads of this process."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


async def test_the_thread_ends_at_close_with_all_connections() -> None:
    reader = PageReader(MAX_PAGE_BYTES, PATIENCE_S)
    await until(lambda: THREAD in threads())
    async with raw_server(raw(then=Then.HANG)) as server:
        target(reader, 1, server)
        reader.exchange([1])
        await until_asked(server)
        reader.close()
        assert THREAD not in threads()
        await until(lambda: not server.serving)
    reader.close()
    with pytest.raises(RuntimeError, match="has ended"):
        reader.exchange([1])


async def test_a_reader_that_is_dropped_ends_its_thread() -> None:
    reader = PageReader(MAX_PAGE_BYTES, PATIENCE_S)
    await until(lambda: THREAD in threads())
    del reader
    assert THREAD not in threads()


# ── with the collector ──


@asynccontextmanager
async def collecting(*endpoints: Endpoint, timeout_s: float = 1.0) -> AsyncIterator[tuple[Collector, EndpointStore]]:
    store = EndpointStore()
    extractors = (ExtractorBinding("core-metrics-extractor", make_plugin(CORE_METRICS)),)
    binding = SourceBinding("scrape", "metrics-data-source", MetricsSource(), extractors)
    collector = Collector(store, [binding], Counters(), pages=make_page_reader(MAX_PAGE_BYTES, timeout_s))
    store.replace_all(endpoints)
    await collector.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield collector, store
    finally:
        await collector.stop()


async def test_pages_reach_the_store_without_a_task() -> None:
    async with serving() as server:
        endpoint = server.endpoint()
        async with collecting(endpoint) as (collector, store):
            await until(lambda: store.metrics(endpoint.id).waiting_queue == 3)
            first = store.updated_s(endpoint.id)
            await until(lambda: store.updated_s(endpoint.id) != first)
            assert store.metrics(endpoint.id).waiting_queue == 3, "the same page again is only newer"
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("scrape")]
            server.respond = reset
            state = collector.state(endpoint.id)
            assert state is not None
            await until(lambda: state.consecutive_failures >= 2)
            assert store.metrics(endpoint.id).waiting_queue == 3


async def test_a_server_that_hangs_delays_no_other() -> None:
    async with raw_server(raw(then=Then.HANG)) as hanging, serving() as server:
        slow, quick = Endpoint.of("slow", HOST, hanging.port), server.endpoint("quick")
        async with collecting(slow, quick, timeout_s=PATIENCE_S) as (_, store):
            await until(lambda: len(server.requests) >= 5)
            assert store.metrics(slow.id) is UNSCRAPED


async def test_what_native_code_refuses_is_read_by_a_task() -> None:
    async with serving() as server, raw_server(redirect(f"http://{HOST}:{server.port}/metrics")) as moved:
        endpoint = Endpoint.of("a", HOST, moved.port)
        async with collecting(endpoint) as (_, store):
            await until(lambda: store.metrics(endpoint.id).waiting_queue == 3)
        await until(lambda: not moved.serving)


async def test_an_endpoint_that_leaves_and_one_whose_page_moves() -> None:
    async with serving() as server:
        endpoint = server.endpoint("a")
        async with collecting(endpoint) as (collector, store):
            await until(lambda: server.requests)
            store.delete(endpoint.id)
            store.upsert(server.endpoint("a", **{"llm-d.ai/engine-type": "sglang"}))
            await until(lambda: store.metrics(endpoint.id) is not UNSCRAPED or collector.state(endpoint.id))
            store.upsert(server.endpoint("a", **{"llm-d.ai/engine-type": "trtllm-serve"}))
            await until(lambda: server.requests[-1].path == "/prometheus/metrics")


async def test_when_the_thread_ends_tasks_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        endpoint = server.endpoint()
        async with collecting(endpoint) as (collector, store):
            await until(lambda: store.metrics(endpoint.id).waiting_queue == 3)
            assert collector._rounds is not None
            collector._rounds._reader.close()
            seen = len(server.requests)
            await until(lambda: len(server.requests) > seen + 2)
    assert "pages are read by the event loop from now on, which costs more" in caplog.text


async def test_a_hundred_endpoints_are_read_at_their_pace() -> None:
    async with serving() as server:
        endpoints = [server.endpoint(f"pod-{number}") for number in range(100)]
        async with collecting(*endpoints) as (collector, _):
            await until(lambda: all(state.last_success_s for state in collector.states()))
            assert not [state for state in collector.states() if state.failures]
