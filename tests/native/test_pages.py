"""Metrics pages by native code: the same as by the event loop, for every page and every server that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing

import epp_native
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.datalayer.collector import Collector
from epp.datalayer.page_rounds import make_page_reader
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.prometheus_text import MAX_PAGE_BYTES, FamilyReader
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.engine_reader import EngineReader
from plugins.datalayer.engines import BUILT_IN, Engine
from plugins.datalayer.metrics_source import MetricsSource
from tests.property.test_prometheus_text import page_texts
from tests.unit.datalayer import pages
from tests.unit.datalayer.servers import PAGE, reset, serving
from tests.unit.datalayer.test_collector import Counters

LIMIT_S = 10
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def raw(*pieces: bytes, close: bool = True) -> Serve:
    """Answers each request with these bytes; then closes, or waits for the next one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if close:
                return

    return serve


def head(*fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


def plain(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    return head(f"Content-Length: {len(body)}", *fields, status=status) + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return head("Transfer-Encoding: chunked") + body


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A server on a free port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def by_native_code(port: int, *, times: int = 1, timeout_s: float = 1.0) -> bytes | str | None:
    """What the reader gives at last, after so many fetches: page, error, or None for a refusal."""
    source = MetricsSource()
    page = source.page(Endpoint.of("a", "127.0.0.1", port))
    assert page is not None
    result: bytes | str | None = None
    with closing(epp_native.PageReader(MAX_PAGE_BYTES, timeout_s)) as reader:
        reader.set_target(7, page.address, page.port, page.host, page.path, page.url, None)
        for _ in range(times):
            found = reader.exchange([7])
            async with asyncio.timeout(LIMIT_S):
                while not found:
                    await asyncio.sleep(0.001)
                    found = reader.exchange([])
            [(key, text, error)] = found
            assert key == 7
            result = error if text is None else text
    return result


async def by_the_event_loop(port: int, *, times: int = 1, timeout_s: float = 1.0) -> bytes | str | None:
    source = MetricsSource(timeout_s=timeout_s)
    result: bytes | str | None = None
    try:
        for _ in range(times):
            try:
                result = await source.fetch(Endpoint.of("a", "127.0.0.1", port))
            except OSError as error:
                result = str(error)
    finally:
        await source.close()
    return result


Read = Callable[..., Awaitable[bytes | str | None]]
WAYS = pytest.mark.parametrize("read", [by_native_code, by_the_event_loop], ids=["native", "event loop"])
BODY = PAGE.encode()
LOST = "the connection to {url} was lost before its whole answer came"
NO_PAGE = "this is no Prometheus text page: it begins with "
CUT = "the metrics page is cut off: its last line has no end"


@WAYS
@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        pytest.param(raw(plain(BODY)), BODY, id="a length"),
        pytest.param(raw(head() + BODY), BODY, id="until the connection ends"),
        pytest.param(raw(chunked(BODY[:3], BODY[3:])), BODY, id="chunks"),
        pytest.param(raw(head("Content-Length: 4"), b"a", b" ", b"1\n"), b"a 1\n", id="in pieces"),
        pytest.param(raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY), BODY, id="HTTP/1.0"),
        pytest.param(raw(plain(b"")), b"", id="empty"),
        pytest.param(raw(plain(b"\xff # odd\n")), NO_PAGE + "b'\\xff # odd\\n'", id="garbage"),
        pytest.param(raw(plain(b'{"a": 1}\n')), NO_PAGE + "b'{\"a\": 1}\\n'", id="JSON"),
        pytest.param(raw(plain(b"<html>'\n")), 'this is no Prometheus text page: it begins with b"<html>\'\\n"', id="HTML"),
        pytest.param(raw(plain(BODY[:-4])), CUT, id="a page that is cut"),
        pytest.param(raw(plain(b"", status="503 Busy")), "status 503 from {url}", id="503"),
        pytest.param(raw(plain(BODY, status="203 Other")), "status 203 from {url}", id="not quite 200"),
        pytest.param(raw(head("Content-Length: 99") + BODY), LOST, id="half"),
        pytest.param(raw(), LOST, id="no answer"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nConte"), LOST, id="half a head"),
        pytest.param(
            raw(head("Transfer-Encoding: chunked") + b"10\r\na 1\n"),
            LOST,
            id="half a chunk",
        ),
        pytest.param(raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "the answer of {url} is no HTTP", id="SSH"),
        pytest.param(
            raw(head(f"Content-Length: {MAX_PAGE_BYTES + 2}"), b"#" * (MAX_PAGE_BYTES + 1) + b"\n"),
            f"the answer of {{url}} is larger than {MAX_PAGE_BYTES} bytes",
            id="M22 too large",
        ),
    ],
)
async def test_both_ways_give_the_same(read: Read, serve: Serve, expected: bytes | str) -> None:
    async with listening(serve) as port:
        found = await read(port)
    url = f"http://127.0.0.1:{port}/metrics"
    assert found == (expected if isinstance(expected, bytes) else expected.replace("{url}", url))


@WAYS
async def test_a_server_that_hangs_and_one_that_is_not_there(read: Read) -> None:
    waits = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("Content-Length: 99") + BODY)
        await waits.wait()

    async with listening(hang) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        assert await read(port, timeout_s=0.05) == f"no whole answer within 0.05 s from {url}"
        waits.set()
    assert await read(port) == f"cannot connect to {url}: Connection refused"


