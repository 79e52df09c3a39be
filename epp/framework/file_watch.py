"""Tells when the content of files changes: inotify on their directories, polling where that fails or misses something.

Directories are watched, not files: a ConfigMap is updated by swapping a symlink beside the file, and an editor replaces the
file; a watch on the file itself would end with the old inode.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import watchfiles

from epp.framework import log

_logger = log.get(__name__)

DEBOUNCE_S = 0.1
"""Writers write in several steps; a file is read when it was left alone for this long."""
POLL_S = 1.0

_Stat = tuple[int, int, int] | None


async def watch_files(paths: Iterable[str | Path], on_change: Callable[[], None], stop: asyncio.Event) -> None:
    """Call ``on_change`` after each change of the content of one of ``paths``, until ``stop`` is set.

    The contents at the moment of the call count as known. A file that does not exist is watched for.
    """
    await FileWatch(paths).run(on_change, stop)


class FileWatch:
    """Watches some files. Create it before reading them, so that no change between reading and watching is missed.

    Args:
        paths: files, which need not exist yet.
        debounce_s: how long to wait after a change for more of them.
        poll_s: how often to look without being told.
    """

    def __init__(self, paths: Iterable[str | Path], *, debounce_s: float = DEBOUNCE_S, poll_s: float = POLL_S) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._debounce_s = debounce_s
        self._poll_s = poll_s
        self._stats = self._look()
        self._digests = self._read()

    async def run(self, on_change: Callable[[], None], stop: asyncio.Event) -> None:
        """Call ``on_change`` after each change of content, until ``stop`` is set."""
        event = asyncio.Event()
        async with _closing(asyncio.create_task(self._listen(event), name="watch directories")):
            while not stop.is_set():
                was_told = await _first_of(event, stop, self._poll_s)
                stats = self._look()
                if stop.is_set() or (not was_told and stats == self._stats):
                    continue
                await _first_of(stop, stop, self._debounce_s)
                event.clear()
                self._check(on_change)

    def _check(self, on_change: Callable[[], None]) -> None:
        self._stats = self._look()
        digests = self._read()
        if digests == self._digests:
            return
        self._digests = digests
        try:
            on_change()
        except Exception as error:  # noqa: BLE001 — told; the next change is still to come
            _logger.error("reaction to a changed file failed", exc=error, files=[str(path) for path in self._paths])

    async def _listen(self, event: asyncio.Event) -> None:
        """Set ``event`` when something happens in one of the directories."""
        while True:
            directories = sorted(set(self._directories()))
            if not directories:
                return
            try:
                async for _ in watchfiles.awatch(*directories, watch_filter=None, recursive=False, debounce=200, step=50):
                    event.set()
                    if sorted(set(self._directories())) != directories:
                        break
            except (OSError, RuntimeError) as error:
                details = {"directories": directories, "error": str(error), "poll_s": self._poll_s}
                _logger.warning("directories cannot be watched, their files are polled", details=details)
                return

    def _directories(self) -> Iterator[str]:
        """Where the paths are, and where their links lead."""
        for path in self._paths:
            for directory in (path.parent, Path(os.path.realpath(path)).parent):
                if directory.is_dir():
                    yield str(directory)

    def _look(self) -> list[_Stat]:
        return [_stat(path) for path in self._paths]

    def _read(self) -> list[bytes | None]:
        return [_digest(path) for path in self._paths]


def _stat(path: Path) -> _Stat:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(path: Path) -> bytes | None:
    """None = cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


async def _first_of(first: asyncio.Event, second: asyncio.Event, timeout_s: float) -> bool:
    """Wait for one of two events; True if ``first`` is set."""
    waits = {asyncio.ensure_future(event.wait()) for event in {first, second}}
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return first.is_set()


@contextlib.asynccontextmanager
async def _closing(task: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
