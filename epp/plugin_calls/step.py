"""What is done around every call of a plugin, in one place: timed, judged by its guard, reported if it failed, recorded.

A ``CallWatch`` belongs to one plugin at one extension point. At build time it wraps the plugin's method once; who runs the
plugin calls what it got, and only decides what a failure means. Plugins that may wait (``waiting``) run at once as far as
they do not wait, and go on in a task from there.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from epp.errors import ErrorCode, RequestError, SchedulingError
from epp.framework.interfaces import Role
from epp.plugin_calls.defects import EXTENSION_POINTS, Defects
from epp.plugin_calls.guard import BUDGET_S, UNGUARDED, Guard
from epp.telemetry.decision_record import DecisionRecord

P = ParamSpec("P")
R = TypeVar("R")

HOOK_DEADLINE_S = 0.4
"""Longest time a coroutine hook may take; upstream's default for data producers."""

Observe = Callable[[float], None]
"""Takes the seconds that a call took."""

Record = DecisionRecord | None
"""None for a request of which nobody wants a record."""

REFUSALS: dict[Role, tuple[type[Exception], ...]] = {
    Role.DIRECT_RESPONDER: (RequestError,),
    Role.REQUEST_HEADER: (RequestError,),
    Role.BODY_REWRITER: (RequestError,),
    Role.ADMITTER: (RequestError,),
    Role.PRE_REQUEST: (RequestError,),
    Role.PROFILE_HANDLER: (SchedulingError, RequestError),
}
"""What a plugin may raise to refuse a request; anything else is a defect."""

_DECIDES = frozenset({Role.DIRECT_RESPONDER, Role.REQUEST_HEADER, Role.BODY_REWRITER, Role.ADMITTER})
"""Without the word of these no request can go on: a defect of theirs refuses it."""


def budget_s(*, is_async: bool, deadline_s: float | None = None) -> float:
    """How long a call of a hook may take: of a coroutine, which lets others work, nearly its whole deadline.

    Not all of it, since an event loop's timers may be early by a millisecond.

    Args:
        deadline_s: the plugin's own; None = ``HOOK_DEADLINE_S``.
    """
    return 0.95 * (HOOK_DEADLINE_S if deadline_s is None else deadline_s) if is_async else BUDGET_S


class MayWait(Protocol):
    """A request whose plugins may wait."""

    async def enter(self) -> None:
        """Go on in a task, if this is not one already."""
        ...

    def check(self) -> None:
        """To be asked after each wait, because a plugin can swallow its cancellation.

        Raises:
            CancelledError: the request is over, or its time is.
        """
        ...


class _InTask:
    async def enter(self) -> None:
        pass

    def check(self) -> None:
        pass


IN_TASK: MayWait = _InTask()
"""For calls that are made in a task already and are not withdrawn."""


