"""Watching files: each way of changing one is noticed, and only changes of content are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import watchfiles

from epp.framework.file_watch import FileWatch, watch_files
from tests.unit.discovery.writing import WAYS, Write, in_place, make_directory, remove, watch_begun


class Watched:
    """A watch that is running."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[None] = asyncio.Queue()
        self.stop = asyncio.Event()

    def told(self) -> None:
        self.changes.put_nowait(None)

    async def change(self) -> None:
        """Wait for one."""
        async with asyncio.timeout(5):
            await self.changes.get()


@contextlib.asynccontextmanager
async def watching(watch: FileWatch) -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(watch.run(watched.told, watched.stop))
    try:
        yield watched
    finally:
        watched.stop.set()
        async with asyncio.timeout(5):
            await task


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("poll_s", [30.0, 0.05], ids=["told", "polling"])
async def test_every_way_of_writing_is_noticed_again_and_again(
    tmp_path: Path, write: Write, poll_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if poll_s < 1:
        monkeypatch.setattr(watchfiles, "awatch", _cannot_watch)
    path = tmp_path / "file.yaml"
    write(path, "0")
    watch = FileWatch([path], debounce_s=0.02, poll_s=poll_s)
    async with watching(watch) as watched:
        await watch_begun()
        for number in range(1, 4):
            write(path, str(number) * number)
            await watched.change()


def _cannot_watch(*directories: str, **options: object) -> None:
    raise OSError("no inotify")


async def test_a_change_between_reading_and_watching_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    in_place(path, "a")
    watch = FileWatch([path], debounce_s=0.01, poll_s=0.05)
    in_place(path, "bb")
    async with watching(watch) as watched:
        await watched.change()


async def test_equal_content_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    in_place(path, "a")
    async with watching(FileWatch([path], debounce_s=0.01, poll_s=0.02)) as watched:
        in_place(path, "a")
        in_place(tmp_path / "other.yaml", "b")
        in_place(path, "c")
        await watched.change()
        assert watched.changes.empty()


async def test_a_burst_is_one_change(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    in_place(path, "a")
    async with watching(FileWatch([path], debounce_s=0.1, poll_s=0.02)) as watched:
        for number in range(20):
            in_place(path, str(number))
        await watched.change()
        assert watched.changes.empty()


async def test_a_file_may_come_later_and_go(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    async with watching(FileWatch([path], debounce_s=0.01, poll_s=0.02)) as watched:
        in_place(path, "a")
        await watched.change()
        remove(path)
        await watched.change()


async def test_a_directory_that_is_missing_is_polled_for(tmp_path: Path) -> None:
    path = tmp_path / "later" / "file.yaml"
    async with watching(FileWatch([path], debounce_s=0.01, poll_s=0.02)) as watched:
        make_directory(path.parent)
        in_place(path, "a")
        await watched.change()


async def test_a_reaction_that_raises_does_not_end_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file.yaml"
    calls: asyncio.Queue[None] = asyncio.Queue()
    stop = asyncio.Event()

    def react() -> None:
        calls.put_nowait(None)
        raise RuntimeError("bug")

    task = asyncio.create_task(FileWatch([path], debounce_s=0.01, poll_s=0.02).run(react, stop))
    async with asyncio.timeout(5):
        for text in ("a", "bb"):
            in_place(path, text)
            await calls.get()
    stop.set()
    await task
    assert caplog.text.count("RuntimeError: bug") == 2


async def test_a_watch_can_be_cancelled(tmp_path: Path) -> None:
    task = asyncio.create_task(watch_files([tmp_path / "a"], lambda: None, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
