"""The page's addresses on the metrics port of a real picker: files, events, permissions, limits."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from epp.demo.picker import PickerProcess
from epp.page.feed import MOST_STREAMS
from epp.page.static_files import FOLDER, POLICY
from epp.transport.http_server import Access, AccessRequest, HttpOptions, HttpServer, HttpSources
from tests.page.setting import HOSTILE, Setting, setting
from tests.page.test_feed import Events
from tests.transport.http_client import Client, sources

FILES = ["/", *(f"/page/{path.name}" for path in sorted(FOLDER.iterdir()) if path.name != "index.html")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    """In front of two servers; keeps every decision."""
    async with setting(2, tmp_path_factory.mktemp("page"), "--explain-share=1") as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def event(url: str, name: str) -> Any:
    """The next event of this name."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/page/events") as response:
        return await Events(response).next(name)


async def state_with(url: str, request_id: str) -> Any:
    """The first state that tells of a request; what other pages were sent a moment ago may come before it."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/page/events") as response:
        events = Events(response)
        while True:
            state = await events.next("state")
            if any(item["request_id"] == request_id for item in state["decisions"]["newest"]):
                return state


@pytest.mark.parametrize("path", FILES)
async def test_files_are_ours_alone(running: Setting, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(running.url + path) as response:
        text = await response.text()
        assert response.status == 200
        assert response.headers["Content-Security-Policy"] == POLICY
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-cache"
    elsewhere = set(re.findall(r"https?://[\w./-]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not elsewhere
    assert "innerHTML" not in text
    assert not re.search(r"<script(?! type=\"module\" src=\"page/)|style=\"|\son\w+=\"", text)


async def test_types(running: Setting) -> None:
    async with aiohttp.ClientSession() as session:
        found = {}
        for path in FILES:
            async with session.head(running.url + path) as response:
                found[Path(path).suffix] = response.headers["Content-Type"]
    assert found == {
        "": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }


async def test_a_file_that_the_browser_has_is_not_sent_again(running: Setting) -> None:
    client = Client(running.picker.metrics_port)
    etag = CIMultiDict((await client.ask("/page/page.js")).headers)["ETag"]
    again = await client.ask("/page/page.js", If_None_Match=etag)
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/page/", "/page/../page.js", "/page/none.js", "/nothing"])
async def test_nothing_else_is_served(running: Setting, path: str) -> None:
    answer = await Client(running.picker.metrics_port).ask(path)
    assert answer.status == 404
    paths = answer.json()["paths"]
    assert isinstance(paths, list)
    assert {"/", "/page/events"} <= set(paths)


async def test_nothing_can_be_changed(running: Setting) -> None:
    for path in ("/", "/page/page.js", "/page/events"):
        answer = await Client(running.picker.metrics_port).ask(path, "POST")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_the_state_tells_pool_endpoints_and_decisions(running: Setting) -> None:
    await running.exchange()
    await running.refused("refused-one")
    state = await state_with(running.url, "refused-one")
    assert state["pool"] == {"name": "llama", "namespace": "default"}
    assert state["notReady"] == []
    assert state["queues"]["enabled"] is False
    endpoints = state["endpoints"]["endpoints"]
    assert {endpoint["address"] for endpoint in endpoints} == set(running.pool.addresses)
    assert all(endpoint["ageSeconds"] < 5 and endpoint["kvCacheUsage"] is not None for endpoint in endpoints)
    assert state["decisions"]["newest"][0]["request_id"] == "refused-one"
    assert state["decisions"]["bad"][0]["request_id"] == "refused-one"
    assert all(item["status"] >= 400 for item in state["decisions"]["bad"])


async def test_without_a_second_configuration_there_is_no_shadow(running: Setting) -> None:
    assert await event(running.url, "shadow") == {"enabled": False, "problem": ""}


async def test_the_history_has_columns_of_one_length(running: Setting) -> None:
    history = await event(running.url, "history")
    assert {len(column) for column in history["columns"].values()} == {len(history["columns"]["at_s"])}
    assert history["columns"]["endpoints"][-1] == 2


async def test_a_decision_is_told_by_its_number(running: Setting) -> None:
    await running.refused("by-number", HOSTILE)
    state = await state_with(running.url, "by-number")
    [wanted] = [item for item in state["decisions"]["bad"] if item["request_id"] == "by-number"]
    client = Client(running.picker.metrics_port)
    record = (await client.ask(f"/page/decisions/{wanted['number']}")).json()
    assert (record["request_id"], record["model"]) == ("by-number", HOSTILE)
    assert (await client.ask("/page/decisions/999999999")).status == 404
    assert (await client.ask("/page/decisions/0")).status == 404
    assert (await client.ask("/page/decisions/x")).status == 400


async def test_a_reload_shows_what_it_changed(running: Setting) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{running.url}/page/events") as response:
        events = Events(response)
        first = await events.next("config")
        assert (first["former"], first["reload"], first["isWatched"]) == (None, None, False)
        assert "weight: 2.0" in first["effective"]
        running.reload(queue_weight=7)
        changed = await events.next("config")
        while changed["reload"] is None:
            changed = await events.next("config")
        assert changed["reload"]["result"] == "success"
        assert changed["former"]["sha256"] == first["sha256"]
        assert {line for line in changed["former"]["diff"] if line[0] in "+-"} == {"-    weight: 2.0", "+    weight: 7.0"}
        running.reload_text("plugins: [{type: no-such-plugin}]")
        broken = await events.next("config")
        assert broken["reload"]["result"] == "failure"
        assert any("no-such-plugin" in problem for problem in broken["reload"]["problems"])
        assert broken["sha256"] == changed["sha256"]


async def test_only_so_many_pages_may_be_open(running: Setting) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        url = f"{running.url}/page/events"
        opened = [await session.get(url) for _ in range(MOST_STREAMS)]
        assert {response.status for response in opened} == {200}
        async with session.get(url) as refused:
            assert refused.status == 503
        for response in opened:
            response.close()


async def test_a_stop_does_not_wait_for_open_pages() -> None:
    async with PickerProcess(["--endpoint=127.0.0.1:9", "--drain-timeout=0s"]) as picker:
        url = f"http://127.0.0.1:{picker.metrics_port}/page/events"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            await Events(response).next("state")
            assert await picker.stop() == 0
            await response.read()


# ── permissions ──


async def test_where_the_metrics_are_refused_so_is_all_of_the_page() -> None:
    async with PickerProcess(["--endpoint=127.0.0.1:9", "--metrics-endpoint-auth"]) as picker:
        client = Client(picker.metrics_port)
        for path in ("/metrics", *FILES, "/page/events", "/page/decisions/1"):
            answer = await client.ask(path)
            assert (answer.status, answer.body) == (401, b"Unauthorized\n"), path


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("method", "authorization", "token"),
    [
        ("GET", "Bearer abc", "abc"),
        ("GET", basic("anyone:abc"), "abc"),
        ("HEAD", basic(":abc"), "abc"),
        ("GET", basic("a:b:c"), "b:c"),
        ("POST", "Bearer abc", "abc"),
        ("POST", basic("anyone:abc"), ""),  # a browser sends it along whoever made it ask
        ("GET", basic("anyone"), ""),
        ("GET", "Basic !!", ""),
        ("GET", "Basic " + base64.b64encode(b"\xff:\xff").decode(), ""),
        ("GET", "Digest abc", ""),
    ],
)
async def test_a_browser_may_give_the_token_as_a_password(method: str, authorization: str, token: str) -> None:
    asked: list[AccessRequest] = []

    async def authorize(request: AccessRequest) -> Access:
        asked.append(request)
        return Access()

    own = sources()
    server = HttpServer(HttpSources(own.metrics, own.not_ready), HttpOptions("127.0.0.1", 0, authorize))
    client = Client(await server.start())
    await client.ask("/healthz", method, Authorization=authorization)
    await server.stop()
    assert [request.token for request in asked] == [token]


async def test_only_the_page_itself_makes_a_browser_ask_for_a_password() -> None:
    async with (
        PickerProcess(["--endpoint=127.0.0.1:9", "--metrics-endpoint-auth"]) as picker,
        aiohttp.ClientSession() as session,
    ):
        challenges = {}
        for path in ("/", "/metrics", "/page/events"):
            async with session.get(f"http://127.0.0.1:{picker.metrics_port}{path}") as response:
                challenges[path] = [value.partition(" ")[0] for value in response.headers.getall("WWW-Authenticate")]
    assert challenges == {"/": ["Bearer", "Basic"], "/metrics": ["Bearer"], "/page/events": ["Bearer"]}
