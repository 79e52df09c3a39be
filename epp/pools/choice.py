"""The handler of a port that several pools share: which pool a request is for, once, and then only that pool is asked.

Transports call it like any other handler. What it answers itself: requests that no pool is for, those of a pool that is not
loaded, and the list of the models of all pools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from epp.errors import ErrorCode, RequestError
from epp.framework import log
from epp.hooks.runner import Spawn
from epp.pools.match import Match, authority_of
from epp.pools.models import ModelUnion, asks_for_models
from epp.pools.target import PoolStream, PoolTarget
from epp.request.headers import request_path
from epp.request.replies import error_shape, is_grpc, refusal
from epp.seam import INTERNAL_ERROR, Chunk, Edits, Headers, Metadata, Outcome, Reply, Request, ResponseHead, Stream

_logger = log.get(__name__)

NO_POOL, NOT_LOADED, NO_MEMORY = "no-pool", "not-loaded", "no-memory"
"""Why a request is refused before a pool decides about it."""


class Rule(NamedTuple):
    """A pool, and what it is for."""

    match: Match
    target: PoolTarget
    is_default: bool = False


class PoolChoice:
    """Finds the pool of each request.

    Args:
        on_refused: told the name of the pool ("" = none) and why.
        models: answers for the models of all pools; None = there is one pool behind this port, which says what it has.
        spawn: starts what takes a while.
    """

    def __init__(
        self, on_refused: Callable[[str, str], None], models: ModelUnion | None = None, spawn: Spawn | None = None
    ) -> None:
        self._on_refused = on_refused
        self._models = models
        self._spawn = spawn
        self._rules: tuple[Rule, ...] = ()
        self._default: PoolTarget | None = None

    def use(self, rules: Sequence[Rule]) -> None:
        """Choose by these for new requests, in their order; the default comes last, wherever it stands."""
        self._rules = tuple(rules)
        self._default = next((rule.target for rule in rules if rule.is_default), None)

    # ── RequestHandler ──

    def request(self, stream: Stream, request: Request) -> None:
        """Choose a pool, and let it decide."""
        headers = request.headers
        target = self._meant(headers)
        if target is None and self._models is not None and self._spawn is not None and asks_for_models(headers):
            stream.state = self._spawn(self._tell_models(self._models, stream, headers), "models of all pools")
            return
        target = target or self._default
        if target is None:
            self._refuse(stream, headers, "", NO_POOL, _no_pool(headers))
            return
        if target.handler is None:
            self._refuse(stream, headers, target.name, NOT_LOADED, _not_loaded(target.name))
            return
        inner = stream.state = PoolStream(stream, target, target.handler)
        shown = inner.take(request)
        if shown.body_state is not request.body_state:
            self._on_refused(target.name, NO_MEMORY)
        token = log.bind_pool(target.name)
        try:
            inner.handler.request(inner, shown)
        finally:
            log.unbind_pool(token)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        """Show the pool the response headers."""
        inner = stream.state
        return inner.handler.response_headers(inner, head) if isinstance(inner, PoolStream) else None

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        """Show the pool forwarded chunks."""
        inner = stream.state
        if isinstance(inner, PoolStream):
            inner.handler.response_body(inner, chunks)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        """Let the pool close its books."""
        inner = stream.state
        if isinstance(inner, asyncio.Task):
            inner.cancel()
        if not isinstance(inner, PoolStream):
            return None
        token = log.bind_pool(inner.target.name)
        try:
            return inner.handler.finished(inner, outcome)
        finally:
            log.unbind_pool(token)
            inner.release()
            inner.target.over()

    # ── own answers ──

    def _meant(self, headers: Headers) -> PoolTarget | None:
        authority = authority_of(headers)
        return next((target for match, target, _ in self._rules if match.fits(authority, headers)), None)

    async def _tell_models(self, models: ModelUnion, stream: Stream, headers: Headers) -> None:
        try:
            answer = await models.reply(headers)
        except RequestError as error:
            answer = _refusal(headers, error)
        except Exception as error:  # noqa: BLE001 — a defect; the client is told, the log too
            _logger.error("internal error", exc=error, place="models of all pools")
            answer = INTERNAL_ERROR
        stream.answer(answer)

    def _refuse(self, stream: Stream, headers: Headers, pool: str, reason: str, error: RequestError) -> None:
        self._on_refused(pool, reason)
        stream.answer(_refusal(headers, error))


def _refusal(headers: Headers, error: RequestError) -> Reply:
    return refusal(error, error_shape(request_path(headers), headers), grpc=is_grpc(headers))


def _no_pool(headers: Headers) -> RequestError:
    return RequestError(
        ErrorCode.NOT_FOUND,
        f"no pool is served for the authority {authority_of(headers)!r}: ask for one that is; whoever runs the endpoint picker "
        "can add it to match.authorities of a pool in the pools file, or make one pool the default",
    )


def _not_loaded(pool: str) -> RequestError:
    return RequestError(
        ErrorCode.SERVICE_UNAVAILABLE,
        f"the pool {pool!r} is not loaded: whoever runs the endpoint picker finds why on /debug/pools of its metrics port",
    )