@WAYS
async def test_a_connection_is_kept_and_replaced_if_the_server_closed_it(read: Read) -> None:
    connections: list[int] = []

    def counted(serve: Serve) -> Serve:
        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(1)
            await serve(reader, writer)

        return count

    async with listening(counted(raw(plain(BODY), close=False))) as port:
        assert await read(port, times=3) == BODY
    assert len(connections) == 1
    async with listening(counted(raw(plain(BODY)))) as port:
        assert await read(port, times=3) == BODY
    assert len(connections) == 4


@pytest.mark.parametrize(
    ("location", "expected"),
    [("/metrics/", BODY), ("http://127.0.0.1:{port}/metrics/", BODY), ("http://127.0.0.2:{port}/", None), ("/metrics", None)],
    ids=["a path", "the same server", "another server", "for ever"],
)
async def test_redirects(location: str, expected: bytes | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            port = writer.get_extra_info("sockname")[1]
            moved = plain(b"", f"Location: {location.format(port=port)}", status="307 Temporary Redirect")
            writer.write(plain(BODY) if request.startswith(b"GET /metrics/ ") else moved)

    async with listening(serve) as port:
        assert await by_native_code(port) == expected


async def test_a_compressed_page_is_left_to_others() -> None:
    async with listening(raw(plain(b"?", "Content-Encoding: gzip"))) as port:
        assert await by_native_code(port) is None


async def test_the_request_is_that_of_the_event_loop() -> None:
    asked: list[list[bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n"))
        writer.write(plain(BODY))

    async with listening(serve) as port:
        assert await by_native_code(port) == await by_the_event_loop(port) == BODY
    assert asked[0][0] == asked[1][0]
    assert set(asked[0]) == set(asked[1])


# ── excerpts ──

ENGINES = [pytest.param(engine, id=name) for name, engine in BUILT_IN.items()]


def excerpt(texts: list[str], families: list[str] | None) -> list[bytes]:
    """What the reader gives of these pages."""

    async def read() -> list[bytes]:
        waiting = iter(texts)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(plain(next(waiting).encode()))

        found: list[bytes] = []
        async with listening(serve) as port:
            with closing(epp_native.PageReader(MAX_PAGE_BYTES, LIMIT_S)) as reader:
                reader.set_target(1, "127.0.0.1", port, "x", "/", "http://x/", families)
                for _ in texts:
                    pages = reader.exchange([1])
                    while not pages:
                        await asyncio.sleep(0)
                        pages = reader.exchange([])
                    assert pages[0][1] is not None, pages
                    found.append(pages[0][1])
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("engine", ENGINES)
def test_an_excerpt_says_what_the_page_says(engine: Engine) -> None:
    reader = EngineReader(engine)
    texts = [text for name, text in vars(pages).items() if name.isupper() and isinstance(text, str) and "\n" in text]
    texts += [
        pages.full_page(),
        pages.full_page(engines=8),
        "",
        "vllm:num_requests_waiting 1 2 3\nvllm:num_requests_waiting{ 3\n",
    ]
    for text, cut in zip(texts, excerpt(texts, sorted(reader.families)), strict=True):
        assert reader.read(cut, UNSCRAPED, 1.0) == reader.read(text.encode(), UNSCRAPED, 1.0)
        assert len(cut) < 20_000


@given(st.lists(page_texts(), min_size=1, max_size=8))
def test_an_excerpt_of_any_page_says_what_the_page_says(texts: list[str]) -> None:
    names = ["q", "q:depth", "vllm:num_requests_waiting"]

    def read(page: bytes) -> list[object]:
        found: list[object] = []
        for name in names:
            try:
                found.append(repr(FamilyReader(name).read(page)))
            except ValueError as error:
                found.append(str(error))
        return found

    for text, cut in zip(texts, excerpt(texts, names), strict=True):
        assert read(cut) == read(text.encode())


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
        async with asyncio.timeout(LIMIT_S):
            yield collector, store
    finally:
        await collector.stop()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 — metrics are read, not told
        await asyncio.sleep(0.002)


async def test_pages_reach_the_store_without_a_task() -> None:
    async with serving() as server:
        endpoint = server.endpoint()
        async with collecting(endpoint) as (collector, store):
            await until(lambda: store.metrics(endpoint.id).waiting_queue == 3)
            first = store.metrics(endpoint.id)
            await until(lambda: store.metrics(endpoint.id).updated_s != first.updated_s)
            assert store.metrics(endpoint.id).waiting_queue == 3, "the same page again is only newer"
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("scrape")]
            server.respond = reset
            state = collector.state(endpoint.id)
            assert state is not None
            await until(lambda: state.consecutive_failures >= 2)
            assert store.metrics(endpoint.id).waiting_queue == 3


async def test_a_server_that_hangs_delays_no_other() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(hang) as port, serving() as server:
        slow, quick = Endpoint.of("slow", "127.0.0.1", port), server.endpoint("quick")
        async with collecting(slow, quick, timeout_s=LIMIT_S) as (_, store):
            await until(lambda: len(server.requests) >= 5)
            assert store.metrics(slow.id) is UNSCRAPED


async def test_what_native_code_refuses_is_read_by_a_task() -> None:
    async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(plain(b"", f"Location: {elsewhere}", status="302 Found"))

    async with serving() as server, listening(moved) as port:
        elsewhere = f"http://127.0.0.1:{server.port}/metrics"
        endpoint = Endpoint.of("a", "127.0.0.1", port)
        async with collecting(endpoint) as (_, store):
            await until(lambda: store.metrics(endpoint.id).waiting_queue == 3)


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
