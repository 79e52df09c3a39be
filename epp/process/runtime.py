"""Background work of the process: tasks whose failures are not lost, a bounded pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from epp.framework import log

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 4
"""Plugins offload tokenising and model fitting; more threads would only take turns at the interpreter lock."""

_logger = log.get("epp.process.runtime")


class TaskRuntime:
    """Implements ``framework.handle.Runtime``: spawned tasks are kept, named, and cancelled at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="offload")

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` on the event loop; a failure is logged under ``name``."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run ``function`` in the pool of threads."""
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def stop(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("background task failed", exc=error, task=task.get_name())
