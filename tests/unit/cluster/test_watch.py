"""Following a collection: list, watch, resume, and what every kind of failure leads to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from epp.cluster.connection import ClusterError
from epp.cluster.watch import Changed, Collection, Listed, Pace, Watch
from tests.unit.cluster.api_server import ApiServer, Reply, bookmark, error, event, listed, refused

COLLECTION = Collection("/api/v1/namespaces/n/pods", label_selector="app=m")


class Follower:
    """Follows the collection of an API server, and remembers what it heard, how long it waited, and its problems."""

    def __init__(self, server: ApiServer, folder: Path, **options: Any) -> None:
        self.connection = server.connection(folder)
        self.heard: list[Any] = []
        self.waits: list[float] = []
        self.problems: list[str] = []
        self._server = server
        self._options = options

    async def until(self, requests: int) -> None:
        """Follow until the API server was asked so often."""
        task = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(10):
                while len(self._server.asked) < requests:
                    if task.done():
                        await task
                    await asyncio.sleep(0.001)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.connection.close()

    async def _follow(self) -> None:
        watch = Watch(
            self.connection,
            COLLECTION,
            lambda found: str(found["metadata"]["name"]),
            on_problem=self.problems.append,
            sleep=self._sleep,
            rng=random.Random(1),
            **self._options,
        )
        async for told in watch.events():
            match told:
                case Listed(objects):
                    self.heard.append(list(objects))
                case Changed(changes):
                    self.heard += [f"{'-' if change.is_deleted else '+'}{change.object}" for change in changes]

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


def watches(server: ApiServer) -> list[str | None]:
    """For each request: the version from which a watch goes on, None for a list."""
    return [asked.query["resourceVersion"] if "watch" in asked.query else None for asked in server.asked]


async def follow(folder: Path, *replies: Reply, **options: Any) -> tuple[Follower, ApiServer]:
    """What is heard of an API server that gives these answers."""
    async with ApiServer(*replies) as server:
        follower = Follower(server, folder, **options)
        await follower.until(len(replies) + 1)
        return follower, server


async def test_list_then_watch_then_resume(tmp_path: Path) -> None:
    follower, server = await follow(
        tmp_path,
        listed("a", "b", version="5"),
        Reply(events=[event("ADDED", "c", "6"), event("MODIFIED", "a", "7")]),
        Reply(events=[event("DELETED", "b", "9")]),
    )
    assert follower.heard == [["a", "b"], "+c", "+a", "-b"]
    assert watches(server) == [None, "5", "7", "9"]
    assert follower.waits == []
    first, second = server.asked[:2]
    assert (first.path, first.query) == (COLLECTION.path, {"labelSelector": "app=m", "limit": "500"})
    assert second.query["labelSelector"] == "app=m"
    assert second.query["allowWatchBookmarks"] == "true"
    assert 300 <= int(second.query["timeoutSeconds"]) <= 600
    assert first.token == "Bearer secret"


async def test_k31_bookmarks_move_the_version(tmp_path: Path) -> None:
    follower, server = await follow(
        tmp_path, listed("a", version="5"), Reply(events=[bookmark("50"), bookmark("51")], aborts=True)
    )
    assert follower.heard == [["a"]]
    assert watches(server) == [None, "5", "51"]


async def test_pages_of_a_list(tmp_path: Path) -> None:
    follower, server = await follow(tmp_path, listed("a", token="t1"), listed("b", token="t2"), listed("c", version="3"))
    assert follower.heard == [["a", "b", "c"]]
    assert [asked.query.get("continue") for asked in server.asked] == [None, "t1", "t2", None]
    assert watches(server)[-1] == "3"


async def test_a_list_that_took_too_long_begins_again(tmp_path: Path) -> None:
    follower, _ = await follow(tmp_path, listed("a", token="t1"), refused(410, "Expired"), listed("b", version="9"))
    assert follower.heard == [["b"]]
    assert follower.waits == []


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(Reply(events=[error(410, "Expired")]), id="in the watch"),
        pytest.param(refused(410, "Expired"), id="instead of the watch"),
        pytest.param(refused(504, "Timeout", "Too large resource version: 9", "ResourceVersionTooLarge"), id="too large"),
        pytest.param(Reply(events=[error(504, "Timeout", "ResourceVersionTooLarge")]), id="too large, in the watch"),
    ],
)
async def test_k30_a_version_that_is_not_known_any_more(tmp_path: Path, gone: Reply) -> None:
    follower, server = await follow(tmp_path, listed("a", version="5"), gone, listed("b", version="20"))
    assert follower.heard == [["a"], ["b"]]
    assert watches(server) == [None, "5", None, "20"]
    assert len(follower.waits) == 1
    assert follower.waits[0] <= 0.8, "not all at once"
    assert follower.problems == []


@pytest.mark.parametrize("status", [429, 503])
async def test_an_api_server_that_asks_to_wait(tmp_path: Path, status: int) -> None:
    follower, _ = await follow(tmp_path, refused(status, **{"Retry-After": "7"}), listed("a"))
    assert follower.heard == [["a"]]
    assert len(follower.waits) == 1
    assert 7 <= follower.waits[0] <= 8


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(refused(500, message="etcd is away"), id="500"),
        pytest.param(refused(403, "Forbidden", "may not list"), id="403"),
        pytest.param(Reply(document=b"<html>a proxy</html>"), id="no JSON"),
        pytest.param(Reply(document={"items": []}), id="no list"),
        pytest.param(Reply(aborts=True), id="broken off"),
    ],
)
async def test_a_list_that_fails_is_tried_again(tmp_path: Path, reply: Reply) -> None:
    follower, _ = await follow(tmp_path, reply, reply, listed("a"))
    assert follower.heard == [["a"]]
    assert len(follower.waits) == 2
    assert [bool(problem) for problem in follower.problems] == [True, False], "told on change, and when it is over"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(Reply(events=[event("ADDED", "b", "6"), b'{"type":"ADDED","obj\n']), id="half a line"),
        pytest.param(Reply(events=[event("ADDED", "b", "6"), error(500, "InternalError")]), id="a failure in the watch"),
        pytest.param(Reply(events=[event("ADDED", "b", "6")], aborts=True), id="broken off"),
    ],
)
async def test_a_watch_that_fails_goes_on_where_it_was(tmp_path: Path, ending: Reply) -> None:
    follower, server = await follow(tmp_path, listed("a", version="5"), ending, Reply(events=[event("ADDED", "c", "7")]))
    assert follower.heard == [["a"], "+b", "+c"]
    assert watches(server) == [None, "5", "6", "7"]
    assert len(follower.waits) == 1


async def test_what_comes_together_with_a_failure_is_told(tmp_path: Path) -> None:
    together = b"".join(orjson.dumps(line) + b"\n" for line in (event("ADDED", "b", "6"), error(500, "InternalError")))
    follower, server = await follow(tmp_path, listed("a", version="5"), Reply(events=[together]))
    assert follower.heard == [["a"], "+b"]
    assert watches(server) == [None, "5", "6"]
    assert len(follower.waits) == 1


async def test_a_watch_that_ends_at_once_is_a_failure(tmp_path: Path) -> None:
    follower, server = await follow(tmp_path, listed("a", version="5"), Reply(), Reply())
    assert watches(server) == [None, "5", "5", "5"]
    assert len(follower.waits) == 2


async def test_k35_a_token_that_was_replaced(tmp_path: Path) -> None:
    async with ApiServer(refused(401, "Unauthorized"), listed("a")) as server:
        follower = Follower(server, tmp_path)
        await follower.connection.open()
        (tmp_path / "token").write_text("fresh\n")
        await follower.until(3)
    assert [asked.token for asked in server.asked[:2]] == ["Bearer secret", "Bearer fresh"]


async def test_a_resource_that_is_removed_is_listed_again(tmp_path: Path) -> None:
    follower, server = await follow(tmp_path, listed("a", version="5"), refused(404, "NotFound"), listed(version="8"))
    assert follower.heard == [["a"], []]
    assert watches(server) == [None, "5", None, "8"]


async def test_an_api_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.cluster.watch.WATCH_S", (0.0, 0.0))
    monkeypatch.setattr("epp.cluster.watch.WATCH_SLACK_S", 0.05)
    follower, server = await follow(tmp_path, listed("a", version="5"), Reply(events=[event("ADDED", "b", "6")], stays=True))
    assert follower.heard == [["a"], "+b"]
    assert watches(server) == [None, "5", "6"]


class Delays:
    """A clock that the test moves, and delays as if chance took the longest."""

    def __init__(self) -> None:
        self.now = 0.0
        rng = random.Random()
        rng.uniform = lambda low, high: high  # type: ignore[method-assign]
        self._pace = Pace(rng, lambda: self.now)

    def after(self, passed: Sequence[float], error: ClusterError | None = None) -> list[float]:
        """The delays after failures that come so long after each other."""
        delays = []
        for seconds in passed:
            self.now += seconds
            delays.append(self._pace.after(error or ClusterError("no")))
        return delays


def test_delays_grow_to_a_limit_and_begin_anew_after_a_calm() -> None:
    delays = Delays()
    assert delays.after([0] * 8) == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert delays.after([119, 121, 1]) == [30, 0.8, 1.6]


def test_delays_are_random() -> None:
    pace = Pace(random.Random(1), lambda: 0.0)
    assert len({pace.after(ClusterError("no")) for _ in range(10)}) == 10
