"""The pools of a pools file, served by one process: their ports, their pages, and what happens when the file changes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from epp.cluster.connection import ClusterConnection
from epp.errors import UsageError
from epp.framework import log
from epp.pools.choice import Rule
from epp.pools.load import PoolEntry, PoolsFile
from epp.pools.models import ModelUnion
from epp.process.door import Door, Together, sum_of
from epp.process.health import Health
from epp.process.options import Options
from epp.process.pool_place import PlaceParts, PoolPlace
from epp.process.pools_facts import series_of, servers_of, why_none
from epp.process.pools_pages import PoolsPages
from epp.process.pools_reload import PoolsReload, as_made
from epp.process.runtime import TaskRuntime
from epp.process.served_pool import ServedPool, metrics_options, stop_all
from epp.seam import Port, Transport
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.metrics import Metrics
from epp.telemetry.tracing import Tracing
from epp.transport.http_server import HttpServer, HttpSources

START_S = 10.0
"""How long the others wait at the start for a pool that neither serves nor fails."""
COMPONENT = "pools"
"""Of the process's health: at least one is ready."""

_logger = log.get("epp.process.many_pools")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the process has made."""

    options: Options
    transport: Transport
    """Of the port that pools share."""
    health: Health
    """With ``COMPONENT``."""
    runtime: TaskRuntime
    make_transport: Callable[[], Transport]
    """For a pool with a port of its own."""
    tracing: Tracing | None
    cluster: Callable[[], Awaitable[ClusterConnection]]


class ManyPools:
    """All pools of a file.

    Args:
        file: as it was loaded at the start.
        parts: what the process has made.
    """

    def __init__(self, file: PoolsFile, parts: Parts) -> None:
        options = parts.options
        self.file = file
        self.options = options
        self._health = parts.health
        self._runtime = parts.runtime
        self.metrics = Metrics(metrics_options(options))
        self.metrics.watch_transport(lambda: sum_of(transport.stats() for transport in self.transports))
        self.metrics.watch_pools(lambda: series_of(self.places))
        self._models = ModelUnion(lambda: servers_of(self.served, options))
        together = Together(self._models, parts.runtime.spawn)
        self._shared = Door(options, parts.transport, self._refused, together)
        self._own = {
            entry.name: Door(self._options_of_port(entry), parts.make_transport(), self._refused)
            for entry in file.pools
            if entry.grpc_port is not None
        }
        self._leads = self._is_drained = False
        self._place_parts = PlaceParts(options, parts.tracing, parts.cluster, self._changed)
        self.places = {entry.name: self._place(entry) for entry in file.pools}
        self._others: list[PoolPlace] = []
        """That are being loaded, or have requests but no place in the file any more."""
        self.ports: dict[str, int] = {}
        """Of pools with a port of their own."""
        self.reload_of_file = PoolsReload(options, self, self.metrics, parts.runtime)
        self._pages = PoolsPages(self)
        self._http: HttpServer | None = None

    # ── as the process sees it ──

    @property
    def served(self) -> list[ServedPool]:
        """The pools that are loaded."""
        return [place.served for place in self.places.values() if place.served is not None]

    @property
    def transports(self) -> list[Transport]:
        """Of all ports; the shared one first."""
        return [self._shared.transport, *(door.transport for door in self._own.values())]

    @property
    def sources(self) -> HttpSources:
        """The pages of the process."""
        return self._pages.sources(self._health.why)

    @property
    def may_wait(self) -> bool:
        """Readiness of plugins may change."""
        return any(served.may_wait for served in self.served)

    async def start(self) -> None:
        """Try all pools; return when each is served or has failed, or has kept the others waiting for long enough.

        Raises:
            ConfigError, OSError: none can be served.
        """
        for place in self.places.values():
            place.begin()
        waiting = [asyncio.create_task(place.tried.wait()) for place in self.places.values()]
        await asyncio.wait(waiting, timeout=START_S)
        while not self.served and not all(task.done() for task in waiting):
            await asyncio.wait(waiting, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self.served:
            raise why_none(self.places)

    async def listen(self, ports: Sequence[Port]) -> list[int]:
        """Serve on the shared ports and on those of pools; returns the numbers of the shared ones.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings cannot be used.
        """
        self._use_rules()
        self._look_at_health()
        numbers = await self._shared.listen(ports)
        for name, door in self._own.items():
            place = self.places[name]
            port = ports[0]._replace(port=place.entry.grpc_port or 0)
            door.transport.set_health(place.health.table())
            try:
                [self.ports[name]] = await door.listen([port])
            except UsageError as error:
                raise UsageError([f"grpcPort of the pool {name}: {problem}" for problem in error.problems]) from error
        return numbers

    def show(self, http: HttpServer) -> None:
        """Show each pool's pages below its name."""
        self._http = http
        self._pages.mount(http)

    def follow(self) -> None:
        """The process serves: from now on the file may change."""
        self.reload_of_file.begin()

    def look(self) -> None:
        """Ask plugins with a readiness of their own."""
        for place in self.places.values():
            place.look()

    async def lost(self) -> None:
        """Never: a pool that is lost is no reason to stop the others."""
        await asyncio.Event().wait()

    def set_leading(self, leads: bool) -> None:
        """Leadership was won or lost."""
        self._leads = leads
        self._health.set_leading(leads)
        for place in self.places.values():
            place.health.set_leading(leads)

    def drain(self) -> None:
        """Not ready from now on."""
        self._is_drained = True
        self._health.drain()
        for place in self.places.values():
            place.health.drain()

    def step_down(self) -> None:
        """Another replica leads."""
        for served in self._all_served():
            served.pool.step_down()

    def refuse_queued(self) -> None:
        """The process stops: refuse what waits and what still comes."""
        for served in self._all_served():
            served.pool.refuse_queued()

    def reload(self) -> None:
        """Look again at the file, and at all files of all pools."""
        self.reload_of_file.ask()
        for place in self.places.values():
            place.reload()

    def reload_certificate(self) -> None:
        """Read the certificate of the ext_proc ports again. Raises as ``LiveSettings.reload_certificate`` does."""
        for door in (self._shared, *self._own.values()):
            door.settings.reload_certificate()

    def close_pages(self) -> None:
        """End the streams of open pages."""
        for served in self._all_served():
            served.page.feed.close()

    async def stop(self) -> None:
        """Stop all pools; no request may run. Raises the first failure."""
        await stop_all([self.reload_of_file.stop, self._stop_places, self._models.close])

    # ── another file ──

    def serves(self, file: PoolsFile) -> bool:
        """All pools are as this file says, in its order."""
        return tuple(place.entry for place in self.places.values()) == file.pools

    async def use(self, file: PoolsFile) -> list[str]:
        """Serve by another file, as far as it can be served.

        New requests are chosen for by it at once; a pool that is new, or that is another than before, is loaded first. One that
        cannot be loaded keeps the pool before it in its place.

        Returns:
            Why some pools stay as they were.
        """
        made = {entry.name: self._place(entry) for entry in file.pools if self._is_new(entry)}
        self._others += made.values()  # whatever happens while they are loaded, they are stopped
        for place in made.values():
            place.begin()
        waiting = [asyncio.create_task(place.tried.wait()) for place in made.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=START_S)
        for task in waiting:
            task.cancel()
        problems = []
        for name, place in list(made.items()):
            former = self.places.get(name)
            if place.served is None and former is not None and former.served is not None:
                why = "; ".join(place.last.problems) if place.last is not None else f"not ready after {START_S:g} s"
                problems.append(f"pools: {name}: the pool in use stays: {why}")
                del made[name]
                await place.give_up()
        self._exchange(file, made)
        return problems

    def _is_new(self, entry: PoolEntry) -> bool:
        """It takes a pool that is made anew."""
        place = self.places.get(entry.name)
        return place is None or as_made(place.entry) != as_made(entry)

    def _exchange(self, file: PoolsFile, made: Mapping[str, PoolPlace]) -> None:
        before, self.file = self.places, file
        self.places = {}
        for entry in file.pools:
            place = self.places[entry.name] = made.get(entry.name) or before[entry.name]
            if entry.name in made:
                continue
            if as_made(place.entry) == as_made(entry):
                place.use_limit(entry)
            else:  # the former pool stays, chosen for as the file says
                place.use_limit(dataclasses.replace(place.entry, match=entry.match, is_default=entry.is_default))
        used = self.places.values()
        gone = [place for place in before.values() if place not in used]
        self._others = [place for place in (*self._others, *gone) if place not in used and not place.is_over]
        self._use_rules()
        for place in gone:
            if place.name not in self.places:
                self._shared.settings.forget(place.name)
            place.retire()
        self._look_at_health()
        if self._http is not None:
            self._pages.mount(self._http)

    # ── parts ──

    def _all_served(self) -> list[ServedPool]:
        return [*self.served, *(place.served for place in self._others if place.served is not None)]

    async def _stop_places(self) -> None:
        await stop_all([place.stop for place in (*self._others, *self.places.values())])

    def _place(self, entry: PoolEntry) -> PoolPlace:
        place = PoolPlace(entry, self._own.get(entry.name, self._shared), self._place_parts)
        place.health.set_leading(self._leads)
        if self._is_drained:
            place.health.drain()
        return place

    def _options_of_port(self, entry: PoolEntry) -> Options:
        limit = entry.max_buffered_bytes
        return self.options if limit is None else dataclasses.replace(self.options, max_buffered_bytes=limit)

    def _changed(self, place: PoolPlace) -> None:
        """A pool is loaded, lost, ready or not any more."""
        if self.places.get(place.name) is not place:
            return
        self._use_rules()
        self._look_at_health()
        door = self._own.get(place.name)
        if door is not None:
            door.transport.set_health(place.health.table())
        if self._http is not None:
            self._pages.mount(self._http)

    def _use_rules(self) -> None:
        shared = [place for place in self.places.values() if place.door.is_shared]
        self._shared.choice.use([Rule(place.entry.match, place.target, place.entry.is_default) for place in shared])
        for name, door in self._own.items():
            place = self.places.get(name)
            if place is not None:
                door.choice.use([Rule(place.entry.match, place.target, is_default=True)])

    def _look_at_health(self) -> None:
        self._health.set_named({name: place.health.ready for name, place in self.places.items()})
        if any(place.health.ready for place in self.places.values()):
            self._health.set_ready(COMPONENT)
        else:
            reasons = [f"{name}: {', '.join(place.health.why())}" for name, place in self.places.items()]
            self._health.set_not_ready(COMPONENT, "; ".join(reasons))

    def _refused(self, pool: str, reason: str) -> None:
        self.metrics.counter(f"{PREFIX}pool_refusals_total", pool=pool, reason=reason).inc()
