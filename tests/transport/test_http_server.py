"""The metrics port over real HTTP and HTTPS."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from epp.errors import UsageError
from epp.telemetry.metrics import Metrics, Snapshot
from epp.telemetry.requests import RequestLabels
from epp.transport.http_server import (
    Access,
    AccessRequest,
    HttpOptions,
    HttpServer,
    HttpSources,
    PageRequest,
    reading,
    refuse_all,
)
from epp.transport.metrics_page import MetricsPage
from tests.transport.http_client import LOCAL, PATHS, Client, sources

Serve = Callable[..., Coroutine[object, object, Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers on ports the system chooses, and stops them afterwards."""
    running: list[HttpServer] = []

    async def start(own: HttpSources | None = None, options: HttpOptions = LOCAL) -> Client:
        server = HttpServer(own or sources(), options)
        port = await server.start()
        running.append(server)
        return Client(port)

    yield start
    for server in running:
        await server.stop()


async def test_metrics_are_prometheus_text(serve: Serve) -> None:
    metrics = Metrics()
    metrics.request_scheduled(RequestLabels("llama"))
    answer = await (await serve(sources(metrics))).ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in answer.headers
    assert b'llm_d_epp_request_total{model_name="llama"' in answer.body
    assert b"process_resident_memory_bytes" in answer.body


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("GZIP", True),
        ("gzip; q=0", False),
        ("br", False),
        ("identity", False),
    ],
)
async def test_metrics_are_compressed_if_accepted(serve: Serve, accepted: str, compressed: bool) -> None:
    answer = await (await serve()).ask("/metrics", Accept_Encoding=accepted)
    assert (answer.headers.get("Content-Encoding") == "gzip") is compressed
    assert answer.headers["Vary"] == "Accept-Encoding"
    page = gzip.decompress(answer.body) if compressed else answer.body
    assert page.startswith(b"# HELP llm_d_epp_info")


