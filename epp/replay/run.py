"""One configuration under one load: the picker that ``epp serve`` runs, on simulated servers, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from epp.config.loaded import LoadedConfig
from epp.datalayer.objects import PoolIdentity
from epp.errors import EppError
from epp.framework import log
from epp.pool.build import request_readers
from epp.pool.pool import Pool
from epp.pool.settings import PoolSettings, Surroundings
from epp.process.runtime import TaskRuntime
from epp.replay.exchange import Exchange
from epp.replay.load import Trace
from epp.replay.options import ReplayOptions
from epp.replay.outcome import Outcome
from epp.replay.servers import ReplayServer, ServerDiscovery, ServerPages
from epp.replay.virtual_time import VirtualTimeLoop
from epp.seam import Request, total
from epp.telemetry.choice import Choice, choice_of
from epp.telemetry.decision_log import LoggedDecisions
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, Why
from epp.telemetry.metrics import Metrics

_logger = log.get("epp.replay")

WARM_UP_S = 1.0
"""Before the first request: each server's metrics have been read."""
SAMPLE_S = 1.0
"""Between two looks at the servers' queues."""
STUCK_S = 3600.0
"""Nothing was over for so long, and nothing new came: it never will be."""

OnProgress = Callable[[int], None]
"""Told how many requests are over."""


class ReplayError(EppError):
    """A replay that does not come to its end."""


@dataclass(frozen=True, slots=True)
class QueueSample:
    """All servers at one moment."""

    at_s: float
    """From the beginning of the replay."""
    waiting: tuple[int, ...]
    """Requests in each server's queue."""
    running: tuple[int, ...]
    """Requests in each server's batch."""


@dataclass(slots=True)
class Run:
    """What became of a load under one configuration."""

    name: str
    sha256: str
    """Of the completed configuration."""
    servers: tuple[str, ...]
    """Names."""
    outcomes: list[Outcome] = field(default_factory=list)
    """In the order of the requests."""
    samples: list[QueueSample] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    """Failures of our own code."""


def replay(
    name: str,
    config: LoadedConfig,
    trace: Trace,
    options: ReplayOptions,
    *,
    explain: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Run:
    """Replay a trace. The same arguments give the same result, in every process.

    Args:
        name: of the configuration, for reports.
        explain: keep why each endpoint was picked.

    Raises:
        ReplayError: requests are left that will never end.
        ConfigError: a plugin refused its values.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_Replay(name, config, trace, options, explain, on_progress).run())


class _Replay:
    """One replay, on the running loop."""

    def __init__(
        self, name: str, config: LoadedConfig, trace: Trace, options: ReplayOptions, explain: bool, on_progress: OnProgress
    ) -> None:
        self._config = config
        self._trace = trace
        self._options = options
        self._on_progress = on_progress
        self._decisions = _Decisions(explain)
        self._begun_s = 0.0
        self._over = 0
        self._last_s = 0.0
        """When something came or was over."""
        self._is_over = asyncio.Event()
        self._is_stuck = False
        self._run = Run(name, config.sha256, ())

    async def run(self) -> Run:
        loop = asyncio.get_running_loop()
        options = self._options
        servers = [ReplayServer(index, options) for index in range(options.servers)]
        self._run.servers = tuple(server.name for server in servers)
        runtime = TaskRuntime()
        ids = random.Random(f"{options.seed} request ids")
        pool = Pool(
            PoolSettings(
                PoolIdentity("replay", "default"),
                refresh_interval_s=options.refresh_interval_s,
                metrics_flags=self._config.flags.metrics_flags,
            ),
            self._config,
            Metrics(),
            runtime,
            runtime.spawn,
            self._on_defect,
            discovery=ServerDiscovery(servers),
            surroundings=Surroundings(
                clock=loop.time,
                stopwatch=loop.time,
                seeds=random.Random(options.seed),
                new_request_id=lambda: str(UUID(int=ids.getrandbits(128), version=4)),
                pages=lambda: ServerPages(servers),
                decisions=self._decisions,
            ),
        )
        try:
            await pool.start()
            await asyncio.sleep(WARM_UP_S)
            self._begun_s = self._last_s = loop.time()
            sampling = asyncio.create_task(self._sample(servers))
            await self._send(pool, servers)
            await self._is_over.wait()
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
            if self._is_stuck:
                left = len(self._run.outcomes) - self._over
                raise ReplayError(f"{self._run.name}: {left} requests wait, and nothing has happened for {STUCK_S:g} s")
        finally:
            await pool.pause()
            await runtime.stop()
            await pool.stop()
        return self._run

    async def _send(self, pool: Pool, servers: list[ReplayServer]) -> None:
        """Let every request come when it is due."""
        loop = asyncio.get_running_loop()
        handler = total(pool.director, self._on_defect)
        by_address = {server.endpoint.address: (index, server) for index, server in enumerate(servers)}
        readers = request_readers(self._config)
        for recorded in self._trace.requests:
            at_s = (recorded.at_s - self._trace.start_s) * self._options.time_scale
            delay_s = self._begun_s + at_s - loop.time()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            outcome = Outcome(recorded.line, at_s)
            self._run.outcomes.append(outcome)
            self._last_s = loop.time()
            exchange = Exchange(recorded, outcome, handler, by_address, self._decided, self._ended)
            exchange.begin(self._options.model, readers)

    def _decided(self, outcome: Outcome) -> None:
        outcome.choice = self._decisions.take()

    def _ended(self, _: Outcome) -> None:
        self._last_s = asyncio.get_running_loop().time()
        self._over += 1
        self._on_progress(self._over)
        if self._over == len(self._trace.requests):
            self._is_over.set()

    async def _sample(self, servers: list[ReplayServer]) -> None:
        """Look at the queues now and then."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            for server in servers:
                server.driver.settle()
            engines = [server.engine for server in servers]
            self._run.samples.append(
                QueueSample(
                    now_s - self._begun_s, tuple(each.waiting for each in engines), tuple(each.running for each in engines)
                )
            )
            if now_s - self._last_s > STUCK_S and self._over < len(self._run.outcomes):
                self._is_stuck = True
                self._is_over.set()
            await asyncio.sleep(SAMPLE_S)

    def _on_defect(self, place: str, error: Exception) -> None:
        self._run.defects.append(f"{place}: {type(error).__name__}: {error}")
        _logger.error("internal error", exc=error, place=place)


class _Decisions:
    """Keeps the choice of each decision until it is fetched, which is at once; logs as `epp serve` does.

    Args:
        wanted: there are to be records.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._log = LoggedDecisions()
        self._last: Choice | None = None

    def wants(self, request: Request) -> Why:
        return Why.LOG if self._wanted or self._log.wants(request) else Why.NOTHING

    def wants_failure(self) -> bool:
        return False

    def decided(self, record: DecisionRecord) -> None:
        if record.why is Why.NOTHING:  # of a refusal
            return
        self._last = choice_of(record)
        if self._log.wants(record):
            self._log.decided(record)

    def over(self, kept: object, outcome: OutcomeRecord, record: Callable[[], DecisionRecord]) -> None:
        """Nothing is kept."""

    def take(self) -> Choice | None:
        last, self._last = self._last, None
        return last
