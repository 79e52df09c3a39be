"""Hooks of a request, in declaration order: PreRequest, ResponseReceived, ResponseStreaming, ResponseComplete.

Plain functions run inline. Coroutine functions are awaited before the decision is sent (PreRequest and the stages before it),
or follow one another in a task per request (response hooks), each with a deadline. A failing response hook is reported and the
next one runs; a response never fails because of a hook. One that is too slow too often is left out for a while, except where
it may refuse requests (request headers, admitters).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from epp.errors import ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectReply, DirectRequest, DirectResponder
from epp.framework.interfaces import (
    HeaderEdits,
    PreRequest,
    Role,
)
from epp.framework.results import SchedulingResult
from epp.framework.rewriting import BodyEdits
from epp.framework.types import Completion, InferenceRequest, ResponseInfo, StreamingChunk
from epp.hooks import Hook, Hooks
from epp.scheduling.guard import BUDGET_S
from epp.scheduling.profile import Defects

T = TypeVar("T")

Spawn = Callable[[Coroutine[object, object, None], str], asyncio.Task[None]]
"""Starts a background task under a name."""

HOOK_DEADLINE_S = 0.4
"""Longest time a coroutine hook may take; upstream's default for data producers."""


def budget_s(*, is_async: bool) -> float:
    """How long a call of a hook may take: of a coroutine, which lets others work, nearly its whole deadline.

    Not all of it, since an event loop's timers may be early by a millisecond.
    """
    return 0.95 * HOOK_DEADLINE_S if is_async else BUDGET_S


