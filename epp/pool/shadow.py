"""The second configuration of a pool: plugins of its own, fed beside those in use, until it is taken over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar, cast

from epp.config.changes import Changes, compare, shared_parts
from epp.config.loaded import LoadedConfig
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.shadow import Shadow
from epp.framework import log
from epp.framework.handle import Counter, Gauge, Histogram, PluginMetrics
from epp.hooks.runner import HookRunner, Spawn
from epp.hooks.slots import Hook
from epp.plugin_calls.defects import EXTENSION_POINTS, Defects
from epp.plugin_calls.watch import PluginWatch
from epp.pool.build import followers
from epp.pool.generation import Generation, PluginServices
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.metrics import Metrics
from epp.telemetry.shadow_comparison import ShadowTally

T = TypeVar("T")
_REPORT_EVERY_S = 10.0
_logger = log.get("epp.pool.shadow")


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """Which configuration decides beside the one in use."""

    config: LoadedConfig
    share: float = 1.0
    """``--shadow-share``: of the requests, from 0 to 1."""


class ShadowState(StrEnum):
    """What became of the shadow that was asked for."""

    ACTIVE = "active"
    NOT_STARTED = "not_started"
    """One of its plugins could not be started."""
    TAKEN_OVER = "taken_over"
    """It is the configuration in use."""


class EndedShadow(NamedTuple):
    """A shadow that there is no more."""

    source: str
    sha256: str
    state: ShadowState
    at_s: float
    """When it ended, Unix time."""
    why: str
    tally: ShadowTally
    """What it was compared with until then."""

    def as_json(self) -> dict[str, object]:
        """For the page."""
        return {
            "problem": f"{self.why}, {datetime.fromtimestamp(self.at_s, UTC).isoformat(timespec='seconds')}",
            "state": self.state.value,
            "ended_s": self.at_s,
            "source": self.source,
            "sha256": self.sha256,
            **self.tally.as_json(),
        }


class PoolShadow:
    """A shadow, from start to stop.

    Args:
        settings: its configuration.
        live: the generation in use; data sources, parsers and discovery that are equal are shared with it.
        services: what the plugins in use are given.
        store: the endpoints.
        finder: the candidates.

    Raises:
        ConfigError: a factory refused its values.
    """

    def __init__(
        self,
        settings: ShadowSettings,
        live: Generation,
        services: PluginServices,
        store: EndpointStore,
        finder: CandidateFinder,
    ) -> None:
        self.config = settings.config
        self._share = settings.share
        self._store = store
        self._live = services
        self._defects = ShadowDefects(services.metrics, services.clock)
        self._plugin_metrics = SwitchedMetrics(Metrics())
        unseen = Metrics()
        own = services._replace(metrics=unseen, defects=self._defects, plugin_metrics=self._plugin_metrics)
        differences = compare(live.config, self.config, live.seen)
        self.generation = Generation(self.config, own, live, shared_parts(self.config) & differences.unchanged)
        self.generation.watch = PluginWatch(unseen, services.clock)
        self.generation.build(lambda _: None)
        self.generation.in_use = PipelineInUse(_told_once(self.generation.in_use.pipeline, live, services.spawn))
        self.decides = Shadow(
            self.generation.in_use,
            finder,
            services.metrics,
            services.spawn,
            share=settings.share,
            clock=services.clock,
            stopwatch=services.stopwatch,
        )
        self.followers = {
            id(follower.plugin): PluginFollowers([follower], self._defects)
            for follower in followers(self.generation.instances)
            if follower.plugin not in live
        }
        """By the id of the plugin: who tells it of the endpoints."""
        self.restart = differences.restart
        """Parts of its document that differ and cannot be exchanged while serving. Of data sources, discovery and parsers
        there is one set for both, that of the configuration in use."""

    async def start(self, live: Generation) -> None:
        """Start its plugins.

        Args:
            live: the generation in use, which keeps what is shared.

        Raises:
            Exception: what a plugin raises at its start; all are stopped again.
        """
        for listener in self.followers.values():
            self._store.subscribe(listener)
        try:
            await self.generation.start()
        except BaseException:
            for listener in self.followers.values():
                self._store.unsubscribe(listener)
            await self.generation.stop([live])
            raise
        self._expose(ShadowState.ACTIVE)
        _logger.info("shadow configuration", source=self.config.source.name, sha256=self.config.sha256)
        for path in self.restart:
            _logger.warning("shadow configuration can be used after a restart only", path=path)

    def has_document(self, config: LoadedConfig) -> bool:
        """``config`` means the same as its own."""
        return compare(self.config, config, self.generation.seen).is_nothing

    def hand_over(self) -> None:
        """Its plugins serve from now on: what they count is exposed, what they do wrong is told as of any other."""
        self._plugin_metrics.use(self._live.metrics)
        self._defects.hand_over(self._live.defects)

    def ended(self, state: ShadowState, why: str) -> EndedShadow:
        """It decides no more; what stays of it."""
        self._expose(state)
        return EndedShadow(self.config.source.name, self.config.sha256, state, time.time(), why, self.decides.tally)

    @property
    def version(self) -> object:
        """Another one whenever there is something new to show."""
        return self.decides.tally.count, sum(self._defects.counts.values())

    def as_json(self) -> dict[str, object]:
        """For the page."""
        return {
            "source": self.config.source.name,
            "sha256": self.config.sha256,
            "share": self._share,
            "restart": list(self.restart),
            "waiting": self.decides.waiting,
            "plugin_errors": dict(self._defects.counts),
            **self.decides.tally.as_json(),
        }

    def _expose(self, now: ShadowState) -> None:
        for state in ShadowState:
            self._live.metrics.gauge(f"{PREFIX}shadow_state", state=state.value).set(int(state is now))


def kept_at_takeover(changes: Changes, config: LoadedConfig) -> frozenset[str]:
    """The plugins in use that stay when a shadow is taken over: unchanged ones, unless a plugin that comes from it needs them.

    Those in use have seen every request; but whatever a plugin of the shadow may hold a reference to has to come with it.
    """
    needs = {plugin.name: plugin.needs for plugin in config.plugins}
    kept = set(changes.unchanged)
    shared = shared_parts(config)
    coming = [name for name in needs if name not in kept]
    while coming:
        for name in needs[coming.pop()]:
            if name in kept and name not in shared:
                kept.discard(name)
                coming.append(name)
    return frozenset(kept)


def _told_once(pipeline: Pipeline, live: Generation, spawn: Spawn) -> Pipeline:
    """Without the hooks of plugins in use, which are told of each request already."""

    def others(hooks: Sequence[Hook[T]]) -> list[Hook[T]]:
        return [hook for hook in hooks if hook.plugin not in live]

    hooks = pipeline.hooks.hooks
    own = replace(
        hooks,
        pre_request=others(hooks.pre_request),
        received=others(hooks.received),
        streaming=others(hooks.streaming),
        complete=others(hooks.complete),
    )
    return replace(pipeline, hooks=HookRunner(own, spawn))


class ShadowDefects:
    """Logs and counts the plugins of a shadow that misbehave, apart from those that serve. Implements ``Defects``."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: dict[str, int] = {}
        """Plugin → failures."""
        self._metrics = metrics
        self._clock = clock
        self._last_s: dict[tuple[str, str], float] = {}
        self._successor: Defects | None = None

    def hand_over(self, successor: Defects) -> None:
        """Tell somebody else from now on."""
        self._successor = successor

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        """Count it; log it unless it was logged a moment ago."""
        if self._successor is not None:
            self._successor.plugin_failed(role, type_name, name, problem)
            return
        point = EXTENSION_POINTS.get(role, str(role))
        self.counts[name] = self.counts.get(name, 0) + 1
        labels = {"extension_point": point, "plugin_type": type_name, "plugin_name": name}
        self._metrics.counter(f"{PREFIX}shadow_plugin_errors_total", **labels).inc()
        now = self._clock()
        if now - self._last_s.get((name, role), float("-inf")) < _REPORT_EVERY_S:
            return
        self._last_s[name, role] = now
        error = problem if isinstance(problem, Exception) else None
        _logger.warning(
            "shadow plugin failed", exc=error, plugin=name, type=type_name, extension_point=point, problem=str(problem)
        )


