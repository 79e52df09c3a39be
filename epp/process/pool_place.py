"""One pool of a pools file, loaded or not: tried until it is served, with requests answered by 503 as long as it is not.

Whatever is wrong with it (its document, a plugin, its discovery) is told in the log, on the pages and in metrics, and touches
no other pool. It is tried again when its files change, on SIGHUP, and, where no document is to blame, by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from epp.cluster.connection import ClusterConnection
from epp.config.findings import text_line
from epp.config.loaded import LoadedConfig
from epp.errors import ConfigError, Finding, UsageError
from epp.framework import log
from epp.framework.file_watch import FileWatch
from epp.pool.shadow import ShadowSettings
from epp.pools.load import PoolEntry
from epp.pools.target import PoolTarget
from epp.process.cluster import is_in_cluster
from epp.process.config_reload import DEBOUNCE_S, POLL_S, Attempt
from epp.process.door import Door
from epp.process.health import Health
from epp.process.live_settings import SettingsOfPool
from epp.process.options import Options
from epp.process.runtime import TaskRuntime
from epp.process.served_pool import COMPONENTS, ServedPool, Shared
from epp.process.startup import Loader, check_discovery, load, load_shadow, pool_options
from epp.telemetry.metrics import Metrics, Reloaded
from epp.telemetry.tracing import Tracing

RETRY_S = 30.0
"""Until a pool is tried again that failed by something else than a document."""

_logger = log.get("epp.process.pool_place")


class State(StrEnum):
    """Of a pool of the file."""

    STARTING = "starting"
    SERVED = "served"
    NOT_LOADED = "not loaded"


@dataclass(frozen=True, slots=True)
class PlaceParts:
    """What the pools of a process share."""

    options: Options
    """Of the process."""
    tracing: Tracing | None
    cluster: Callable[[], Awaitable[ClusterConnection]]
    """The connection to the API server, made when the first pool needs it."""
    on_change: Callable[[PoolPlace], None]
    """Told when the pool is loaded or not any more, and when its readiness changes."""


class PoolPlace:
    """A pool of the file.

    Args:
        entry: what the file says of it.
        door: where its requests come in.
        parts: what it shares with others.
    """

    def __init__(self, entry: PoolEntry, door: Door, parts: PlaceParts) -> None:
        self.entry = entry
        self.options = pool_options(parts.options, entry)
        self.door = door
        self.served: ServedPool | None = None
        """None while it is not loaded."""
        self.state = State.STARTING
        self.last: Attempt | None = None
        """To load it; what came of later ones is ``served.config_reload``'s."""
        self.tried = asyncio.Event()
        """It was tried once, whatever came of it."""
        self.target = PoolTarget(entry.name)
        self.use_limit(entry)
        self._parts = parts
        self.health = Health(
            COMPONENTS, leader_election=parts.options.ha_enable_leader_election, on_change=lambda _: self._changed()
        )
        self._threads = TaskRuntime()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """Of the pool."""
        return self.entry.name

    @property
    def metrics(self) -> Metrics | None:
        """Its own; None while it is not loaded."""
        return self.served.metrics if self.served is not None else None

    @property
    def is_over(self) -> bool:
        """It was begun, and is stopped."""
        return self._task is None and self.served is None and not self._leaving

    def use_limit(self, entry: PoolEntry) -> None:
        """Let its bodies take as much memory as the file says; on a port of its own the transport sees to that."""
        self.entry = entry
        self.target.limit_bytes = (entry.max_buffered_bytes or 0) if self.door.is_shared else 0

    # ── life ──

    def begin(self) -> None:
        """Try until it is served, and again when it is lost, until ``stop``."""
        self._task = asyncio.create_task(self._run(), name=f"pool {self.name}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It goes on until it is cancelled: anything else is a defect, after which nothing of this pool is tried again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("pool is not looked after any more", exc=error, pool=self.name)

    def reload(self) -> None:
        """Look again at its files."""
        self._asked.set()
        if self.served is not None:
            self.served.reload()

    def look(self) -> None:
        """Ask plugins with a readiness of their own."""
        if self.served is not None:
            self.served.look_at_plugins()

    def retire(self) -> None:
        """It is no longer in the file: stop it when its last request is over."""
        if self.served is not None:
            self.served.unfollow()
        self.target.retire(lambda: self._leave(self.stop()))

    async def give_up(self) -> None:
        """Stop it, as it could not be served."""
        await self._told(self.stop())

    async def stop(self) -> None:
        """Stop it; no request may run. Raises as ``ServedPool.stop`` does."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(task for task in self._leaving if task is not asyncio.current_task()), return_exceptions=True)
        served, self.served = self.served, None
        self.target.handler = None
        try:
            if served is not None:
                await served.stop()
        finally:
            await self._threads.stop()

    async def _run(self) -> None:
        log.bind_pool(self.name)
        while True:
            self._asked.clear()
            watch = FileWatch(self._files(), debounce_s=DEBOUNCE_S, poll_s=POLL_S)
            is_document = await self._try()
            self.tried.set()
            if self.served is not None:
                await self.served.pool.discovery_lost.wait()
                self._asked.clear()
                await self._lose(self.served)
            await self._again(watch, None if is_document else RETRY_S)

    async def _again(self, watch: FileWatch, wait_s: float | None) -> None:
        """Wait for a reason to try once more."""
        stop = asyncio.Event()
        watching = asyncio.create_task(watch.run(self._asked.set, stop)) if self.options.watch_config_file else None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._asked.wait()
        finally:
            stop.set()
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    def _files(self) -> list[Path]:
        return [Path(file) for file in (self.entry.config_file, self.entry.shadow_config_file, *self.entry.objects) if file]

    async def _try(self) -> bool:
        """Try to serve it.

        Returns:
            It failed, and a document says so: trying again without another one is in vain.
        """
        is_document = True
        try:
            config, shadow = await self._in_thread(self._read)
            is_document = False
            await self._serve(config, shadow)
        except ConfigError as error:
            self._failed([text_line(finding) for finding in error.findings], error.findings)
            return is_document
        except UsageError as error:
            self._failed(error.problems)
        except Exception as error:  # noqa: BLE001 — whatever a plugin raises at its start, the other pools serve on
            self._failed([f"{type(error).__name__}: {error}"])
        return False

    async def _serve(self, config: LoadedConfig, shadow: ShadowSettings | None) -> None:
        """Make it of its document, and start it.

        Raises:
            ConfigError, UsageError: it cannot be made. Whatever its plugins raise.
        """
        check_discovery(self.options, config)
        cluster = await self._parts.cluster() if is_in_cluster(self.options, config) else None
        settings = SettingsOfPool(self.door.settings, self.name, self.target.use_places)
        shared = Shared(self.door.transport, settings, self.health, self._parts.tracing, cluster)
        served: ServedPool = await self._in_thread(lambda: ServedPool(self.options, config, shared, shadow=shadow))
        try:
            await served.start()
        except BaseException:
            await self._told(served.stop())
            raise
        if not self.door.is_shared:
            served.metrics.watch_transport(self.door.transport.stats)
        self.served, self.state = served, State.SERVED
        self.target.handler = served.pool.director
        self.last = Attempt(Reloaded.SUCCESS, time.time(), findings=config.findings)
        served.follow()
        served.look_at_plugins()
        _logger.info("pool served", endpoints=len(served.pool.store), sha256=config.sha256)
        self._changed()

    def _read(self) -> tuple[LoadedConfig, ShadowSettings | None]:
        config = Loader(self.options)() if self.options.config_file else load(self.options)
        return config, load_shadow(self.options)

    def _in_thread(self, work: Callable[[], Any]) -> Awaitable[Any]:
        return self._threads.offload(copy_context().run, work)

    def _failed(self, problems: list[str] | tuple[str, ...], findings: tuple[Finding, ...] = ()) -> None:
        for problem in problems:
            _logger.error("pool not loaded", file=self.entry.config_file, problem=problem)
        self.last = Attempt(Reloaded.FAILURE, time.time(), tuple(problems), findings)
        self._is_away(problems[0] if problems else "unknown")

    async def _lose(self, served: ServedPool) -> None:
        """Its discovery has ended: it is stopped when its last request is over, and begins anew."""
        problem = "discovery has ended"
        try:
            await served.pool.raise_lost()
        except Exception as error:  # noqa: BLE001 — told
            problem = str(error) or type(error).__name__
        self.served, self.target.handler = None, None
        served.unfollow()
        served.pool.refuse_queued()
        former, self.target = self.target, PoolTarget(self.name)
        self.use_limit(self.entry)
        former.retire(lambda: self._leave(served.stop()))
        self._failed([problem])

    def _is_away(self, problem: str) -> None:
        self.state = State.NOT_LOADED
        self.health.set_not_ready("plugins", "not started")
        self.health.set_not_ready("pool", f"not loaded: {problem}")
        self._changed()

    async def _told(self, stop: Coroutine[Any, Any, None]) -> None:
        """Stop what nobody waits for: a failure is told, the other pools serve on."""
        try:
            await stop
        except Exception as error:  # noqa: BLE001 — told
            _logger.error("pool not stopped in order", exc=error, pool=self.name)

    def _leave(self, stop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._told(stop))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _changed(self) -> None:
        self._parts.on_change(self)
