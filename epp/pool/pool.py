"""One pool of endpoints: what is known of it, who decides about its requests, and the generations of its configuration.

Nothing here is global, so that one process may have several pools.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from epp.config.changes import Changes, compare
from epp.config.loaded import Instances, LoadedConfig
from epp.datalayer.collector import Collector
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.objects import ObjectStore
from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.director import Director, DirectorOptions
from epp.decision.ledger import Ledger
from epp.decision.response import ResponseObserver
from epp.discovery.kube_pool import ClusterDiscovery
from epp.discovery.objects_file import ObjectsFiles
from epp.discovery.static import StaticDiscovery, parse_endpoints
from epp.flowcontrol import pages as flow_pages
from epp.flowcontrol.controller import FlowController
from epp.framework import log
from epp.framework.handle import Runtime
from epp.framework.interfaces import EndpointDiscovery
from epp.hooks.runner import Spawn
from epp.plugin_calls.defects import PluginDefects
from epp.pool import pages
from epp.pool.build import data_sources, followers, protocol_problem, request_readers
from epp.pool.flow_control import flow_control_settings, start_flow_control
from epp.pool.generation import Generation, PluginServices
from epp.pool.numbers import PoolNumbers
from epp.pool.object_watches import ObjectWatches
from epp.pool.rehearsal import Rehearsal, RehearsedRequest
from epp.pool.settings import PoolSettings, Surroundings
from epp.pool.shadow import EndedShadow, PoolShadow, ShadowSettings, ShadowState, kept_at_takeover
from epp.telemetry.cache_truth import CacheTruth
from epp.telemetry.decisions import Decisions
from epp.telemetry.flow_control import FlowMetrics
from epp.telemetry.metrics import Metrics, Reloaded
from epp.telemetry.pool import PoolSnapshot
from epp.telemetry.tracing import Tracing

_logger = log.get("epp.pool")


class Pool:
    """A pool, from start to stop.

    Args:
        settings: what the process says about it.
        config: its first configuration.
        metrics: where it is counted.
        runtime: background work of the process.
        spawn: starts a task of the process.
        on_defect: told of our own failures: (place, exception).
        discovery: finds the endpoints in place of what settings and configuration name.
        tracing: traces its requests.
        surroundings: time, chance, metrics pages and a cluster, where they are not the usual ones.
        on_change: told when ``problem`` may have changed.
        shadow: a second configuration that decides about the same requests.

    Raises:
        UsageError, ConfigError: it cannot be made.
    """

    def __init__(
        self,
        settings: PoolSettings,
        config: LoadedConfig,
        metrics: Metrics,
        runtime: Runtime,
        spawn: Spawn,
        on_defect: Callable[[str, Exception], None],
        *,
        discovery: EndpointDiscovery | None = None,
        tracing: Tracing | None = None,
        surroundings: Surroundings | None = None,
        on_change: Callable[[], None] | None = None,
        shadow: ShadowSettings | None = None,
    ) -> None:
        self.settings = settings
        self._tracing = tracing
        self.store = EndpointStore()
        self._around = around = surroundings or Surroundings()
        self.objects = ObjectStore(settings.identity, around.seeds)
        self.ledger = Ledger()
        self._metrics = metrics
        self._spawn = spawn
        self._services = PluginServices(
            metrics,
            runtime,
            spawn,
            PluginDefects(metrics, around.clock),
            PoolNumbers(self.ledger, self.store, settings.staleness_threshold_s, around.clock),
            settings.metrics_flags,
            around.seeds,
            around.clock,
            around.stopwatch,
        )
        self._given_discovery = discovery
        self._cluster = around.cluster
        self._on_change = on_change or (lambda: None)
        self._flow_metrics = FlowMetrics(metrics, settings.identity.name)
        self.flow_control: FlowController | None = None
        """None as long as no configuration had it."""
        self.generation = Generation(config, self._services)
        self.generation.build(self._provide)
        self._use_flow_control(self.generation)
        self.cache_truth = CacheTruth(
            metrics,
            lambda name: self.generation.instances.by_name.get(name),  # noqa: PLW0108 — the generation in use then
            self.store.cache_block_tokens,
        )
        self.store.subscribe(self.cache_truth)
        self.discovery = self._discovery_of(self.generation)
        self.collector = self._collector_of(self.generation)
        self.decisions = Decisions(settings.decisions, clock=around.clock)
        self.director, self._rehearsal, finder = self._directors(on_defect)
        self.shadow = PoolShadow(shadow, self.generation, self._services, self.store, finder) if shadow is not None else None
        """Decides beside the configuration in use; None = there is none, or it was taken over or could not be started."""
        self.ended_shadow: EndedShadow | None = None
        """The shadow that there is no more."""
        self.discovery_lost = asyncio.Event()
        """Discovery has ended by itself: the endpoints would be frozen for ever."""
        self._discovering: asyncio.Task[None] | None = None
        self._object_files: ObjectsFiles | None = None
        self._stopped = asyncio.Event()
        self._retiring: list[Generation] = []
        self._followers: dict[int, PluginFollowers] = {}
        """By the id of the plugin."""
        self._object_watches = ObjectWatches(self._cluster, settings.identity.namespace, self._services.defects, spawn)
        self.loaded_at_s = 0.0
        """When the configuration in use was loaded, Unix time."""
        self.former_config: pages.FormerConfig | None = None
        """What was in use before."""
        metrics.watch_requests(lambda: self.ledger.by_labels)
        metrics.watch_pool(self.snapshot)

    # ── life ──

    async def start(self) -> None:
        """Start everything, and wait for the first endpoints.

        Raises:
            ConfigError, OSError: discovery failed or ended. Whatever a plugin raises when it is started.
        """
        self._follow(self.generation)
        self._start_objects()
        await self.generation.start()
        _logger.info("metrics pages", reader="native" if self.collector.has_reader else "event loop")
        await self.collector.start()
        await self._discover(self.discovery)
        await self._start_shadow()
        self.loaded_at_s = time.time()
        self._metrics.config_loaded(self.generation.config.sha256, self.loaded_at_s)
        if not isinstance(self.discovery, ClusterDiscovery):
            _logger.info("pool synced", endpoints=len(self.store))

    async def swap(self, config: LoadedConfig) -> Changes:
        """Serve new requests by another configuration; those that run end by the one that they began with.

        Endpoints, their metrics, objects and counts stay, and so do plugins that did not change. What is no longer used is
        stopped when the last request is over that began with it.

        Returns:
            What has changed.

        Raises:
            ConfigError, OSError: the new one cannot be used; nothing has changed. Whatever its plugins raise at their start.
        """
        old = self.generation
        changes = compare(old.config, config, old.seen)
        shadow = self.shadow if self.shadow is not None and self.shadow.has_document(config) else None
        try:
            generation = await self._started(config, changes, shadow)
        except Exception:
            self._metrics.config_reloaded(Reloaded.FAILURE)
            raise
        self._metrics.config_reloaded(Reloaded.SUCCESS)
        self.former_config = pages.FormerConfig(old.config.sha256, self.loaded_at_s, old.config.effective)
        self.generation = generation
        if shadow is not None:
            self._take_over(shadow)
        self._follow(generation)
        self._use_flow_control(generation)
        self.director.use(generation.in_use)
        self.loaded_at_s = time.time()
        self._metrics.config_loaded(config.sha256, self.loaded_at_s)
        await self._replace_sources(old, changes)
        self._changed()
        old.watch.forget({*changes.changed, *changes.removed})
        self._retiring.append(old)
        old.in_use.retire(lambda: self._retired(old))
        return changes

    async def _replace_sources(self, old: Generation, changes: Changes) -> None:
        """Read the endpoints by what the new configuration names, where that is something else."""
        sources = {name for source in old.config.sources for name in (source.name, *source.extractors)}
        if old.config.sources != self.generation.config.sources or not sources <= changes.unchanged:
            collector, self.collector = self.collector, self._collector_of(self.generation)
            await collector.stop()
            await self.collector.start()
        discovery = self._discovery_of(self.generation)
        if discovery is not self.discovery:
            self.discovery = discovery
            self._forget_discovery()
            await self._discover(discovery)

    def refuse_queued(self) -> None:
        """The process stops: refuse what waits and what still comes."""
        if self.flow_control is not None:
            self.flow_control.stop()

    def step_down(self) -> None:
        """Another replica leads: refuse what waits, so that its clients try again there; those that still come are served."""
        if self.flow_control is not None:
            self.flow_control.refuse_all()

    async def pause(self) -> None:
        """Learn nothing any more; no request may run."""
        self.refuse_queued()
        self._stopped.set()
        self._forget_discovery()
        self._object_watches.stop()
        await self.collector.stop()

    async def stop(self) -> None:
        """Stop the plugins, when background work has ended that they may have begun."""
        left = self._in_use()
        while left:
            generation = left.pop(0)
            await generation.stop(left)

    def reload(self) -> None:
        """Look again at endpoint and object files."""
        self.discovery.reload()
        if self._object_files is not None:
            self._object_files.reload()

    # ── what is shown ──

    @property
    def problem(self) -> str:
        """Why requests should go to another picker; empty = they may come. A pool without endpoints is no problem."""
        if not isinstance(self.discovery, ClusterDiscovery):
            return ""
        return self.discovery.problem or protocol_problem(self.generation.instances, self.discovery.app_protocol)

    def snapshot(self) -> PoolSnapshot:
        """The pool's gauges."""
        now_s, fresh_s = self._around.clock(), self.settings.staleness_threshold_s
        return pages.pool(self.settings.identity.name, self.store, self.collector, fresh_s, now_s)

    def endpoints_page(self) -> object:
        """``/debug/endpoints``."""
        return pages.endpoints(self.store, self.collector, self._around.clock(), self.cache_truth)

    def config_page(self) -> dict[str, object]:
        """``/debug/config``."""
        return pages.config(self.generation.instances, self.loaded_at_s)

    def plugins_page(self) -> object:
        """``/debug/plugins/state``."""
        return pages.plugins(self.generation.instances)

    def queues_page(self) -> object:
        """``/debug/queues``."""
        return flow_pages.queues(self.flow_control if self._is_controlled else None, self._around.clock())

    def shadow_page(self) -> object:
        """``/debug/shadow``."""
        if self.shadow is None:
            return {"enabled": False, "problem": "", **(self.ended_shadow.as_json() if self.ended_shadow is not None else {})}
        return {"enabled": True, "live": {"sha256": self.generation.config.sha256}, **self.shadow.as_json()}

    @property
    def shadow_version(self) -> object:
        """Another one whenever ``shadow_page`` shows something else, but for the requests that wait to be shown."""
        return self.generation.config.sha256, self.shadow.version if self.shadow is not None else self.ended_shadow

    def decisions_page(self, query: Mapping[str, str]) -> object:
        """``/debug/decisions``.

        Raises:
            PageError: a filter cannot be read.
        """
        return pages.decisions(self.decisions.ring, query)

    def decision_page(self, request_id: str) -> object | None:
        """``/debug/decisions/ID``; None if nothing is kept of such a request."""
        found = self.decisions.ring.of(request_id)
        return {"decisions": [kept.as_json() for kept in found]} if found else None

    def numbered_decision_page(self, number: int) -> object | None:
        """One that is kept, by the number that ``decisions_page`` gives it; None if it is gone."""
        kept = self.decisions.ring.numbered(number)
        return kept.as_json() if kept is not None else None

    async def rehearse(self, document: bytes) -> object:
        """``/debug/explain``: the decision that a request would get.

        Raises:
            PageError: the document cannot be read.
        """
        readers = request_readers(self.generation.config)
        request = await self._services.runtime.offload(RehearsedRequest.of, document, readers)
        return await self._rehearsal.decide(self.generation.in_use.pipeline, request)

    # ── parts ──

    def _provide(self, instances: Instances) -> FlowController | None:
        """Flow control, made for the first configuration that wants it, and used by all later ones; its queues stay."""
        settings = flow_control_settings(instances, self.settings)
        if settings is None:
            return None
        if self.flow_control is None:
            self.flow_control = start_flow_control(
                settings,
                self.store,
                self.objects,
                self._flow_metrics,
                self._services.defects,
                clock=self._around.clock,
                stopwatch=self._around.stopwatch,
            )
        return self.flow_control

    def _use_flow_control(self, generation: Generation) -> None:
        """From now on by this configuration. What waits of one without flow control still goes by its own."""
        settings = flow_control_settings(generation.instances, self.settings)
        self._is_controlled = settings is not None
        if settings is not None and self.flow_control is not None:
            self.flow_control.use(settings)

    async def _started(self, config: LoadedConfig, changes: Changes, shadow: PoolShadow | None) -> Generation:
        """Made in a thread, as factories may read files; of the instances of a shadow, if there is one of the same document."""
        make = partial(Generation, config, self._services, self.generation, changes.unchanged)
        if shadow is not None:
            kept = kept_at_takeover(changes, config)
            make = partial(Generation, config, self._services, self.generation, kept, shadow.generation)
        generation = await self._services.runtime.offload(make)
        generation.build(self._provide)
        try:
            await generation.start()
        except BaseException:
            await generation.stop(self._in_use())
            raise
        return generation

    def _in_use(self) -> list[Generation]:
        """All that go on."""
        shadows = [self.shadow.generation] if self.shadow is not None else []
        return [*self._retiring, self.generation, *shadows]

    async def _start_shadow(self) -> None:
        if self.shadow is None:
            return
        try:
            await self.shadow.start(self.generation)
        except Exception as error:  # noqa: BLE001 — requests are served without it
            self.ended_shadow = self.shadow.ended(ShadowState.NOT_STARTED, f"not started: {type(error).__name__}: {error}")
            self.shadow = None
            _logger.error("shadow configuration not used", exc=error, problem="a plugin could not be started")
            return
        self.director.shadow = self.shadow.decides

    def _take_over(self, shadow: PoolShadow) -> None:
        """Its plugins serve; those that do not are stopped when the last request is over that they were told of."""
        self.shadow = self.director.shadow = None
        self.ended_shadow = shadow.ended(ShadowState.TAKEN_OVER, "taken over: it is the configuration in use")
        shadow.hand_over()
        self._followers.update(shadow.followers)
        self._retiring.append(shadow.generation)
        shadow.decides.retire(lambda: self._retired(shadow.generation))
        _logger.info("shadow configuration taken over", source=shadow.config.source.name, sha256=shadow.config.sha256)

    def _discovery_of(self, generation: Generation) -> EndpointDiscovery:
        if self._given_discovery is None and self.settings.endpoints:
            self._given_discovery = StaticDiscovery(parse_endpoints(self.settings.endpoints))
        if self._given_discovery is None and self._cluster is not None and generation.config.discovery is None:
            self._given_discovery = ClusterDiscovery(self._cluster, self.settings.source, self.objects, self._changed)
        if self._given_discovery is not None:
            return self._given_discovery
        return cast("EndpointDiscovery", generation.instances.by_name[generation.config.discovery or ""])

    def _changed(self) -> None:
        """The pool was found or lost, or has another protocol."""
        discovery = self.discovery
        if isinstance(discovery, ClusterDiscovery) and not discovery.problem and self.problem:
            _logger.error("pool cannot be served", problem=self.problem)
            discovery.warn("UnsupportedAppProtocol", self.problem)
        self._on_change()

    def _collector_of(self, generation: Generation) -> Collector:
        return Collector(
            self.store,
            data_sources(generation.instances),
            self._metrics,
            refresh_interval_s=self.settings.refresh_interval_s,
            pages=self._around.pages(),
            clock=self._around.clock,
        )

    def _directors(self, on_defect: Callable[[str, Exception], None]) -> tuple[Director, Rehearsal, CandidateFinder]:
        """The one that decides, the one that only tells, and what finds the candidates of both."""
        settings, around = self.settings, self._around
        options = DirectorOptions(settings.emit_scores, settings.max_body_bytes, settings.max_decoded_bytes)
        finder = CandidateFinder(
            self.store,
            use_subset=settings.use_subset,
            hold_back_unscraped=settings.hold_back_unscraped,
            hold_back_stale_s=settings.staleness_threshold_s if settings.hold_back_stale else None,
            clock=around.clock,
        )
        director = Director(
            self.generation.in_use,
            finder,
            self.objects,
            self._metrics,
            ResponseObserver(self.store, self.ledger, self._metrics, on_defect, self.cache_truth),
            around.decisions or self.decisions,
            options,
            ledger=self.ledger,
            choose=around.seeds.choice,
            spawn=self._spawn,
            tracing=self._tracing,
            clock=around.clock,
            new_request_id=around.new_request_id,
        )
        rehearsal = Rehearsal(
            finder, self.store, self.objects, options, around.seeds.choice, self._spawn, on_defect, around.clock
        )
        return director, rehearsal, finder

    def _start_objects(self) -> None:
        self.objects.on_change(lambda: self._metrics.admit_model_names(self.objects.rewrite_models))
        if self.settings.objects:
            self._object_files = ObjectsFiles(self.settings.objects, self.objects)
            self._object_files.load()
            _ = self._spawn(self._object_files.run(self._stopped), "objects")

    async def _discover(self, discovery: EndpointDiscovery) -> None:
        """Wait for the first complete pass."""
        task = self._discovering = self._spawn(discovery.run(self.store), "discovery")
        ready = asyncio.create_task(discovery.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not discovery.ready.is_set():
            ready.cancel()
            await task
            msg = "discovery ended before it found endpoints"
            raise OSError(msg)
        task.add_done_callback(lambda ended: self.discovery_lost.set() if ended is self._discovering else None)

    async def raise_lost(self) -> None:
        """Tell why discovery has ended.

        Raises:
            OSError: always, unless discovery itself raises something else.
        """
        assert self._discovering is not None
        await self._discovering
        msg = "discovery has ended"
        raise OSError(msg)

    def _forget_discovery(self) -> None:
        task, self._discovering = self._discovering, None
        if task is not None:
            task.cancel()

    def _follow(self, generation: Generation) -> None:
        """Tell its plugins of the endpoints, from those that are there on, and of objects in the cluster.

        Those carried over are told already.
        """
        for follower in followers(generation.instances):
            if id(follower.plugin) not in self._followers:
                listener = self._followers[id(follower.plugin)] = PluginFollowers([follower], self._services.defects)
                self.store.subscribe(listener)
        self._object_watches.follow(generation.instances)

    def _retired(self, generation: Generation) -> None:
        self._retiring.remove(generation)
        others = self._in_use()
        for follower in followers(generation.instances):
            if id(follower.plugin) in self._followers and not any(follower.plugin in other for other in others):
                self.store.unsubscribe(self._followers.pop(id(follower.plugin)))
        self._object_watches.keep(lambda plugin: any(plugin in other for other in others))
        _ = self._spawn(generation.stop(others), "retired configuration")
