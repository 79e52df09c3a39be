"""Plugin instances of a configuration → the pipeline that the director runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from epp.config.loaded import Instances, LoadedPlugin, LoadedProfile
from epp.datalayer.membership import Follower
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.director import Pipeline
from epp.errors import EppError
from epp.framework.interfaces import (
    DataSource,
    Extractor,
    Filter,
    FollowsEndpoints,
    Parser,
    Picker,
    ProfileHandler,
    Role,
    SaturationDetector,
    Scorer,
)
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.hooks import Hook, Hooks, is_async
from epp.lifecycle import HookRunner, Spawn, budget_s
from epp.plugin_watch import PluginWatch, may_skip
from epp.request.parse import NamedParser, ParserTable
from epp.scheduling.guard import BUDGET_S, Guard
from epp.scheduling.profile import Defects, FilterStep, Observe, PickerStep, Profile, ScorerStep
from epp.scheduling.scheduler import HandlerStep, Scheduler
from epp.telemetry import log
from epp.telemetry.metrics import Metrics, PluginLabels

EXTENSION_POINTS: dict[str, str] = {
    Role.FILTER: "Filter",
    Role.SCORER: "Scorer",
    Role.PICKER: "Picker",
    Role.PROFILE_HANDLER: "ProfilePicker",
    Role.REQUEST_HEADER: "RequestHeader",
    Role.DIRECT_RESPONDER: "DirectResponder",
    Role.BODY_REWRITER: "BodyRewriter",
    Role.SCREENER: "Screener",
    Role.DATA_PRODUCER: "DataProducer",
    Role.ADMITTER: "Admission",
    Role.PRE_REQUEST: "PreRequest",
    Role.RESPONSE_RECEIVED: "ResponseReceived",
    Role.RESPONSE_STREAMING: "ResponseStreaming",
    Role.RESPONSE_COMPLETE: "ResponseComplete",
    Role.PARSER: "RequestParsing",
}
"""Role → value of the metrics label ``extension_point``."""
_REPORT_EVERY_S = 10.0
"""A plugin that fails at every request is counted each time and logged this often."""

_logger = log.get("epp.plugins")


class PluginDefects:
    """Logs and counts plugins that misbehave."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last_s: dict[tuple[str, str], float] = {}

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        """Count it; log it unless it was logged a moment ago.

        Args:
            role: in which it failed, or the name of a protocol that needs no role.
        """
        point = EXTENSION_POINTS.get(role, str(role))
        self._metrics.plugin_error(PluginLabels(point, type_name, name))
        now = self._clock()
        if now - self._last_s.get((name, role), float("-inf")) < _REPORT_EVERY_S:
            return
        self._last_s[name, role] = now
        error = problem if isinstance(problem, Exception) else None
        _logger.error("plugin failed", exc=error, plugin=name, type=type_name, extension_point=point, problem=str(problem))


