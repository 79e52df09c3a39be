"""The page for operators, made of one pool: what its events hold, and the clock by which its last minutes are sampled."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from epp.config.effective import to_yaml
from epp.errors import PageError
from epp.framework import log
from epp.page.feed import Event, Feed
from epp.page.history import EVERY_S, History
from epp.page.static_files import PREFIX, static_pages
from epp.pool.pool import Pool
from epp.process.config_reload import ConfigReload
from epp.process.health import Health
from epp.process.options import Options
from epp.process.runtime import TaskRuntime
from epp.seam import Transport
from epp.telemetry.metrics import Metrics
from epp.telemetry.totals import totals_of
from epp.transport.http_server import JsonSource, Page, PageRequest
from epp.version import VERSION, commit

_logger = log.get("epp.process.operator_page")

DECISIONS = 50
"""The newest, on the page; and as many of those that went wrong."""
SEARCHED = 2000
"""Decisions among which these are looked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page looks at."""

    options: Options
    pool: Pool
    metrics: Metrics
    health: Health
    transport: Transport
    reload: ConfigReload | None
    """None if the configuration has no file."""
    queues: Callable[[], object] | None = None
    """What ``/debug/queues`` shows; None where nothing queues."""


class OperatorPage:
    """Files, events and the last minutes.

    Args:
        shown: what it looks at.
        runtime: renders in a thread.
    """

    def __init__(self, shown: Shown, runtime: TaskRuntime) -> None:
        self._shown = shown
        self._runtime = runtime
        self._history = History()
        self._started_s = time.time()
        self.feed = Feed(
            [
                Event("config", self._config, self._config_version, _rendered_config),
                Event("shadow", shown.pool.shadow_page, lambda: shown.pool.shadow_version),
                Event("history", self._history.as_json, lambda: self._history.count),
                Event("state", self._state),
            ],
            runtime.offload,
        )

    @property
    def answers(self) -> Mapping[str, Page]:
        """Files and the stream, by path."""
        return {**static_pages(), f"{PREFIX}events": self.feed.page}

    @property
    def pages(self) -> Mapping[str, JsonSource]:
        """What the page asks for when somebody looks closer."""
        return {f"{PREFIX}decisions/": self._decision}

    @property
    def samples(self) -> int:
        """Taken so far."""
        return self._history.count

    async def sample(self) -> None:
        """Take a sample every few seconds, until cancelled: all that there is to do while no page is open."""
        while True:
            try:
                await self._sample()
            except Exception as error:  # noqa: BLE001 — one that fails leaves a gap, the next may succeed
                _logger.error("sample of the last minutes failed", exc=error)
            await asyncio.sleep(EVERY_S)

    async def _sample(self) -> None:
        totals = await self._runtime.offload(totals_of(self._shown.metrics))
        pool = self._shown.pool
        self._history.add(pool.snapshot(), pool.ledger.running, totals)

    def _state(self) -> object:
        options, pool, stats = self._shown.options, self._shown.pool, self._shown.transport.stats()
        identity = pool.settings.identity
        return {
            "at": time.time(),
            "startedAt": self._started_s,
            "version": VERSION,
            "commit": commit(),
            "pod": options.pod_name,
            "pool": {"name": identity.name, "namespace": identity.namespace},
            "notReady": list(self._shown.health.why()),
            "staleAfterSeconds": options.metrics_staleness_threshold_s,
            "inFlight": pool.ledger.running,
            "openStreams": stats.open_streams,
            "bufferedBytes": stats.buffered_bytes,
            "endpoints": pool.endpoints_page(),
            "queues": self._shown.queues() if self._shown.queues is not None else None,
            "decisions": self._decisions(),
            "explainShare": options.explain_share,
        }

    def _decisions(self) -> object:
        ring = self._shown.pool.decisions.ring
        bad = (kept for kept in islice(ring.newest(), SEARCHED) if kept.is_bad)
        return {
            "kept": len(ring),
            "newest": [kept.summary() for kept in islice(ring.newest(), DECISIONS)],
            "bad": [kept.summary() for kept in islice(bad, DECISIONS)],
        }

    def _config_version(self) -> object:
        reload = self._shown.reload
        return self._shown.pool.loaded_at_s, reload.last if reload is not None else None

    def _config(self) -> object:
        pool, reload = self._shown.pool, self._shown.reload
        last = reload.last if reload is not None else None
        return {
            **pool.config_page(),
            "former": pool.former_config,
            "isFile": reload is not None,
            "isWatched": self._shown.options.watch_config_file,
            "reload": last.as_json() if last is not None else None,
        }

    async def _decision(self, asked: PageRequest) -> object | None:
        if not asked.rest.isdecimal() or len(asked.rest) > 18:
            raise PageError(f"a decision has a number, not {asked.rest!r}")
        return self._shown.pool.numbered_decision_page(int(asked.rest))


def _rendered_config(state: object) -> object:
    """Documents as YAML, and what is different between the last two."""
    assert isinstance(state, dict)
    text = to_yaml(state["effective"])
    former = state["former"]
    shown = {**state, "effective": text, "former": None}
    if former is not None:
        before = to_yaml(former.effective).splitlines()
        lines = difflib.unified_diff(before, text.splitlines(), lineterm="", n=2)
        shown["former"] = {"sha256": former.sha256, "loadedAt": former.loaded_at_s, "diff": list(lines)[2:]}
    return shown
