"""One configuration in use: its plugin instances and the pipeline made of them, from start to stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from epp.config.instantiate import instantiate
from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin
from epp.decision.pipeline import PipelineInUse
from epp.flowcontrol.admission import Admission
from epp.framework import log
from epp.framework.handle import MetricsFlags, PluginContext, PoolState, Runtime
from epp.framework.interfaces import HasLifecycle, HasReadiness
from epp.hooks.runner import Spawn
from epp.plugin_calls.defects import Defects
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


class Generation:
    """Plugins and pipeline of one configuration.

    Args:
        config: what is made.
        services: what plugins are given.
        provide: gives what lets requests in; None = flow control is off.

    Raises:
        ConfigError: a factory refused its values.
    """

    def __init__(
        self, config: LoadedConfig, services: PluginServices, provide: ProvideFlowControl = lambda _instances: None
    ) -> None:
        self.config = config
        self.instances: Instances = instantiate(config, _Contexts(config, services))
        builder = PipelineBuilder(
            self.instances,
            services.metrics,
            services.defects,
            services.spawn,
            services.clock,
            services.stopwatch,
            flow_control=provide(self.instances),
        )
        pipeline = builder.build()
        self.in_use = PipelineInUse(pipeline)
        self._gates = {name: p for name, p in self.instances.by_name.items() if isinstance(p, HasReadiness)}

    async def start(self) -> None:
        """Start the plugins that have something to start, in declaration order.

        Raises:
            Exception: what a plugin raises; ``stop`` is to be called all the same.
        """
        for plugin in self.instances.by_name.values():
            if isinstance(plugin, HasLifecycle):
                await plugin.start()

    async def stop(self) -> None:
        """Stop them in reverse order; one that fails is logged and keeps no other from being stopped."""
        for name, plugin in reversed(list(self.instances.by_name.items())):
            if not isinstance(plugin, HasLifecycle):
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

    def __call__(self, plugin: LoadedPlugin, references: Mapping[str, object]) -> PluginContext:
        services = self._services
        return PluginContext(
            name=plugin.name,
            type=plugin.type.type,
            clock=services.clock,
            rng=random.Random(services.seeds.getrandbits(64)),
            plugins=references,
            profiles=self._profiles,
            metrics_flags=services.flags,
            metrics=services.metrics,
            runtime=services.runtime,
            pool=services.numbers,
        )
