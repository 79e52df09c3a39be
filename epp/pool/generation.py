"""One configuration in use: its plugin instances and the pipeline made of them, from start to stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from epp.config.instantiate import instantiate
from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin
from epp.decision.pipeline import PipelineInUse
from epp.flowcontrol.admission import Admission
from epp.framework import log
from epp.framework.handle import MetricsFlags, PluginContext, PluginMetrics, PoolState, Runtime
from epp.framework.interfaces import HasLifecycle, HasReadiness
from epp.hooks.runner import Spawn
from epp.plugin_calls.defects import Defects
from epp.plugin_calls.watch import PluginWatch
from epp.pool.build import PipelineBuilder
from epp.telemetry.metrics import Metrics

_logger = log.get("epp.pool.generation")

ProvideFlowControl = Callable[[Instances], Admission | None]


class PluginServices(NamedTuple):
    """What the plugins of a pool are given."""

    metrics: Metrics
    runtime: Runtime
    spawn: Spawn
    defects: Defects
    numbers: PoolState
    flags: MetricsFlags
    seeds: random.Random
    """Where the randomness of each plugin comes from."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    stopwatch: Callable[[], float]
    """Seconds; of how long plugins take."""
    plugin_metrics: PluginMetrics | None = None
    """What plugins count themselves goes there; None = to ``metrics``."""


class Generation:
    """Plugins and pipeline of one configuration: made in any thread, then given its pipeline on the event loop.

    Args:
        config: what is made.
        services: what plugins are given.
        former: the generation in use, if there is one.
        unchanged: plugins of ``former`` that serve on; all of them are in ``config`` too.
        warm: another one of the same configuration, whose plugins take the place of new ones.

    Raises:
        ConfigError: a factory refused its values.
    """

    def __init__(
        self,
        config: LoadedConfig,
        services: PluginServices,
        former: Generation | None = None,
        unchanged: Collection[str] = frozenset(),
        warm: Generation | None = None,
    ) -> None:
        self.config = config
        by_name = former.instances.by_name if former is not None else {}
        kept = {name: by_name[name] for name in unchanged if name in by_name}
        self._carried = {**(warm.instances.by_name if warm is not None else {}), **kept}
        contexts = _Contexts(config, services)
        self.instances: Instances = instantiate(config, contexts, self._carried)
        self._seen: dict[str, Collection[str]] = {**contexts.seen}
        for origin, names in ((warm, self._carried), (former, kept)):
            if origin is not None:
                self._seen |= {name: origin.seen(name) for name in names}
        self.watch: PluginWatch = (
            former.watch.for_plugins(kept) if former is not None else PluginWatch(services.metrics, services.clock)
        )
        self.in_use: PipelineInUse
        """Set by ``build``."""
        self._services = services
        self._gates = {name: p for name, p in self.instances.by_name.items() if isinstance(p, HasReadiness)}

    def build(self, provide: ProvideFlowControl) -> None:
        """Make the pipeline, once.

        Args:
            provide: gives what lets requests in; None = flow control is off.
        """
        services = self._services
        builder = PipelineBuilder(
            self.instances,
            services.metrics,
            services.defects,
            services.spawn,
            services.clock,
            services.stopwatch,
            watch=self.watch,
            flow_control=provide(self.instances),
        )
        self.in_use = PipelineInUse(builder.build())

    def seen(self, name: str) -> Collection[str]:
        """The parts of the whole configuration that a plugin looked at when it was made."""
        return self._seen.get(name, ())

    def __contains__(self, plugin: object) -> bool:
        """It uses this instance."""
        return any(plugin is other for other in self.instances.by_name.values())

    async def start(self) -> None:
        """Start the plugins that have something to start, in declaration order; those carried over run already.

        Raises:
            Exception: what a plugin raises; ``stop`` is to be called all the same.
        """
        for name, plugin in self.instances.by_name.items():
            if isinstance(plugin, HasLifecycle) and name not in self._carried:
                await plugin.start()

    async def stop(self, others: Sequence[Generation] = ()) -> None:
        """Stop them in reverse order; one that fails is logged and keeps no other from being stopped.

        Args:
            others: generations that go on; what one of them uses is not stopped.
        """
        for name, plugin in reversed(list(self.instances.by_name.items())):
            if not isinstance(plugin, HasLifecycle) or any(plugin in other for other in others):
                continue
            try:
                await plugin.stop()
            except Exception as error:  # noqa: BLE001 — the others still have to be stopped
                _logger.error("plugin not stopped", exc=error, plugin=name)

    @property
    def has_gates(self) -> bool:
        """Some plugin has a readiness of its own."""
        return bool(self._gates)

    def waiting(self) -> list[str]:
        """Names of the plugins that are not ready."""
        return [name for name, plugin in self._gates.items() if not plugin.is_ready()]


class _Contexts:
    """Makes what each factory receives."""

    def __init__(self, config: LoadedConfig, services: PluginServices) -> None:
        self._profiles = tuple(profile.name for profile in config.profiles)
        self._services = services
        self.seen: dict[str, set[str]] = {}
        """Plugin → the parts of the whole configuration that it looked at so far."""

    def __call__(self, plugin: LoadedPlugin, references: Mapping[str, object]) -> PluginContext:
        services = self._services
        context = _WatchedContext(
            name=plugin.name,
            type=plugin.type.type,
            clock=services.clock,
            rng=random.Random(services.seeds.getrandbits(64)),
            plugins=references,
            profiles=self._profiles,
            metrics_flags=services.flags,
            metrics=services.plugin_metrics or services.metrics,
            runtime=services.runtime,
            pool=services.numbers,
        )
        self.seen[plugin.name] = context.seen
        return context


_OF_THE_WHOLE = frozenset({"profiles", "declared"})
"""What a factory is told beyond its own parameters and references: a plugin that looked depends on it."""


class _WatchedContext(PluginContext):
    """Notes what is looked at."""

    __slots__ = ("seen",)

    def __init__(self, **values: Any) -> None:
        self.seen: set[str] = set()
        super().__init__(**values)

    def __getattribute__(self, name: str) -> Any:
        if name in _OF_THE_WHOLE:
            self.seen.add(name)
        return object.__getattribute__(self, name)
