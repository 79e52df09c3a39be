"""What the process does with its time and memory: the pages below ``/debug/pprof``."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType

from aiohttp import web

from epp.errors import PageError
from epp.transport.stack_dump import dump_stacks

RATE_HZ = 100.0
"""Samples a second: some 1 % of a core."""
DEFAULT_S = 10.0
MAX_S = 120.0
MOST_LINES = 100
"""Places that the page about memory shows."""

Page = Callable[[web.BaseRequest], Awaitable[web.Response]]


def profile_pages() -> Mapping[str, Page]:
    """The pages, by path."""
    profiler = Profiler()
    return {
        "/debug/pprof/goroutine": _goroutine,
        "/debug/pprof/heap": _heap,
        "/debug/pprof/profile": profiler.page,
    }


class Profiler:
    """Looks at all threads many times a second; one run at a time."""

    def __init__(self) -> None:
        self._runs = False

    async def page(self, request: web.BaseRequest) -> web.Response:
        """``?seconds=N``: collapsed stacks, as flame graphs are made of: ``outermost;...;innermost count``.

        Raises:
            PageError: the time is not usable, or a profile is being made.
        """
        seconds = _seconds(request.query.get("seconds", ""))
        if self._runs:
            raise PageError("a profile is being made; try again when it is finished")
        self._runs = True
        try:
            stacks = await asyncio.to_thread(sample, seconds)
        finally:
            self._runs = False
        return web.Response(text=collapsed(stacks))


def sample(seconds: float, rate_hz: float = RATE_HZ) -> Counter[tuple[str, ...]]:
    """Stacks of all threads but this one, with how often each was seen; blocks for so long."""
    own = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks: Counter[tuple[str, ...]] = Counter()
    until = time.monotonic() + seconds
    due = time.monotonic()
    while (now := time.monotonic()) < until:
        for ident, frame in sys._current_frames().items():
            if ident != own:
                stacks[(names.get(ident, str(ident)), *_stack(frame))] += 1
        due = max(due + 1 / rate_hz, now)
        time.sleep(max(due - time.monotonic(), 0.0))
    return stacks


def collapsed(stacks: Counter[tuple[str, ...]]) -> str:
    """One line for each stack, most often seen first."""
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in stacks.most_common())


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    names: list[str] = []
    while frame is not None:
        code = frame.f_code
        module = frame.f_globals.get("__name__", "?")
        names.append(f"{module}.{code.co_qualname}".replace(";", ":").replace(" ", ""))
        frame = frame.f_back
    return tuple(reversed(names))


def _seconds(text: str) -> float:
    try:
        seconds = float(text or DEFAULT_S)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_S:
        raise PageError(f"seconds must be a number above 0, at most {MAX_S:g}, not {text!r}")
    return seconds


async def _goroutine(_request: web.BaseRequest) -> web.Response:
    return web.Response(text=await dump_stacks())


async def _heap(_request: web.BaseRequest) -> web.Response:
    if not tracemalloc.is_tracing():
        raise PageError("memory is not traced; start the process with PYTHONTRACEMALLOC=10, which costs time and memory")
    return web.Response(text=await asyncio.to_thread(heap))


def heap() -> str:
    """The places that hold most memory, with the calls that led there."""
    snapshot = tracemalloc.take_snapshot()
    current, peak = tracemalloc.get_traced_memory()
    lines = [f"traced: {current} bytes, at most {peak}"]
    for statistic in snapshot.statistics("traceback")[:MOST_LINES]:
        lines.append(f"\n{statistic.size} bytes in {statistic.count} blocks @")
        lines += [f"    {line.filename}:{line.lineno}" for line in statistic.traceback]
    return "\n".join(lines) + "\n"
