"""Following the configuration file: another document is loaded beside the running one and takes its place if it can.

Whatever is wrong with it changes nothing and is told: in the log with every finding, in metrics, and on ``/debug/config``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from epp.config.changes import Changes, compare
from epp.config.findings import json_records, text_line
from epp.config.loaded import LoadedConfig
from epp.errors import ConfigError, Finding, UsageError
from epp.framework import log
from epp.framework.file_watch import FileWatch
from epp.framework.handle import Runtime
from epp.pool.build import request_readers
from epp.pool.pool import Pool
from epp.process.live_settings import SettingsOfPool
from epp.process.options import Options
from epp.process.startup import Loader, log_configuration
from epp.telemetry.metrics import Metrics, Reloaded

DEBOUNCE_S = 0.5
"""After the last event: editors and volumes write in several steps."""
POLL_S = 10.0
"""For file systems without events."""
_TURN_S = 0.0005
"""A thread that computes holds requests up for as long each time the event loop has waited for something."""

_logger = log.get("epp.process.config_reload")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one document."""

    result: Reloaded
    at_s: float
    """Unix time."""
    problems: tuple[str, ...] = ()
    """Why it is not used, or the paths for which a restart is required."""
    findings: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, object]:
        """For the page."""
        return {
            "result": self.result.value,
            "at": datetime.fromtimestamp(self.at_s, UTC).isoformat(),
            "problems": list(self.problems),
            "findings": json_records(self.findings),
        }


class ConfigReload:
    """Loads the document again when it is asked to.

    Args:
        options: of the process; names the file.
        pool: whose configuration it is.
        settings: of the transport, which does what plugins want of requests.
        metrics: where attempts are counted.
        runtime: loads in a thread.
    """

    def __init__(self, options: Options, pool: Pool, settings: SettingsOfPool, metrics: Metrics, runtime: Runtime) -> None:
        self._path = options.config_file
        self._load = Loader(options)
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._runtime = runtime
        self._asked = asyncio.Event()
        self.last: Attempt | None = None
        """The last attempt."""

    def ask(self) -> None:
        """Have the document loaded soon; one attempt serves all who asked before it began."""
        self._asked.set()

    async def run(self) -> None:
        """Serve those who ask, one after the other, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            with _short_turns():
                self.last = await self.attempt()

    async def follow(self, stop: asyncio.Event) -> None:
        """Ask whenever the file changes; also now, if it changed since it was loaded."""
        watch = FileWatch([Path(self._path)], debounce_s=DEBOUNCE_S, poll_s=POLL_S)
        if await asyncio.to_thread(digest_of, self._path) != self._pool.generation.config.digest:
            self.ask()
        await watch.run(self.ask, stop)

    async def attempt(self) -> Attempt:
        """Load the document and use it, if it can be used."""
        now = time.time()
        try:
            config = await self._runtime.offload(self._load)
            changes = self._compare(config)
            if changes.is_nothing:
                self._metrics.config_reloaded(Reloaded.NOOP)
                _logger.info("configuration unchanged", file=self._path, sha256=config.sha256)
                return Attempt(Reloaded.NOOP, now)
            if changes.restart:
                return self._restart_required(config, changes, now)
        except ConfigError as error:
            self._metrics.config_reloaded(Reloaded.FAILURE)
            return self._failed(tuple(text_line(finding) for finding in error.findings), now, error.findings)
        try:
            changes = await self._use(config)
        except ConfigError as error:
            return self._failed(tuple(text_line(finding) for finding in error.findings), now, error.findings)
        except UsageError as error:
            self._metrics.config_reloaded(Reloaded.FAILURE)
            return self._failed(tuple(error.problems), now)
        except Exception as error:  # noqa: BLE001 — whatever a plugin raises at its start, the running ones serve on
            return self._failed((f"{type(error).__name__}: {error}",), now)
        _logger.info("configuration reloaded", file=self._path, sha256=config.sha256, details=_shown(changes))
        log_configuration(self._pool.generation.instances)
        return Attempt(Reloaded.SUCCESS, now, findings=config.findings)

    def _compare(self, config: LoadedConfig) -> Changes:
        generation = self._pool.generation
        changes = compare(generation.config, config, generation.seen)
        before, after = request_readers(generation.config), request_readers(config)
        if before != after and len(before) == len(after):  # what was read for one pipeline would be taken for another's
            changes = replace(changes, restart=(*changes.restart, "plugins: other readers of request bodies"))
        return changes

    async def _use(self, config: LoadedConfig) -> Changes:
        """Decide new requests by another configuration, and let the transport do what its plugins want of requests.

        Raises:
            ConfigError, UsageError: it cannot be used; nothing has changed. Whatever its plugins raise at their start.
        """
        self._settings.check(config)
        changes = await self._pool.swap(config)
        self._settings.use(config)
        return changes

    def _restart_required(self, config: LoadedConfig, changes: Changes, now: float) -> Attempt:
        self._metrics.config_reloaded(Reloaded.RESTART_REQUIRED)
        for path in changes.restart:
            _logger.error("restart required", file=self._path, path=path, note="nothing of the changed document is used")
        return Attempt(Reloaded.RESTART_REQUIRED, now, changes.restart, config.findings)

    def _failed(self, problems: tuple[str, ...], now: float, findings: tuple[Finding, ...] = ()) -> Attempt:
        for problem in problems:
            _logger.error("configuration not reloaded, the one in use stays", file=self._path, problem=problem)
        return Attempt(Reloaded.FAILURE, now, problems, findings)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """While a thread loads, the event loop gets the interpreter back at once instead of after its usual 5 ms."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


def _shown(changes: Changes) -> dict[str, object]:
    return {
        "changed": list(changes.changed),
        "added": list(changes.added),
        "removed": list(changes.removed),
        "sections": list(changes.sections),
        "carried": len(changes.unchanged),
    }


def digest_of(path: str) -> str:
    """Of a document as it is now; "" if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
