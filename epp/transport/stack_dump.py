"""What every task and thread is doing, as text: the picker's answer to ``/debug/pprof/goroutine``."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from types import FrameType

_TASKS_PER_TURN = 50
"""Stacks taken before the loop serves others; some 0.5 ms."""

Stack = tuple[str, ...]


async def dump_stacks() -> str:
    """Tasks of this loop and threads of the process; equal stacks are shown once with their number, most first."""
    tasks: Counter[Stack] = Counter()
    for number, task in enumerate(asyncio.all_tasks(), 1):
        if not task.done():
            tasks[_task_stack(task)] += 1
        if number % _TASKS_PER_TURN == 0:
            await asyncio.sleep(0)
    parts = [f"tasks: {tasks.total()}"]
    parts += [f"{count} task{'s' if count > 1 else ''} @\n{_text(stack)}" for stack, count in tasks.most_common()]
    frames = sys._current_frames()
    parts.append(f"threads: {len(frames)}")
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts += [f"thread {names.get(ident, ident)} @\n{_text(_thread_stack(frame))}" for ident, frame in frames.items()]
    return "\n\n".join(parts) + "\n"


def _task_stack(task: asyncio.Task[object]) -> Stack:
    """The coroutines that wait for each other, outermost first; names and lines only, as source files are slow to read."""
    lines: list[str] = []
    waiting: object = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is None:
            break
        lines.append(_line(frame))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return tuple(lines) or (repr(task.get_coro()),)


def _thread_stack(frame: FrameType | None) -> Stack:
    lines: list[str] = []
    while frame is not None:
        lines.append(_line(frame))
        frame = frame.f_back
    return tuple(reversed(lines))


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} {frame.f_code.co_filename}:{frame.f_lineno}"


def _text(stack: Stack) -> str:
    return "\n".join(f"    {line}" for line in stack)