async def test_liveness_does_not_depend_on_readiness(serve: Serve) -> None:
    answer = await (await serve(sources(not_ready=["pool: not synced"]))).ask("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_readiness_says_why_not(serve: Serve) -> None:
    reasons = ["draining", "pool: not synced"]
    client = await serve(sources(not_ready=reasons))
    answer = await client.ask("/readyz")
    assert (answer.status, answer.json()) == (503, {"status": "not ready", "reasons": ["draining", "pool: not synced"]})
    reasons.clear()
    answer = await client.ask("/readyz")
    assert (answer.status, answer.json()) == (200, {"status": "ready", "reasons": []})


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        ("/debug/endpoints", b'"name": "pod-a"'),
        ("/debug/config", b'"sha256": "abc"'),
        ("/debug/plugins/state", b'"timestamp": "now"'),
        ("/debug/queues", b'"enabled": false'),
    ],
)
async def test_debug_pages_are_json(serve: Serve, path: str, fragment: bytes) -> None:
    answer = await (await serve()).ask(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert fragment in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(serve: Serve, path: str, method: str) -> None:
    answer = await (await serve()).ask(path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_head_has_the_headers_of_get(serve: Serve) -> None:
    answer = await (await serve()).ask("/healthz", "HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/debug/pprof/goroutine", "/debug/pprof/heap"])
async def test_unknown_paths_list_the_known_ones(serve: Serve, path: str) -> None:
    answer = await (await serve()).ask(path)
    assert answer.status == 404
    assert answer.json() == {"error": f"no page {path}", "paths": PATHS}


async def test_profiling_pages_exist_only_on_request(serve: Serve) -> None:
    client = await serve(options=replace(LOCAL, pprof=True))
    waiting = [asyncio.create_task(asyncio.Event().wait(), name=f"waiting-{number}") for number in range(3)]
    answer = await client.ask("/debug/pprof/goroutine")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    text = answer.body.decode()
    assert answer.status == 200
    assert "3 tasks @\n    Event.wait" in text
    assert "test_profiling_pages_exist_only_on_request" in text
    assert "thread MainThread @" in text
    assert (await client.ask("/debug/pprof/block")).status == 404


async def test_a_page_that_fails_is_answered_and_the_server_goes_on(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> object:
        raise RuntimeError("defect")

    client = await serve(replace(sources(), pages={"/debug/config": reading(broken)}))
    answer = await client.ask("/debug/config")
    assert (answer.status, answer.json()) == (500, {"error": "/debug/config failed; the log says why"})
    assert "debug page failed" in caplog.text
    assert "RuntimeError: defect" in caplog.text
    assert (await client.ask("/healthz")).status == 200


async def test_bytes_that_are_not_http_disturb_nobody(serve: Serve) -> None:
    server = HttpServer(sources(), LOCAL)
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    assert b"400 Bad Request" in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (await Client(port).ask("/healthz")).status == 200
    await server.stop()


async def test_a_port_in_use_is_a_usage_error(serve: Serve) -> None:
    first = HttpServer(sources(), LOCAL)
    port = await first.start()
    second = HttpServer(sources(), replace(LOCAL, port=port))
    with pytest.raises(UsageError, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}: "):
        await second.start()
    await second.stop()
    await first.stop()


# Who may read


async def by_token(request: AccessRequest) -> Access:
    known = {"reader": Access(), "stranger": Access(403, "Authorization denied for user stranger")}
    return known.get(request.token, Access(401, "Unauthorized"))


@pytest.mark.parametrize("path", [*PATHS, "/nothing-here"])
@pytest.mark.parametrize(
    ("authorization", "status", "text"),
    [
        pytest.param(None, 401, b"Unauthorized\n", id="no token"),
        pytest.param("Bearer wrong", 401, b"Unauthorized\n", id="unknown token"),
        pytest.param("Basic reader", 401, b"Unauthorized\n", id="other scheme"),
        pytest.param("Bearer stranger", 403, b"Authorization denied for user stranger\n", id="denied"),
    ],
)
async def test_every_path_is_protected(serve: Serve, path: str, authorization: str | None, status: int, text: bytes) -> None:
    client = await serve(options=replace(LOCAL, authorize=by_token))
    answer = await client.ask(path, **({"Authorization": authorization} if authorization else {}))
    assert (answer.status, answer.body) == (status, text)
    assert ("WWW-Authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize("authorization", ["Bearer reader", "bearer  reader"])
async def test_a_reader_with_a_token_may_read(serve: Serve, authorization: str) -> None:
    client = await serve(options=replace(LOCAL, authorize=by_token))
    assert (await client.ask("/metrics", Authorization=authorization)).status == 200


async def test_the_authorizer_is_told_path_and_verb(serve: Serve) -> None:
    asked: list[AccessRequest] = []

    async def remember(request: AccessRequest) -> Access:
        asked.append(request)
        return Access()

    client = await serve(options=replace(LOCAL, authorize=remember))
    await client.ask("/metrics?name=x", Authorization="Bearer t")
    assert asked == [AccessRequest("/metrics", "get", "t")]


async def test_without_an_api_server_demanded_authentication_refuses_all(serve: Serve) -> None:
    client = await serve(options=replace(LOCAL, authorize=refuse_all))
    assert (await client.ask("/metrics", Authorization="Bearer anything")).status == 401


async def test_an_authorizer_that_fails_lets_nobody_in(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_request: AccessRequest) -> Access:
        raise OSError("no route to the API server")

    client = await serve(options=replace(LOCAL, authorize=broken))
    answer = await client.ask("/metrics")
    assert answer.status == 500
    assert b"llm_d" not in answer.body
    assert "no route to the API server" in caplog.text


# Rendering off the event loop


class SlowMetrics(Metrics):
    """Renders only when allowed, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Event()
        self.threads: list[str] = []

    def render(self, snapshot: Snapshot) -> bytes:
        self.threads.append(threading.current_thread().name)
        assert self.allowed.wait(10)
        if len(self.threads) == 1 and self.fails_first:
            raise RuntimeError("defect")
        return f"page {len(self.threads)}\n".encode()

    fails_first = False


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "render") as pool:
        yield pool


async def test_other_pages_are_served_while_metrics_render(serve: Serve) -> None:
    metrics = SlowMetrics()
    client = await serve(sources(metrics))
    scrape = asyncio.create_task(client.ask("/metrics"))
    assert (await client.ask("/healthz")).status == 200
    assert not scrape.done()
    metrics.allowed.set()
    assert (await scrape).body == b"page 1\n"
    assert metrics.threads == ["http-render_0"]


async def test_scrapers_share_a_page_until_it_is_old(executor: ThreadPoolExecutor) -> None:
    metrics, clock = SlowMetrics(), Clock()
    page = MetricsPage(metrics, executor, 1.0, clock)
    together = [asyncio.create_task(page.rendered()) for _ in range(5)]
    await asyncio.sleep(0)
    metrics.allowed.set()
    assert {plain for plain, _ in await asyncio.gather(*together)} == {b"page 1\n"}
    clock.now_s += 0.99
    assert (await page.rendered())[0] == b"page 1\n"
    clock.now_s += 0.02
    assert (await page.rendered())[0] == b"page 2\n"


async def test_a_scraper_that_leaves_does_not_stop_the_others(executor: ThreadPoolExecutor) -> None:
    metrics = SlowMetrics()
    page = MetricsPage(metrics, executor, 1.0, Clock())
    leaving, staying = (asyncio.create_task(page.rendered()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    metrics.allowed.set()
    assert (await staying)[0] == b"page 1\n"
    assert leaving.cancelled()


async def test_a_failed_rendering_is_not_kept(executor: ThreadPoolExecutor) -> None:
    metrics = SlowMetrics()
    metrics.fails_first = True
    metrics.allowed.set()
    page = MetricsPage(metrics, executor, 1.0, Clock())
    with pytest.raises(RuntimeError, match="defect"):
        await page.rendered()
    assert (await page.rendered())[0] == b"page 2\n"


async def test_metrics_may_be_written_while_they_are_rendered(executor: ThreadPoolExecutor) -> None:
    metrics = Metrics()
    page = MetricsPage(metrics, executor, 0.0)
    done = 0
    for batch in range(10):
        task = asyncio.create_task(page.rendered())
        while not task.done():
            metrics.request_scheduled(RequestLabels(f"m{batch}", "", str(done % 50)))
            done += 1
            await asyncio.sleep(0)
        plain, _ = await task
        assert plain.endswith(b"\n")
    total = sum(
        float(line.rsplit(b" ", 1)[1])
        for line in (await page.rendered())[0].splitlines()
        if line.startswith(b"llm_d_epp_request_total{")
    )
    assert total == done > 0


async def test_pages_end_with_the_server() -> None:
    server = HttpServer(sources(), LOCAL)
    port = await server.start()
    client = Client(port)
    assert (await client.ask("/healthz")).status == 200
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.ask("/healthz")


# ── pages below a prefix ──


def pages_of(name: str, **more: object) -> HttpSources:
    async def index(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"page of {name}")

    async def rest(asked: PageRequest) -> object:
        return {"name": name, "rest": asked.rest, "body": asked.body.decode()}

    return HttpSources(
        Metrics(),
        lambda: [name] if more.get("waits") else [],
        pages={"/debug/config": reading(lambda: {"name": name}), "/debug/decisions/": rest},
        posts={"/debug/explain": rest},
        answers={"/": index},
    )


async def test_pages_are_mounted_and_taken_away_while_it_serves() -> None:
    server = HttpServer(sources(), LOCAL)
    client = Client(await server.start())
    assert (await client.ask("/pools/a/debug/config")).status == 404
    server.mount("/pools/a", pages_of("a", waits=True))
    server.mount("/pools/b", pages_of("b"))
    assert (await client.ask("/pools/a/debug/config")).json() == {"name": "a"}
    assert (await client.ask("/pools/b/debug/decisions/x/y")).json()["rest"] == "x/y"
    assert (await client.ask("/pools/b/debug/explain", "POST")).json()["name"] == "b"
    assert (await client.ask("/pools/b/debug/explain")).status == 405
    assert (await client.ask("/pools/a/")).body == b"page of a"
    assert (await client.ask("/pools/a/nothing")).status == 404, "the page for people answers for itself alone"
    assert [(await client.ask(f"/pools/{name}/readyz")).status for name in "ab"] == [503, 200]
    assert b"process_" in (await client.ask("/pools/a/metrics")).body
    assert (await client.ask("/debug/config")).json()["sha256"] == "abc", "the server's own pages stay"
    listed = (await client.ask("/nothing")).json()["paths"]
    assert isinstance(listed, list)
    assert {"/pools/a/", "/pools/b/", "/debug/config"} <= set(listed)
    server.unmount("/pools/a")
    server.unmount("/pools/none")
    assert (await client.ask("/pools/a/debug/config")).status == 404
    server.mount("/pools/b", pages_of("other"))
    assert (await client.ask("/pools/b/debug/config")).json() == {"name": "other"}
    server.mount("", pages_of("all"))
    assert (await client.ask("/")).body == b"page of all"
    assert (await client.ask("/debug/config")).json()["sha256"] == "abc", "the server's own come first"
    await server.stop()


async def test_a_page_for_people_without_its_slash_leads_there() -> None:
    server = HttpServer(sources(), LOCAL)
    server.mount("/pools/a", pages_of("a"))
    client = Client(await server.start())
    async with aiohttp.ClientSession() as session, session.get(f"{client._base}/pools/a", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "a/")
    async with aiohttp.ClientSession() as session, session.get(f"{client._base}/pools/a") as answer:
        assert await answer.text() == "page of a"
    await server.stop()