class HookRunner:
    """Runs hooks, times them, and reports those that fail.

    Args:
        hooks: what to run.
        defects: told of failures.
        spawn: starts a background task.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        hooks: Hooks,
        defects: Defects,
        spawn: Spawn,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.hooks = hooks
        self.decision_waits = any(
            hook.is_async for slot in (hooks.producers, hooks.admitters, hooks.pre_request) for hook in slot
        )
        """A stage before the answer is a coroutine, so that the decision needs a task."""
        self._defects = defects
        self._spawn = spawn
        self._clock = clock

    def request_header(self, request: InferenceRequest, edits: HeaderEdits) -> None:
        """Let plugins see the request before anything is decided.

        Raises:
            RequestError: one refuses it; any other exception of a plugin is reported and becomes INTERNAL.
        """
        for hook in self.hooks.request_header:
            begun = self._clock()
            try:
                hook.plugin.process_request(request, edits)
            except RequestError:
                raise
            except Exception as error:
                self._defects.plugin_failed(Role.REQUEST_HEADER, hook.type, hook.name, error)
                raise RequestError(ErrorCode.INTERNAL, "internal error") from error
            finally:
                self._took(hook, begun)

    def responder(self, method: str, path: str) -> Hook[DirectResponder] | None:
        """The first plugin that answers such requests itself; one that fails is reported and passed over."""
        for hook in self.hooks.responders:
            try:
                if hook.plugin.answers(method, path):
                    return hook
            except Exception as error:  # noqa: BLE001
                self._defects.plugin_failed(Role.DIRECT_RESPONDER, hook.type, hook.name, error)
        return None

    async def respond(self, hook: Hook[DirectResponder], request: DirectRequest) -> DirectReply | None:
        """A plugin's own answer.

        Raises:
            RequestError: as its plugin says; any other exception is reported and becomes INTERNAL.
        """
        begun = self._clock()
        try:
            reply = hook.plugin.respond(request)
            return await reply if inspect.isawaitable(reply) else reply
        except RequestError:
            raise
        except Exception as error:
            self._defects.plugin_failed(Role.DIRECT_RESPONDER, hook.type, hook.name, error)
            raise RequestError(ErrorCode.INTERNAL, "internal error") from error
        finally:
            self._took(hook, begun)

    def rewrites(self, request: InferenceRequest) -> bool:
        """Some plugin wants to change the body of this request."""
        return any(hook.plugin.rewrites(request) for hook in self.hooks.rewriters)

    async def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> None:
        """Let plugins change the body.

        Raises:
            RequestError: one refuses the request; any other exception of a plugin is reported and becomes INTERNAL.
        """
        for hook in self.hooks.rewriters:
            if not hook.plugin.rewrites(request):
                continue
            begun = self._clock()
            try:
                waits = hook.plugin.rewrite(request, edits)
                if waits is not None:
                    await waits
            except RequestError:
                raise
            except Exception as error:
                self._defects.plugin_failed(Role.BODY_REWRITER, hook.type, hook.name, error)
                raise RequestError(ErrorCode.INTERNAL, "internal error") from error
            finally:
                self._took(hook, begun)

    def screen(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that every screener keeps; one that fails is reported, and keeps all, as one that is left out does."""
        kept: list[set[str]] = []
        for hook in self.hooks.screeners:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            begun = self._clock()
            try:
                kept.append({endpoint.id for endpoint in hook.plugin.screen(request, candidates)})
            except Exception as error:  # noqa: BLE001 — reported; the others still screen
                self._defects.plugin_failed(Role.SCREENER, hook.type, hook.name, error)
            self._took(hook, begun)
        if not kept:
            return candidates
        common = set.intersection(*kept)
        return candidates.where([endpoint.id in common for endpoint in candidates.endpoints])

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Run the producers; one that fails takes those with it that need its data. One that is left out writes nothing."""
        failed: set[str] = set()
        for hook in self.hooks.producers:
            if (failed and _misses(hook, failed)) or (hook.guard.is_out and hook.guard.refuses()):
                continue
            begun = self._clock()
            try:
                hook.plugin.produce(request, candidates)
            except Exception as error:  # noqa: BLE001
                self._defects.plugin_failed(Role.DATA_PRODUCER, hook.type, hook.name, error)
                failed.add(hook.name)
            finally:
                self._took(hook, begun)

    async def produce_async(self, request: InferenceRequest, candidates: Candidates) -> None:
        """The same, for coroutines."""
        failed: set[str] = set()
        for hook in self.hooks.producers:
            if (failed and _misses(hook, failed)) or (hook.guard.is_out and hook.guard.refuses()):
                continue
            begun = self._clock()
            try:
                await _settle(hook.plugin.produce(request, candidates))
            except Exception as error:  # noqa: BLE001
                self._defects.plugin_failed(Role.DATA_PRODUCER, hook.type, hook.name, error)
                failed.add(hook.name)
            finally:
                self._took(hook, begun)

    def admit(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Ask the admitters.

        Raises:
            RequestError: the first denial.
        """
        for hook in self.hooks.admitters:
            begun = self._clock()
            try:
                denial = cast("str | None", hook.plugin.admit(request, candidates))
            except RequestError:
                raise
            except Exception as error:
                self._defects.plugin_failed(Role.ADMITTER, hook.type, hook.name, error)
                raise RequestError(ErrorCode.INTERNAL, "internal error") from error
            finally:
                self._took(hook, begun)
            _raise_denial(denial)

    async def admit_async(self, request: InferenceRequest, candidates: Candidates) -> None:
        """The same, for coroutines."""
        for hook in self.hooks.admitters:
            begun = self._clock()
            try:
                denial = await _settle(hook.plugin.admit(request, candidates))
            except RequestError:
                raise
            except Exception as error:
                self._defects.plugin_failed(Role.ADMITTER, hook.type, hook.name, error)
                raise RequestError(ErrorCode.INTERNAL, "internal error") from error
            finally:
                self._took(hook, begun)
            _raise_denial(denial)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Tell all plugins of the decision; all run, even if one fails.

        Raises:
            RequestError: the only failure if it is one, else INTERNAL with the text of all.
        """
        failures: list[tuple[Hook[PreRequest], Exception]] = []
        for hook in self.hooks.pre_request:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            begun = self._clock()
            try:
                hook.plugin.pre_request(request, result, edits)
            except Exception as error:  # noqa: BLE001 — gathered below
                failures.append((hook, error))
            self._took(hook, begun)
        if failures:
            self._raise_failures(failures)

    async def pre_request_async(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """The same, for coroutines."""
        failures: list[tuple[Hook[PreRequest], Exception]] = []
        for hook in self.hooks.pre_request:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            begun = self._clock()
            try:
                await _settle(hook.plugin.pre_request(request, result, edits))
            except Exception as error:  # noqa: BLE001
                failures.append((hook, error))
            self._took(hook, begun)
        if failures:
            self._raise_failures(failures)

    def _raise_failures(self, failures: list[tuple[Hook[PreRequest], Exception]]) -> None:
        for hook, error in failures:
            if not isinstance(error, RequestError):
                self._defects.plugin_failed(Role.PRE_REQUEST, hook.type, hook.name, error)
        hook, error = failures[0]
        if len(failures) == 1 and isinstance(error, RequestError):
            raise error
        lines = [f'PreRequest "{h.name}/{h.type}" failed: {_client_text(e)}' for h, e in failures]
        raise RequestError(ErrorCode.INTERNAL, "\n".join(lines)) from error

    def received(self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits) -> None:
        """Tell of the response headers."""
        for hook in self.hooks.received:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            begun = self._clock()
            try:
                hook.plugin.response_received(request, result, response, edits)
            except Exception as error:  # noqa: BLE001
                self._defects.plugin_failed(Role.RESPONSE_RECEIVED, hook.type, hook.name, error)
            self._took(hook, begun)

    def streaming(
        self,
        request: InferenceRequest,
        result: SchedulingResult,
        chunk: StreamingChunk,
        after: asyncio.Task[None] | None,
    ) -> asyncio.Task[None] | None:
        """Tell of a chunk.

        Args:
            after: task of this request that coroutines wait for.

        Returns:
            The task to wait for next time.
        """
        for hook in self.hooks.streaming:
            call = partial(hook.plugin.response_streaming, request, result, chunk)
            after = self._call(Role.RESPONSE_STREAMING, hook, call, after)
        return after

    def complete(
        self,
        request: InferenceRequest,
        result: SchedulingResult,
        completion: Completion,
        after: asyncio.Task[None] | None,
    ) -> None:
        """Tell of the end."""
        for hook in self.hooks.complete:
            call = partial(hook.plugin.response_complete, request, result, completion)
            after = self._call(Role.RESPONSE_COMPLETE, hook, call, after)

    def _call(
        self,
        role: Role,
        hook: Hook[T],
        call: Callable[[], Awaitable[None] | None],
        after: asyncio.Task[None] | None,
    ) -> asyncio.Task[None] | None:
        if hook.guard.is_out and hook.guard.refuses():
            return after
        if hook.is_async:
            return self._spawn(self._follow(role, hook, call, after), f"{role}:{hook.name}")
        begun = self._clock()
        try:
            call()
        except Exception as error:  # noqa: BLE001
            self._defects.plugin_failed(role, hook.type, hook.name, error)
        self._took(hook, begun)
        return after

    async def _follow(
        self,
        role: Role,
        hook: Hook[T],
        call: Callable[[], Awaitable[None] | None],
        after: asyncio.Task[None] | None,
    ) -> None:
        if after is not None:
            await asyncio.wait([after])
        begun = self._clock()
        try:
            await _settle(call())
        except Exception as error:  # noqa: BLE001
            self._defects.plugin_failed(role, hook.type, hook.name, error)
        self._took(hook, begun)

    def _took(self, hook: Hook[Any], begun: float) -> None:
        hook.observe(elapsed := self._clock() - begun)
        if elapsed > hook.guard.limit_s:
            hook.guard.exceeded(elapsed)


def _misses(hook: Hook[Any], failed: set[str]) -> bool:
    """The producer needs what a failed one did not write; then it counts as failed itself."""
    if failed.isdisjoint(hook.needs):
        return False
    failed.add(hook.name)
    return True


async def _settle(value: Awaitable[T] | T) -> T:
    """The value, waited for if it is awaitable.

    Raises:
        TimeoutError: after ``HOOK_DEADLINE_S``.
    """
    if not inspect.isawaitable(value):
        return value
    deadline = asyncio.timeout(HOOK_DEADLINE_S)
    try:
        async with deadline:
            return cast("T", await value)
    except TimeoutError as error:
        if deadline.expired():
            raise TimeoutError(f"took longer than {HOOK_DEADLINE_S:g} s") from error
        raise


def _raise_denial(denial: str | None) -> None:
    if denial is not None:
        raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, f"request cannot be admitted: {denial}")


def _client_text(error: Exception) -> str:
    """Internals stay in the log."""
    return error.message if isinstance(error, RequestError) else "internal error"
