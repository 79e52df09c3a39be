"""The simulated servers of a replay: engines without a network, and their metrics pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Many

from epp.datalayer.page_rounds import Page
from epp.framework.interfaces import EndpointNotifier
from epp.framework.types import Endpoint
from epp.replay.options import ReplayOptions
from epp.replay.work import Work
from epp.simulate.driver import EngineDriver
from epp.simulate.engine import Engine
from epp.simulate.metrics import MetricsRenderer
from epp.simulate.options import MetricsPage, ServerOptions

PORT = 8000
_PAGE_PATH = "/metrics"


class ReplayServer:
    """One server; runs on the event loop that is there when it is made.

    Args:
        index: counted from 0.
        options: of the replay.
    """

    def __init__(self, index: int, options: ReplayOptions) -> None:
        server = ServerOptions(
            engine=options.engine, models=(options.model,), lora=options.lora, metrics_page=MetricsPage.SMALL
        ).with_seed(options.engine.seed + index)
        high, low = divmod(index, 250)
        self.name = f"sim-{index}"
        self.endpoint = Endpoint.of(self.name, f"10.0.{high}.{low + 1}", PORT, dict(options.labels_of(index)))
        self.driver = EngineDriver(Engine(server.engine))
        self.work = Work(server.engine.seed, options.lora)
        clock = asyncio.get_running_loop().time
        self._renderer = MetricsRenderer(server, self.driver.engine, clock, clock)

    @property
    def engine(self) -> Engine:
        """To be read only."""
        return self.driver.engine

    def page(self) -> bytes:
        """Its metrics page of now."""
        self.driver.settle()
        return self._renderer.page()


class ServerPages:
    """Reads the pages of simulated servers as the native reader reads those of real ones. Implements ``PageReader``.

    A page is that of the moment when it was asked for, and is there a tick later.
    """

    def __init__(self, servers: Many[ReplayServer]) -> None:
        self._servers = {server.endpoint.address: server for server in servers}
        self._targets: dict[int, ReplayServer | str] = {}
        self._came: list[Page] = []

    def set_target(self, key: int, address: str, port: int, host: str, path: str, url: str, families: Many[str] | None) -> None:
        del host, families  # a small page needs no excerpt
        server = self._servers.get(address)
        is_there = server is not None and port == PORT and path == _PAGE_PATH
        self._targets[key] = server if server is not None and is_there else f"simulated servers have no page {url}"

    def remove_target(self, key: int) -> None:
        self._targets.pop(key, None)

    def exchange(self, keys: Many[int]) -> list[Page]:
        came, self._came = self._came, []
        for key in keys:
            target = self._targets[key]
            self._came.append((key, None, target) if isinstance(target, str) else (key, target.page(), None))
        return came

    def close(self) -> None:
        self._targets.clear()


class ServerDiscovery:
    """Finds the simulated servers. Implements ``EndpointDiscovery``."""

    def __init__(self, servers: Many[ReplayServer]) -> None:
        self.ready = asyncio.Event()
        self._endpoints = [server.endpoint for server in servers]

    async def run(self, notifier: EndpointNotifier) -> None:
        """Report them once."""
        notifier.replace_all(self._endpoints)
        self.ready.set()
        await asyncio.Event().wait()

    def reload(self) -> None:
        """They stay."""
