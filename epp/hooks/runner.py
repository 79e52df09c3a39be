"""Runs the hooks of a request, in declaration order, and says what a failure of each means.

What the decision waits for (``respond``, ``rewrite``, ``produce``, ``admit``, ``pre_request``) is written as coroutines that
run at once as far as no plugin waits. Coroutine functions of response hooks follow one another in a task per request. A failing
response hook is reported and the next one runs; a response never fails because of a hook. One that is too slow too often is
left out for a while, except where it may refuse requests (request headers, admitters).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from epp.errors import ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectReply, DirectRequest, DirectResponder
from epp.framework.interfaces import HeaderEdits
from epp.framework.results import SchedulingResult
from epp.framework.rewriting import BodyEdits
from epp.framework.types import Completion, EndpointId, InferenceRequest, ResponseInfo, StreamingChunk
from epp.hooks.slots import Hook, Hooks
from epp.plugin_calls.step import IN_TASK, MayWait, Record
from epp.telemetry.decision_record import ScreenRecord

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Starts a background task under a name."""


class HookRunner:
    """Runs hooks.

    Args:
        hooks: what to run.
        spawn: starts a background task.
    """

    def __init__(self, hooks: Hooks, spawn: Spawn) -> None:
        self.hooks = hooks
        self._spawn = spawn

    # ── before the decision ──

    def responder(self, method: str, path: str) -> Hook[DirectResponder] | None:
        """The first plugin that answers such requests itself; one that fails is reported and passed over."""
        for hook in self.hooks.responders:
            try:
                if hook.plugin.answers(method, path):
                    return hook
            except Exception as error:  # noqa: BLE001
                hook.watch.failed(error)
        return None

    async def respond(
        self, hook: Hook[DirectResponder], request: DirectRequest, waiter: MayWait, record: Record = None
    ) -> DirectReply | None:
        """A plugin's own answer.

        Raises:
            RequestError: as its plugin says; any other exception is INTERNAL.
        """
        reply = await hook.call(record, waiter, request)
        if reply is not None and not isinstance(reply, DirectReply):
            hook.watch.failed(f"answered with {type(reply).__name__} instead of DirectReply")
            raise RequestError(ErrorCode.INTERNAL, "internal error")
        return reply

    def request_header(self, request: InferenceRequest, edits: HeaderEdits, record: Record = None) -> None:
        """Let plugins see the request first.

        Raises:
            RequestError: one refuses it; any other exception of a plugin is INTERNAL.
        """
        for hook in self.hooks.request_header:
            hook.call(record, request, edits)

    async def rewrite(self, request: InferenceRequest, edits: BodyEdits, waiter: MayWait, record: Record = None) -> None:
        """Let those plugins change the body that want to change this one.

        Raises:
            RequestError: one refuses the request; any other exception of a plugin is INTERNAL.
        """
        for hook in self.hooks.rewriters:
            if not self._rewrites(hook, request):
                continue
            await hook.call(record, waiter, request, edits)

    def rewrites(self, request: InferenceRequest) -> bool:
        """Some plugin wants to change the body of this request.

        Raises:
            RequestError: INTERNAL if one cannot say.
        """
        return any(self._rewrites(hook, request) for hook in self.hooks.rewriters)

    def _rewrites(self, hook: Hook[Any], request: InferenceRequest) -> bool:
        try:
            return bool(hook.plugin.rewrites(request))
        except Exception as error:
            hook.watch.failed(error)
            raise RequestError(ErrorCode.INTERNAL, "internal error") from error

    def screen(self, request: InferenceRequest, candidates: Candidates, record: Record = None) -> Candidates:
        """The candidates that every screener keeps; one that fails keeps all, as one that is left out does."""
        kept: list[set[EndpointId]] = []
        for hook in self.hooks.screeners:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            try:
                left: set[EndpointId] = hook.call(record, request, candidates)
            except Exception as error:  # noqa: BLE001 — reported; the others still screen
                self._screened(record, hook, candidates, None, error)
            else:
                self._screened(record, hook, candidates, left)
                kept.append(left)
        if not kept:
            return candidates
        common = set.intersection(*kept)
        return candidates.where([endpoint.id in common for endpoint in candidates.endpoints])

    async def produce(self, request: InferenceRequest, candidates: Candidates, waiter: MayWait, record: Record = None) -> None:
        """Run the producers; one that fails takes those with it that need its data. One that is left out writes nothing."""
        failed: set[str] = set()
        for hook in self.hooks.producers:
            if (failed and _misses(hook, failed)) or (hook.guard.is_out and hook.guard.refuses()):
                continue
            try:
                await hook.call(record, waiter, request, candidates)
            except Exception:  # noqa: BLE001 — reported; the request goes on without its data
                failed.add(hook.name)

    async def admit(self, request: InferenceRequest, candidates: Candidates, waiter: MayWait, record: Record = None) -> None:
        """Ask the admitters.

        Raises:
            RequestError: the first denial; any other exception of a plugin is INTERNAL.
        """
        for hook in self.hooks.admitters:
            denial = await hook.call(record, waiter, request, candidates)
            if denial is not None:
                raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, f"request cannot be admitted: {denial}")

    async def pre_request(
        self,
        request: InferenceRequest,
        result: SchedulingResult,
        edits: HeaderEdits,
        waiter: MayWait,
        record: Record = None,
    ) -> None:
        """Tell all plugins of the decision; all run, even if one fails.

        Raises:
            RequestError: the only failure if it is one, else INTERNAL with the text of all.
        """
        failures: list[tuple[Hook[Any], Exception]] = []
        for hook in self.hooks.pre_request:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            try:
                await hook.call(record, waiter, request, result, edits)
            except Exception as error:  # noqa: BLE001 — gathered below
                failures.append((hook, error))
        if failures:
            _raise_failures(failures)

    # ── after the decision ──

    def received(self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits) -> None:
        """Tell of the response headers."""
        for hook in self.hooks.received:
            if hook.guard.is_out and hook.guard.refuses():
                continue
            try:
                hook.call(None, request, result, response, edits)
            except Exception:  # noqa: BLE001 — reported; the next one is told
                continue

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
            after = self._tell(hook, after, request, result, chunk)
        return after

    def complete(
        self,
        request: InferenceRequest,
        result: SchedulingResult,
        completion: Completion,
        after: asyncio.Task[None] | None,
    ) -> asyncio.Task[None] | None:
        """Tell of the end; arguments and result as for ``streaming``."""
        for hook in self.hooks.complete:
            after = self._tell(hook, after, request, result, completion)
        return after

    def _tell(self, hook: Hook[Any], after: asyncio.Task[None] | None, *told: object) -> asyncio.Task[None] | None:
        if hook.guard.is_out and hook.guard.refuses():
            return after
        if hook.is_async:
            return self._spawn(_follow(hook, after, told), f"{hook.watch.role}:{hook.name}")
        try:
            hook.call(None, *told)
        except Exception:  # noqa: BLE001 — reported; the response goes on
            return after
        return after

    @staticmethod
    def _screened(
        record: Record, hook: Hook[Any], candidates: Candidates, left: set[EndpointId] | None, error: Exception | None = None
    ) -> None:
        if record is None:
            return
        dropped = [e.host_port for e in candidates if left is not None and e.id not in left]
        record.screeners.append(ScreenRecord(hook.name, dropped, len(candidates) - len(dropped), str(error or "")))


async def _follow(hook: Hook[Any], after: asyncio.Task[None] | None, told: tuple[object, ...]) -> None:
    if after is not None:
        await asyncio.wait([after])
    try:
        await hook.call(None, IN_TASK, *told)
    except Exception:  # noqa: BLE001 — reported; the response goes on
        return


def _misses(hook: Hook[Any], failed: set[str]) -> bool:
    """The producer needs what a failed one did not write; then it counts as failed itself."""
    if failed.isdisjoint(hook.needs):
        return False
    failed.add(hook.name)
    return True


def _raise_failures(failures: list[tuple[Hook[Any], Exception]]) -> NoReturn:
    _, error = failures[0]
    if len(failures) == 1 and isinstance(error, RequestError):
        raise error
    lines = [f'PreRequest "{hook.name}/{hook.watch.type}" failed: {_client_text(e)}' for hook, e in failures]
    raise RequestError(ErrorCode.INTERNAL, "\n".join(lines)) from error


def _client_text(error: Exception) -> str:
    """Internals stay in the log."""
    return error.message if isinstance(error, RequestError) else "internal error"