class PipelineBuilder:
    """Assembles scheduler, hooks and parsers.

    Args:
        instances: created plugins with the configuration they come from.
        metrics: where plugin durations are observed.
        defects: told of plugins that misbehave.
        spawn: starts background tasks for coroutine hooks.
    """

    def __init__(
        self,
        instances: Instances,
        metrics: Metrics,
        defects: Defects,
        spawn: Spawn,
    ) -> None:
        self._instances = instances
        self._config = instances.config
        self._metrics = metrics
        self._defects = defects
        self._spawn = spawn
        self._watch = PluginWatch(metrics)

    def build(self) -> Pipeline:
        """The pipeline."""
        detector = self._instances.by_name.get(self._config.detector or "")
        return Pipeline(
            parsers=self._parsers(),
            scheduler=self._scheduler(),
            hooks=HookRunner(self._hooks(), self._defects, self._spawn),
            detector=detector if isinstance(detector, SaturationDetector) else None,
            match_keys=tuple(
                PREFIX_CACHE_MATCH.by(plugin.name)
                for plugin in self._config.plugins
                if plugin.active and any(key.name == PREFIX_CACHE_MATCH.name for key in plugin.type.produces)
            ),
        )

    def _parsers(self) -> ParserTable:
        table = ParserTable(
            [
                NamedParser(name, self._config.plugin(name).type.type, cast("Parser", self._instances.by_name[name]))
                for name in self._config.parsers
                if name in self._instances.by_name
            ]
        )
        for parser, reason in table.ignored:
            _logger.warning("parser is never asked", plugin=parser.name, type=parser.type, reason=reason)
        return table

    def _scheduler(self) -> Scheduler:
        loaded = self._config.plugin(self._config.handler)
        handler = HandlerStep(
            loaded.name,
            loaded.type.type,
            cast("ProfileHandler", self._instances.by_name[loaded.name]),
            self._observe("ProfilePicker", loaded),
            self._observe("ProcessProfilesResults", loaded),
            self._guard(Role.PROFILE_HANDLER, loaded),
        )
        profiles = [self._profile(profile) for profile in self._config.profiles]
        return Scheduler(handler, profiles, self._defects)

    def _profile(self, loaded: LoadedProfile) -> Profile:
        filters: list[FilterStep] = []
        scorers: list[ScorerStep] = []
        picker: PickerStep | None = None
        for name, weight in loaded.plugins:
            plugin = self._config.plugin(name)
            instance = self._instances.by_name.get(name)
            if instance is None:
                continue
            kind, shared = plugin.type.type, plugin.type.per_snapshot
            if plugin.has(Role.FILTER):
                observe, guard = self._observe("Filter", plugin), self._guard(Role.FILTER, plugin)
                filters.append(FilterStep(name, kind, cast("Filter", instance), observe, guard, shared))
            if plugin.has(Role.SCORER):
                observe, guard = self._observe("Scorer", plugin), self._guard(Role.SCORER, plugin)
                scorers.append(ScorerStep(name, kind, cast("Scorer", instance), weight, observe, guard, shared))
            if plugin.has(Role.PICKER):
                observe, guard = self._observe("Picker", plugin), self._guard(Role.PICKER, plugin)
                picker = PickerStep(name, kind, cast("Picker", instance), observe, guard)
        if picker is None:
            msg = f"profile {loaded.name!r} has no picker"
            raise EppError(msg)
        return Profile(loaded.name, filters, scorers, picker, self._defects)

    def _hooks(self) -> Hooks:
        return Hooks(
            responders=self._slot(Role.DIRECT_RESPONDER, "respond"),
            request_header=self._slot(Role.REQUEST_HEADER, "process_request"),
            rewriters=self._slot(Role.BODY_REWRITER, "rewrite"),
            screeners=self._slot(Role.SCREENER, "screen"),
            producers=self._slot(Role.DATA_PRODUCER, "produce", in_creation_order=True),
            admitters=self._slot(Role.ADMITTER, "admit"),
            pre_request=self._slot(Role.PRE_REQUEST, "pre_request"),
            received=self._slot(Role.RESPONSE_RECEIVED, "response_received"),
            streaming=self._slot(Role.RESPONSE_STREAMING, "response_streaming"),
            complete=self._slot(Role.RESPONSE_COMPLETE, "response_complete"),
            every_chunk=any(
                plugin.active and plugin.has(Role.RESPONSE_STREAMING) and plugin.type.reads.every_chunk(plugin.params)
                for plugin in self._config.plugins
            ),
            reads_document=any(plugin.active and plugin.type.reads.response_document for plugin in self._config.plugins),
        )

    def _slot(self, role: Role, method: str, *, in_creation_order: bool = False) -> list[Hook[Any]]:
        """Active instances with this role: in declaration order, or each after those whose data it reads."""
        names = list(self._config.creation_order) if in_creation_order else list(self._instances.by_name)
        hooks: list[Hook[Any]] = []
        for name in names:
            instance = self._instances.by_name.get(name)
            loaded = self._config.plugin(name)
            if instance is None or not loaded.active or not loaded.has(role):
                continue
            observe = self._observe(EXTENSION_POINTS[role], loaded)
            waits = is_async(instance, method)
            guard = self._guard(role, loaded, budget_s(is_async=waits))
            needs = self._needs(loaded) if role is Role.DATA_PRODUCER else frozenset()
            hooks.append(Hook(name, loaded.type.type, instance, observe, waits, guard, needs))
        return hooks

    def _needs(self, reader: LoadedPlugin) -> frozenset[str]:
        """Names of the plugins that write something without which this one can do nothing."""
        read = {needed.key.name for needed in reader.type.consumes if needed.required}
        return frozenset(p.name for p in self._config.plugins if any(key.name in read for key in p.type.produces))

    def _observe(self, point: str, plugin: LoadedPlugin) -> Observe:
        return self._metrics.plugin_duration(PluginLabels(point, plugin.type.type, plugin.name)).observe

    def _guard(self, role: Role, plugin: LoadedPlugin, budget_s: float = BUDGET_S) -> Guard:
        labels = PluginLabels(EXTENSION_POINTS[role], plugin.type.type, plugin.name)
        return self._watch.guard(labels, may_skip=may_skip(plugin, role), budget_s=budget_s)


def followers(instances: Instances) -> list[Follower]:
    """The plugins that follow the endpoints."""
    return [
        Follower(instances.config.plugin(name).type.type, name, plugin)
        for name, plugin in instances.by_name.items()
        if isinstance(plugin, FollowsEndpoints)
    ]


def data_sources(instances: Instances) -> list[SourceBinding]:
    """Active data sources with their extractors."""
    config, by_name = instances.config, instances.by_name
    bindings = []
    for source in config.sources:
        instance = by_name.get(source.name)
        if not source.active or not isinstance(instance, DataSource):
            continue
        extractors = tuple(
            ExtractorBinding(config.plugin(name).type.type, extractor)
            for name in source.extractors
            if isinstance(extractor := by_name.get(name), Extractor)
        )
        bindings.append(SourceBinding(source.name, config.plugin(source.name).type.type, instance, extractors))
    return bindings