class CallWatch:
    """Wraps the methods of one plugin at one extension point.

    Args:
        role: the extension point; says which exceptions are refusals.
        type_name, name: of the plugin.
        defects: told of exceptions that are no refusals.
        observe: takes the duration of each call.
        guard: judges it.
        point: name in metrics and records, if it is not the role's own.
        clock: seconds, for durations.
    """

    __slots__ = ("_defects", "_point", "_refusals", "clock", "guard", "name", "observe", "role", "type")

    def __init__(
        self,
        role: Role,
        type_name: str,
        name: str,
        defects: Defects,
        observe: Observe,
        guard: Guard = UNGUARDED,
        *,
        point: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.role = role
        self.type = type_name
        self.name = name
        self.guard = guard
        self._defects = defects
        self.observe = observe
        self._point = point or EXTENSION_POINTS.get(role, str(role))
        self._refusals = REFUSALS.get(role, ())
        self.clock = clock

    def plain(self, function: Callable[P, R]) -> Callable[Concatenate[Record, P], R]:
        """``function``, watched; its first argument becomes the record of the request.

        It raises what ``function`` raises, after that was reported; INTERNAL in its place where no request can do without it.
        """
        watched = _WATCHED.get(len(inspect.signature(function).parameters), _watched_any)
        return cast("Callable[Concatenate[Record, P], R]", watched(self, function))

    def waiting(
        self, function: Callable[P, Awaitable[R] | R], *, has_deadline: bool = True, deadline_s: float | None = None
    ) -> Callable[Concatenate[Record, MayWait, P], Coroutine[Any, Any, R]]:
        """``function``, which may be a coroutine function, watched; its first arguments become record and request.

        A plain function whose result is awaitable is judged as a coroutine function is.

        Args:
            has_deadline: what it waits for must be there within its deadline.
            deadline_s: None = ``HOOK_DEADLINE_S``.
        """
        waits = inspect.iscoroutinefunction(function)

        async def call(record: Record, request: MayWait, *args: Any) -> Any:
            if waits:
                await request.enter()
            begun = self.clock()
            waited = False
            try:
                result = function(*args)  # type: ignore[call-arg]  # as above
                if result is not None and inspect.isawaitable(result):
                    waited = True
                    limit_s = HOOK_DEADLINE_S if deadline_s is None else deadline_s
                    result = await _settled(result, request, limit_s if has_deadline else None)
                    request.check()
            except Exception as error:
                refuses = self._failed(self.clock() - begun, record, error)
                request.check()
                if refuses:
                    raise RequestError(ErrorCode.INTERNAL, "internal error") from error
                raise
            self._ended(self.clock() - begun, record, "", waited=waited)
            return result

        return cast("Callable[Concatenate[Record, MayWait, P], Coroutine[Any, Any, R]]", call)

    def failed(self, problem: str | Exception) -> None:
        """Report a defect that no exception tells of."""
        self._defects.plugin_failed(self.role, self.type, self.name, problem)

    def raised(self, elapsed_s: float, record: Record, error: Exception) -> None:
        """A plain call raised.

        Raises:
            RequestError: INTERNAL, if no request can do without the plugin; else the caller raises ``error`` again.
        """
        if self._failed(elapsed_s, record, error):
            raise RequestError(ErrorCode.INTERNAL, "internal error") from error

    def ended(self, elapsed_s: float, record: DecisionRecord) -> None:
        """A plain call that somebody wants a record of is over."""
        record.called(self._point, self.type, self.name, elapsed_s)

    def _failed(self, elapsed_s: float, record: Record, error: Exception) -> bool:
        """Whether the defect refuses the request."""
        self._ended(elapsed_s, record, str(error) or type(error).__name__)
        if isinstance(error, self._refusals):
            return False
        self.failed(error)
        return self.role in _DECIDES

    def _ended(self, elapsed_s: float, record: Record, error: str, *, waited: bool = False) -> None:
        self.guard.calls += 1
        self.observe(elapsed_s)
        self.guard.check(0.0 if waited and elapsed_s <= budget_s(is_async=True) else elapsed_s)
        if record is not None:
            record.called(self._point, self.type, self.name, elapsed_s, error)


# A plain call is made several times for each request. With its arguments named it takes 0.3 of a microsecond less than with
# arguments that are packed and unpacked, and more than half of that goes if what is the same below becomes a function.


def _watched_two(watch: CallWatch, function: Callable[..., Any]) -> Callable[..., Any]:
    clock, observe, guard = watch.clock, watch.observe, watch.guard

    def call(record: Record, first: Any, second: Any) -> Any:
        begun = clock()
        try:
            result = function(first, second)
        except Exception as error:
            watch.raised(clock() - begun, record, error)
            raise
        elapsed = clock() - begun
        guard.calls += 1
        observe(elapsed)
        if elapsed > guard.limit_s:
            guard.exceeded(elapsed)
        if record is not None:
            watch.ended(elapsed, record)
        return result

    return call


def _watched_three(watch: CallWatch, function: Callable[..., Any]) -> Callable[..., Any]:
    clock, observe, guard = watch.clock, watch.observe, watch.guard

    def call(record: Record, first: Any, second: Any, third: Any) -> Any:
        begun = clock()
        try:
            result = function(first, second, third)
        except Exception as error:
            watch.raised(clock() - begun, record, error)
            raise
        elapsed = clock() - begun
        guard.calls += 1
        observe(elapsed)
        if elapsed > guard.limit_s:
            guard.exceeded(elapsed)
        if record is not None:
            watch.ended(elapsed, record)
        return result

    return call


def _watched_any(watch: CallWatch, function: Callable[..., Any]) -> Callable[..., Any]:
    as_two = _watched_two(watch, lambda args, _: function(*args))
    return lambda record, *args: as_two(record, args, None)


_WATCHED = {2: _watched_two, 3: _watched_three}
"""By number of arguments."""


async def _settled(result: Awaitable[R], request: MayWait, deadline_s: float | None) -> R:
    """The value of ``result``.

    Args:
        deadline_s: None = it has none.

    Raises:
        TimeoutError: after ``deadline_s``.
    """
    try:
        await request.enter()
    except BaseException:
        if inspect.iscoroutine(result):
            result.close()
        raise
    if deadline_s is None:
        return await result
    deadline = asyncio.timeout(deadline_s)
    try:
        async with deadline:
            return await result
    except TimeoutError as error:
        if deadline.expired():
            raise TimeoutError(f"took longer than {deadline_s:g} s") from error
        raise
