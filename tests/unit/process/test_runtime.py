"""Background tasks whose failures are not lost, and a pool of threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from epp.process.runtime import TaskRuntime


async def test_a_task_runs_under_its_name() -> None:
    runtime = TaskRuntime()
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    task = runtime.spawn(work(), "worker")
    await task
    assert task.get_name() == "worker"
    assert ran.is_set()
    await runtime.stop()


async def test_a_failure_is_logged_under_the_name(caplog: pytest.LogCaptureFixture) -> None:
    runtime = TaskRuntime()

    async def fail() -> None:
        raise ZeroDivisionError("by zero")

    task = runtime.spawn(fail(), "worker")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname, record.fields) == (  # type: ignore[attr-defined]  # set by our logger
        "background task failed",
        "ERROR",
        {"task": "worker"},
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    await runtime.stop()


async def test_stopping_cancels_and_waits(caplog: pytest.LogCaptureFixture) -> None:
    runtime = TaskRuntime()
    cleaned = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = runtime.spawn(wait(), "waiter")
    await asyncio.sleep(0)
    await runtime.stop()
    assert task.cancelled()
    assert cleaned == [True]
    assert not caplog.records, "a cancelled task is no failure"


async def test_a_task_cancelled_before_it_began_leaves_nothing_behind() -> None:
    """A warning about a coroutine that was never awaited would fail this test."""
    runtime = TaskRuntime()

    async def never() -> None:
        pytest.fail("it ran")

    task = runtime.spawn(never(), "worker")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await runtime.stop()


async def test_work_is_offloaded_to_few_threads() -> None:
    runtime = TaskRuntime()
    names = await asyncio.gather(*(runtime.offload(lambda: threading.current_thread().name) for _ in range(20)))
    assert 1 <= len(set(names)) <= 4
    assert all(name.startswith("offload") for name in names)
    assert await runtime.offload(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await runtime.offload(divmod, 7, 0)
    await runtime.stop()


async def test_offloaded_work_gets_keywords() -> None:
    runtime = TaskRuntime()
    assert await runtime.offload(sorted, [1, 3, 2], reverse=True) == [3, 2, 1]
    await runtime.stop()
