"""One pool as a process serves it: the pool, what it is counted by, its reloads and its pages, from start to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from epp.cluster.connection import ClusterConnection
from epp.config.loaded import LoadedConfig
from epp.framework import log
from epp.framework.interfaces import EndpointDiscovery
from epp.pool.pool import Pool
from epp.pool.settings import Surroundings
from epp.pool.shadow import ShadowSettings
from epp.process.config_reload import ConfigReload
from epp.process.debug_pages import pool_pages
from epp.process.health import Health
from epp.process.live_settings import SettingsOfPool
from epp.process.operator_page import OperatorPage, Shown
from epp.process.options import Options
from epp.process.runtime import TaskRuntime
from epp.process.startup import log_configuration, pool_settings
from epp.seam import Transport
from epp.telemetry.metrics import Build, Metrics, MetricsOptions
from epp.telemetry.tracing import Tracing
from epp.transport.http_server import HttpSources, JsonSource
from epp.version import VERSION, commit

COMPONENTS = ("pool", "plugins")
"""What must be ready before a pool is."""

_logger = log.get("epp.process.served_pool")


@dataclass(frozen=True, slots=True)
class Shared:
    """What a pool has together with others, or with the process."""

    transport: Transport
    """Brings its requests."""
    settings: SettingsOfPool
    """Of that transport."""
    health: Health
    """With ``COMPONENTS``: told of the pool."""
    tracing: Tracing | None = None
    cluster: ClusterConnection | None = None


class ServedPool:
    """A pool with all that is made for it.

    Args:
        options: of the process, as far as they hold for this pool.
        config: its first configuration.
        shared: what it does not have for itself.
        discovery: finds its endpoints, in place of what options and configuration name.
        shadow: a second configuration that decides about the same requests.

    Raises:
        UsageError, ConfigError: it cannot be made.
    """

    def __init__(
        self,
        options: Options,
        config: LoadedConfig,
        shared: Shared,
        *,
        discovery: EndpointDiscovery | None = None,
        shadow: ShadowSettings | None = None,
    ) -> None:
        self.options = options
        self._settings = shared.settings
        self.metrics = Metrics(metrics_options(options))
        self.health = shared.health
        self.runtime = TaskRuntime()
        self.pool = Pool(
            pool_settings(options),
            config,
            self.metrics,
            self.runtime,
            self.runtime.spawn,
            log_defect,
            discovery=discovery,
            tracing=shared.tracing,
            surroundings=Surroundings(cluster=shared.cluster),
            on_change=self._look_at_pool,
            shadow=shadow,
        )
        self.config_reload = (
            ConfigReload(options, self.pool, shared.settings, self.metrics, self.runtime) if options.config_file else None
        )
        self.page = OperatorPage(
            Shown(options, self.pool, self.metrics, self.health, shared.transport, self.config_reload, self.pool.queues_page),
            self.runtime,
        )
        self._unfollowed = asyncio.Event()
        self.is_stopped = False

    # ── life ──

    async def start(self) -> None:
        """Start the pool, and wait for its first endpoints.

        Raises:
            UsageError: a plugin wants a request reader that there is not. What ``Pool.start`` raises.
        """
        log_configuration(self.pool.generation.instances)
        self._settings.check(self.pool.generation.config)
        await self.pool.start()
        self._settings.use(self.pool.generation.config)
        self._look_at_pool()

    def follow(self) -> None:
        """It serves: from now on its configuration may change, and its last minutes are sampled."""
        if self.config_reload is not None:
            _ = self.runtime.spawn(self.config_reload.run(), "configuration")
            if self.options.watch_config_file:
                _ = self.runtime.spawn(self.config_reload.follow(self._unfollowed), "configuration file")
        _ = self.runtime.spawn(self.page.sample(), "last minutes")

    def unfollow(self) -> None:
        """It serves what has begun and nothing new: its configuration stays as it is."""
        self._unfollowed.set()

    @property
    def may_wait(self) -> bool:
        """Readiness of its plugins may change."""
        return self.pool.generation.has_gates or self.config_reload is not None

    def look_at_plugins(self) -> None:
        """Ask those with a readiness of their own."""
        waiting = self.pool.generation.waiting()
        if waiting:
            self.health.set_not_ready("plugins", f"{', '.join(waiting)} not ready")
        else:
            self.health.set_ready("plugins")

    def reload(self) -> None:
        """Look again at its files."""
        self.pool.reload()
        if self.config_reload is not None:
            self.config_reload.ask()

    async def stop(self) -> None:
        """Stop every part, whatever becomes of the others; no request may run.

        Raises:
            Exception: the first failure, when all parts have been stopped.
        """
        self.is_stopped = True
        self.unfollow()
        self.page.feed.close()
        await stop_all([self.pool.pause, self.runtime.stop, self.pool.stop])

    # ── what is shown ──

    @property
    def sources(self) -> HttpSources:
        """Its pages."""
        posts: Mapping[str, JsonSource] = {"/debug/explain": lambda asked: self.pool.rehearse(asked.body)}
        return HttpSources(
            metrics=self.metrics,
            not_ready=self.health.why,
            pages={**pool_pages(self.pool, self.config_reload), **self.page.pages},
            answers=self.page.answers,
            posts=posts,
        )

    def _look_at_pool(self) -> None:
        problem = self.pool.problem
        if problem:
            self.health.set_not_ready("pool", problem)
        else:
            self.health.set_ready("pool")


def metrics_options(options: Options) -> MetricsOptions:
    """What is exposed."""
    return MetricsOptions(
        build=Build(VERSION, commit(), os.environ.get("EPP_BUILD_REF", "")),
        legacy=options.legacy_metrics,
        stream_metrics=options.enable_grpc_stream_metrics,
        fairness_id_limit=options.fairness_id_metric_label_limit,
    )


def log_defect(place: str, error: Exception) -> None:
    """Tell of a failure of our own."""
    _logger.error("internal error", exc=error, place=place)


async def stop_all(parts: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Stop every part in this order, whatever becomes of the others.

    Raises:
        Exception: the first failure, when all have been stopped.
    """
    failures: list[Exception] = []
    for stop in parts:
        try:
            await stop()
        except Exception as error:  # noqa: BLE001 — raised below, when the others are stopped
            failures.append(error)
    if failures:
        raise failures[0]