class SwitchedMetrics:
    """Metrics of plugins that are bound once and go elsewhere when they are told to. Implements ``PluginMetrics``.

    Args:
        metrics: where they go first.
    """

    def __init__(self, metrics: PluginMetrics) -> None:
        self._metrics = metrics
        self._bound: dict[int, tuple[_Switched, str, str, Mapping[str, str]]] | None = {}
        """By the id of what is written to, so that there are no more than there are series; None once switched."""

    def use(self, metrics: PluginMetrics) -> None:
        """Write there from now on; what was written so far stays where it is."""
        bound, self._bound, self._metrics = self._bound or {}, None, metrics
        for switched, kind, name, labels in bound.values():
            switched.target = getattr(metrics, kind)(name, **labels)

    def counter(self, name: str, /, **labels: str) -> Counter:
        """As ``PluginMetrics``."""
        return cast("Counter", self._bind("counter", name, labels))

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        """As ``PluginMetrics``."""
        return cast("Gauge", self._bind("gauge", name, labels))

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        """As ``PluginMetrics``."""
        return cast("Histogram", self._bind("histogram", name, labels))

    def _bind(self, kind: str, name: str, labels: Mapping[str, str]) -> object:
        target = getattr(self._metrics, kind)(name, **labels)
        if self._bound is None:
            return target
        found = self._bound.get(id(target))
        if found is None:
            found = self._bound[id(target)] = (_Switched(target), kind, name, labels)
        return found[0]


class _Switched:
    """A counter, gauge or histogram."""

    __slots__ = ("target",)

    def __init__(self, target: Any) -> None:
        self.target = target

    def inc(self, amount: float = 1.0) -> None:
        """As ``Counter``."""
        self.target.inc(amount)

    def set(self, value: float) -> None:
        """As ``Gauge``."""
        self.target.set(value)

    def observe(self, value: float) -> None:
        """As ``Histogram``."""
        self.target.observe(value)
