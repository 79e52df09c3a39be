"""The one pool of a process that was started without a pools file: what becomes of it becomes of the process."""

from __future__ import annotations

from collections.abc import Sequence

from epp.cluster.connection import ClusterConnection
from epp.config.loaded import LoadedConfig
from epp.framework.interfaces import EndpointDiscovery
from epp.process.health import Health
from epp.process.live_settings import LiveSettings, SettingsOfPool
from epp.process.options import Options
from epp.process.served_pool import ServedPool, Shared, log_defect
from epp.process.startup import load_shadow
from epp.seam import Port, Transport, total
from epp.telemetry.tracing import Tracing
from epp.transport.http_server import HttpServer, HttpSources


class OnePool:
    """A pool and its port.

    Args:
        options: of the process.
        config: its first configuration.
        transport: brings its requests.
        health: with ``served_pool.COMPONENTS``.
        tracing: traces its requests.
        cluster: where its endpoints are found, if they are in one.
        discovery: finds them, in place of what options and configuration name.

    Raises:
        UsageError, ConfigError: it cannot be made.
    """

    def __init__(
        self,
        options: Options,
        config: LoadedConfig,
        transport: Transport,
        health: Health,
        *,
        tracing: Tracing | None = None,
        cluster: ClusterConnection | None = None,
        discovery: EndpointDiscovery | None = None,
    ) -> None:
        self._settings = LiveSettings(options, transport)
        self._health = health
        shared = Shared(transport, SettingsOfPool(self._settings, options.pool), health, tracing, cluster)
        self._served = ServedPool(options, config, shared, discovery=discovery, shadow=load_shadow(options))
        self._served.metrics.watch_transport(transport.stats)
        self._transport = transport

    @property
    def served(self) -> list[ServedPool]:
        """The pool."""
        return [self._served]

    @property
    def transports(self) -> list[Transport]:
        """The one."""
        return [self._transport]

    @property
    def ports(self) -> dict[str, int]:
        """It has none of its own."""
        return {}

    @property
    def sources(self) -> HttpSources:
        """The pages of the process are those of the pool."""
        return self._served.sources

    @property
    def may_wait(self) -> bool:
        """Readiness of its plugins may change."""
        return self._served.may_wait

    async def start(self) -> None:
        """Start it, and wait for its first endpoints. Raises as ``ServedPool.start`` does."""
        await self._served.start()

    async def listen(self, ports: Sequence[Port]) -> list[int]:
        """Serve on these ports; returns their numbers.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings cannot be used.
        """
        return await self._transport.start(total(self._served.pool.director, log_defect), self._settings.first(), ports)

    def show(self, http: HttpServer) -> None:
        """Its pages are there already."""

    def follow(self) -> None:
        """The process serves."""
        self._served.follow()

    def look(self) -> None:
        """Ask plugins with a readiness of their own."""
        self._served.look_at_plugins()

    async def lost(self) -> None:
        """Wait for the end of its discovery.

        Raises:
            OSError: it has come; the endpoints would be frozen for ever.
        """
        await self._served.pool.discovery_lost.wait()
        await self._served.pool.raise_lost()

    def set_leading(self, leads: bool) -> None:
        """Leadership was won or lost."""
        self._health.set_leading(leads)

    def drain(self) -> None:
        """Not ready from now on."""
        self._health.drain()

    def step_down(self) -> None:
        """Another replica leads."""
        self._served.pool.step_down()

    def refuse_queued(self) -> None:
        """The process stops: refuse what waits and what still comes."""
        self._served.pool.refuse_queued()

    def reload(self) -> None:
        """Look again at its files."""
        self._served.reload()

    def reload_certificate(self) -> None:
        """Read the certificate of the ext_proc port again. Raises as ``LiveSettings.reload_certificate`` does."""
        self._settings.reload_certificate()

    def close_pages(self) -> None:
        """End the streams of open pages."""
        self._served.page.feed.close()

    async def stop(self) -> None:
        """Stop it; no request may run. Raises the first failure."""
        await self._served.stop()
