"""``GET /v1/models`` for all pools together: what their model servers say, each model once.

Every server is asked, as replicas may have different adapters, with the credentials of the client. What they said is told again
for some seconds to whoever comes with the same credentials.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import aiohttp
import orjson

from epp.errors import ErrorCode, RequestError
from epp.framework import log
from epp.request.headers import METHOD, request_path
from epp.seam import Headers, Reply

PATH = "/v1/models"
TIMEOUT_S = 2.0
"""For one server; a list of models is read from memory."""
KEPT_S = 5.0
"""A list changes when an adapter is loaded."""
MOST_KEPT = 64
"""Different credentials whose lists are kept."""
MOST_AT_ONCE = 32
"""Servers asked at the same time."""
MAX_BYTES = 1024 * 1024
_JSON = (("content-type", "application/json"),)
_logger = log.get(__name__)

Model = Mapping[str, Any]


class ModelServers(NamedTuple):
    """The model servers of one pool."""

    addresses: Sequence[str]
    """``host:port``."""
    scheme: str = "http"
    verify: bool = False
    """Verify certificates of https."""


class _Answer(NamedTuple):
    """What one server said."""

    status: int
    """0 = nothing in time."""
    models: Sequence[Model] = ()


def asks_for_models(headers: Headers) -> bool:
    """For the list, or for one entry of it."""
    path = request_path(headers)
    return headers.get(METHOD) == "GET" and (path.rstrip("/") == PATH or path.startswith(f"{PATH}/"))


class ModelUnion:
    """Asks the servers of all pools.

    Args:
        servers: of each pool, in the order of the file, asked whenever a list is made.
        clock: monotonic seconds.
    """

    def __init__(self, servers: Callable[[], Iterable[ModelServers]], clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._clock = clock
        self._lists: dict[str, tuple[float, asyncio.Task[Sequence[_Answer]]]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def reply(self, headers: Headers) -> Reply:
        """The list, or the entry that the path names.

        Raises:
            RequestError: no server tells, or none has this model.
        """
        models = _united(await self._asked(headers.get("authorization") or ""))
        wanted = unquote(request_path(headers)[len(PATH) :].strip("/"))
        if not wanted:
            body = orjson.dumps({"object": "list", "data": models})
            return Reply(HTTPStatus.OK, body, _JSON, details="epp_answered")
        for model in models:
            if model["id"] == wanted:
                return Reply(HTTPStatus.OK, orjson.dumps(model), _JSON, details="epp_answered")
        raise RequestError(ErrorCode.NOT_FOUND, f"no pool has the model {wanted!r}; {PATH} lists those that there are")

    async def close(self) -> None:
        """End what runs, and close all connections."""
        for _, task in self._lists.values():
            task.cancel()
        self._lists.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _asked(self, authorization: str) -> Sequence[_Answer]:
        now = self._clock()
        kept = self._lists.get(authorization)
        if kept is None or now - kept[0] >= KEPT_S:
            self._lists.pop(authorization, None)
            while len(self._lists) >= MOST_KEPT:
                del self._lists[next(iter(self._lists))]
            kept = self._lists[authorization] = (now, asyncio.create_task(self._ask_all(authorization), name="ask for models"))
        # One client that leaves must not cancel what others wait for.
        return await asyncio.shield(kept[1])

    async def _ask_all(self, authorization: str) -> Sequence[_Answer]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=False)
        session, turns = self._session, asyncio.Semaphore(MOST_AT_ONCE)
        headers = {"authorization": authorization} if authorization else {}

        async def ask(url: str, *, verify: bool) -> _Answer:
            async with turns:
                return await _ask(session, url, headers, verify=verify)

        asked = [
            ask(f"{servers.scheme}://{address}{PATH}", verify=servers.verify)
            for servers in self._servers()
            for address in servers.addresses
        ]
        return await asyncio.gather(*asked)


async def _ask(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], *, verify: bool) -> _Answer:
    try:
        async with session.get(url, headers=headers, ssl=verify, allow_redirects=False) as response:
            if response.status != HTTPStatus.OK:
                return _Answer(response.status)
            body = await response.content.read(MAX_BYTES)
            while not response.content.at_eof() and len(body) < MAX_BYTES:
                body += await response.content.read(MAX_BYTES - len(body))
            return _Answer(HTTPStatus.OK, _models(body))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        _logger.debug("model server does not list its models", url=url, error=f"{type(error).__name__}: {error}")
        return _Answer(0)


def _models(body: bytes) -> Sequence[Model]:
    """The entries of a list that have an id.

    Raises:
        ValueError: it is no JSON.
    """
    document = orjson.loads(body)
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _united(answers: Sequence[_Answer]) -> Sequence[Model]:
    """Each model as the first server has it that lists it, sorted by id.

    Raises:
        RequestError: no server listed its models.
    """
    if not any(answer.status == HTTPStatus.OK for answer in answers):
        statuses = {answer.status for answer in answers}
        if statuses == {HTTPStatus.UNAUTHORIZED}:
            raise RequestError(ErrorCode.UNAUTHORIZED, "the model servers refuse these credentials")
        if statuses == {HTTPStatus.FORBIDDEN}:
            raise RequestError(ErrorCode.FORBIDDEN, "the model servers refuse these credentials")
        raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, "no model server of any pool lists its models")
    found: dict[str, Model] = {}
    for answer in answers:
        for model in answer.models:
            found.setdefault(model["id"], model)
    return [found[name] for name in sorted(found)]
