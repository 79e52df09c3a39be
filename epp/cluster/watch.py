"""A collection of the API server, followed: list → watch → resume, and list again when that is impossible.

Only what a reader makes of each object is kept. Source: kubernetes/client-go: tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from epp.cluster.connection import ClusterConnection, ClusterError, reason_of
from epp.framework import log

_logger = log.get(__name__)

T = TypeVar("T")

PAGE = 500
"""Objects of one list answer, as in client-go."""
WATCH_S = (300.0, 600.0)
"""A watch is asked to end after a random time between these, so that those of a fleet do not end together."""
WATCH_SLACK_S = 15.0
"""So much later a watch that did not end counts as broken."""
SHORT_WATCH_S = 1.0
"""A watch that brought nothing and ended sooner is a failure."""
FIRST_DELAY_S, LAST_DELAY_S = 0.8, 30.0
CALM_S = 120.0
"""So long without a failure, and the next one waits as little as the first."""
GONE = 410
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY = 401, 403, 404, 429
_TOO_LARGE = "ResourceVersionTooLarge"
"""The API server knows no such version, as after etcd was restored from a backup."""


class Collection(NamedTuple):
    """What is listed and watched."""

    path: str
    label_selector: str = ""
    field_selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """Its selectors as parameters."""
        query = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in query.items() if value}


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """All objects of the collection, and nothing else is there."""

    objects: tuple[T, ...]


class Change(NamedTuple, Generic[T]):
    """One object was added, changed or deleted."""

    object: T
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """Changes that came together, oldest first."""

    changes: tuple[Change[T], ...]


class Pace:
    """How long to wait after failures: longer each time, at random, so that a fleet does not come back as one.

    Args:
        rng, clock: replaced in tests.
    """

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        self._rng = rng
        self._clock = clock
        self._delay_s = FIRST_DELAY_S
        self._failed_s = float("-inf")

    def after(self, error: ClusterError) -> float:
        """Seconds to wait after this failure."""
        now = self._clock()
        if now - self._failed_s > CALM_S:
            self._delay_s = FIRST_DELAY_S
        self._failed_s = now
        delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, LAST_DELAY_S)
        if error.retry_after_s is not None:
            return error.retry_after_s + self._rng.uniform(0, 1)
        return self._rng.uniform(0, delay_s)


class Watch(Generic[T]):
    """Follows a collection for ever.

    Args:
        connection: the API server.
        collection: what is followed.
        read: makes of each object what is kept of it.
        optional: the collection may be missing or forbidden; that is no failure.
        on_problem: told why nothing is heard, and with an empty text when that is over.
        rng, clock, sleep: replaced in tests.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        collection: Collection,
        read: Callable[[Any], T],
        *,
        optional: bool = False,
        on_problem: Callable[[str], None] | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._read = read
        self._optional = optional
        self._on_problem = on_problem or _ignore
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace(self._rng, clock)
        self._version = ""
        """Where to go on; empty = list."""
        self.problem = ""
        """Why nothing is heard at the moment; empty while all is well."""

    async def events(self) -> AsyncGenerator[Listed[T] | Changed[T], None]:
        """First everything, then what changes; everything again where changes may have been missed."""
        while True:
            try:
                if not self._version:
                    objects, version = await self._list()
                    self._version = version
                    self._recovered()
                    yield Listed(objects)
                async for changes in self._watch():
                    self._recovered()
                    yield Changed(changes)
            except ClusterError as error:
                await self._failed(error)

    async def _failed(self, error: ClusterError) -> None:
        """Wait as long as this failure asks for; forget where we were if we cannot go on from there."""
        if error.status == GONE or error.reason == _TOO_LARGE:
            _logger.info("watch cannot go on, listing again", path=self._collection.path, reason=str(error))
            again = self._version != ""
            self._version = ""
            if again:
                # A restarted API server says so to everybody at once.
                await self._sleep(self._pace.after(error))
                return
        if error.status == UNAUTHORIZED:
            self._connection.forget_credentials()
        if error.status == NOT_FOUND:
            self._version = ""
        wait_s = self._pace.after(error)
        if str(error) != self.problem:
            self.problem = str(error)
            self._on_problem(self.problem)
            self._tell(error, wait_s)
        await self._sleep(wait_s)

    def _tell(self, error: ClusterError, wait_s: float) -> None:
        details = {"path": self._collection.path, "problem": str(error), "retry_in_s": round(wait_s, 1)}
        if self._optional and error.status == NOT_FOUND:
            _logger.info("resource is not installed, looked for again now and then", details=details)
        elif self._optional and error.status == FORBIDDEN:
            _logger.warning("resource may not be read, going on without it", details=details)
        else:
            _logger.warning("watch failed, trying again", details=details)

    def _recovered(self) -> None:
        if self.problem:
            self.problem = ""
            self._on_problem("")
            _logger.info("watch works again", path=self._collection.path)

    async def _list(self) -> tuple[tuple[T, ...], str]:
        """Everything, page by page, and the version that it is of."""
        try:
            return await self._list_pages()
        except _TokenExpiredError:
            return await self._list_pages()

    async def _list_pages(self) -> tuple[tuple[T, ...], str]:
        objects: list[T] = []
        query = {**self._collection.query, "limit": str(PAGE)}
        while True:
            try:
                page = await self._connection.get(self._collection.path, query)
            except ClusterError as error:
                if error.status == GONE and "continue" in query:
                    raise _TokenExpiredError(str(error), GONE) from error
                raise
            found, version, token = self._page(page)
            objects += found
            if not token:
                return tuple(objects), version
            query["continue"] = token

    def _page(self, page: bytes) -> tuple[list[T], str, str]:
        """Its objects, the version of the list, and where the next page begins.

        Raises:
            ClusterError: it is no list.
        """
        try:
            document = orjson.loads(page)
            metadata = document["metadata"]
            objects = [self._read(item) for item in document.get("items") or ()]
            return objects, metadata["resourceVersion"], metadata.get("continue") or ""
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unreadable(error) from error

    async def _watch(self) -> AsyncGenerator[tuple[Change[T], ...], None]:
        """What changes from ``self._version`` on, until the API server ends the watch."""
        began_s, is_silent = self._clock(), True
        timeout_s = self._rng.uniform(*WATCH_S)
        query = {
            **self._collection.query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(timeout_s)),
        }
        rest = b""
        async with self._connection.stream(self._collection.path, query, timeout_s + WATCH_SLACK_S) as pieces:
            self._recovered()
            async for piece in pieces:
                is_silent = False
                *lines, rest = (rest + piece).split(b"\n")
                changes: list[Change[T]] = []
                failure: ClusterError | None = None
                for line in filter(None, lines):
                    try:
                        change = self._change(line)
                    except ClusterError as error:
                        failure = error  # what came before it is told: the next watch goes on behind that
                        break
                    if change is not None:
                        changes.append(change)
                if changes:
                    yield tuple(changes)
                if failure is not None:
                    raise failure
        if is_silent and self._clock() - began_s < SHORT_WATCH_S:
            raise ClusterError(f"GET {self._collection.path}: a watch ended at once")

    def _change(self, line: bytes) -> Change[T] | None:
        """What a line tells; None for a bookmark.

        Raises:
            ClusterError: it tells that the watch has failed.
        """
        try:
            event = orjson.loads(line)
            kind, found = event["type"], event["object"]
            if kind == "ERROR":
                message = f"GET {self._collection.path}: {found.get('message', 'watch failed')}"
                raise ClusterError(message, int(found.get("code") or 0), reason_of(found))
            change = None if kind == "BOOKMARK" else Change(self._read(found), kind == "DELETED")
            self._version = found["metadata"]["resourceVersion"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unreadable(error) from error
        return change

    def _unreadable(self, error: Exception) -> ClusterError:
        return ClusterError(f"GET {self._collection.path}: the answer cannot be read: {type(error).__name__}: {error}")


def _ignore(_problem: str) -> None:
    pass


class _TokenExpiredError(ClusterError):
    """Listing took so long that its pages are of different versions."""
