"""Following the pools file: another one is read beside the one in use, and takes its place if it can."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Protocol

from epp.config.findings import text_line
from epp.errors import ConfigError, Finding, UsageError
from epp.framework import log
from epp.framework.file_watch import FileWatch
from epp.pools.load import PoolEntry, PoolsFile
from epp.pools.match import NO_MATCH
from epp.process.config_reload import DEBOUNCE_S, POLL_S, Attempt, digest_of
from epp.process.options import Options
from epp.process.runtime import TaskRuntime
from epp.process.startup import load_pools_file
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.metrics import Metrics, Reloaded

_logger = log.get("epp.process.pools_reload")


class ServesFile(Protocol):
    """Who serves the pools of a file."""

    file: PoolsFile

    def serves(self, file: PoolsFile) -> bool:
        """All pools are as this file says."""
        ...

    async def use(self, file: PoolsFile) -> list[str]:
        """Serve by another one; returns why some pools stay as they were."""
        ...


class PoolsReload:
    """Reads the file again when it is asked to.

    Args:
        options: of the process; name the file.
        pools: who serves it.
        metrics: where attempts are counted.
        runtime: reads in a thread.
    """

    def __init__(self, options: Options, pools: ServesFile, metrics: Metrics, runtime: TaskRuntime) -> None:
        self._options = options
        self._pools = pools
        self._metrics = metrics
        self._runtime = runtime
        self._asked = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last: Attempt | None = None
        """The last attempt."""

    def ask(self) -> None:
        """Have the file read soon."""
        self._asked.set()

    def begin(self) -> None:
        """Serve those who ask; follow the file if the options say so."""
        self._task = self._runtime.spawn(self._run(), "pools file")
        if self._options.watch_config_file:
            watch = FileWatch([Path(self._options.pools_file)], debounce_s=DEBOUNCE_S, poll_s=POLL_S)
            _ = self._runtime.spawn(watch.run(self.ask, self._stopped), "pools file followed")
            if digest_of(self._options.pools_file) != self._pools.file.digest:
                self.ask()  # it has changed since it was loaded

    async def stop(self) -> None:
        """Change nothing any more."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            self.last = await self.attempt()
            self._metrics.counter(f"{PREFIX}pools_file_reloads_total", result=self.last.result.value).inc()

    async def attempt(self) -> Attempt:
        """Read the file and use it, if it can be used."""
        now = time.time()
        try:
            file = await self._runtime.offload(load_pools_file, self._options)
        except ConfigError as error:
            return self._failed(tuple(text_line(finding) for finding in error.findings), now, error.findings)
        except UsageError as error:
            return self._failed(error.problems, now)
        if self._pools.serves(file):
            return Attempt(Reloaded.NOOP, now, findings=file.findings)
        restart = restart_for(self._pools.file, file)
        for path in restart:
            note = "nothing of the changed file is used"
            _logger.error("restart required", file=self._options.pools_file, path=path, note=note)
        if restart:
            return Attempt(Reloaded.RESTART_REQUIRED, now, tuple(restart), file.findings)
        problems = await self._pools.use(file)
        for problem in problems:
            _logger.error("pool not replaced", file=self._options.pools_file, problem=problem)
        names = [entry.name for entry in file.pools]
        _logger.info("pools file reloaded", file=self._options.pools_file, pools=names)
        return Attempt(Reloaded.FAILURE if problems else Reloaded.SUCCESS, now, tuple(problems), file.findings)

    def _failed(self, problems: tuple[str, ...], now: float, findings: tuple[Finding, ...] = ()) -> Attempt:
        for problem in problems:
            _logger.error("pools file not reloaded, the one in use stays", file=self._options.pools_file, problem=problem)
        return Attempt(Reloaded.FAILURE, now, problems, findings)


def restart_for(old: PoolsFile, new: PoolsFile) -> list[str]:
    """What of another file takes a restart: a port of its own is bound once, with its limit."""
    before, after = [{entry.name: entry for entry in file.pools} for file in (old, new)]
    found = []
    for name in dict.fromkeys((*before, *after)):
        was, becomes = before.get(name, PoolEntry(name)), after.get(name, PoolEntry(name))
        if was.grpc_port != becomes.grpc_port:
            found.append(f"pools: {name}: grpcPort")
        elif was.grpc_port is not None and was.max_buffered_bytes != becomes.max_buffered_bytes:
            found.append(f"pools: {name}: maxBufferedBytes of a port of its own")
    return found


def as_made(entry: PoolEntry) -> PoolEntry:
    """What a pool is made of: not which requests are for it, nor how much memory they may take."""
    return dataclasses.replace(entry, match=NO_MATCH, is_default=False, max_buffered_bytes=None)
