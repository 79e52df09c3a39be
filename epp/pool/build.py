"""Plugin instances of a configuration → the pipeline that the director runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin, LoadedProfile
from epp.datalayer.membership import Follower
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.decision.pipeline import Pipeline
from epp.discovery.kube_notify import ObjectFollower
from epp.errors import EppError
from epp.flowcontrol.admission import Admission, LegacyAdmission
from epp.framework import log
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
from epp.framework.keys import PREFIX_CACHE_MATCH, reading
from epp.framework.notifications import FollowsObjects, ObjectKind, TellsOfObjects
from epp.hooks.runner import HookRunner, Spawn
from epp.hooks.slots import Hook, Hooks, deadline_s, has_hook, is_async, make_hook
from epp.plugin_calls.defects import EXTENSION_POINTS, Defects
from epp.plugin_calls.guard import BUDGET_S
from epp.plugin_calls.step import CallWatch, budget_s
from epp.plugin_calls.watch import PluginWatch
from epp.request.parse import NamedParser, ParserTable
from epp.scheduling.profile import FilterStep, PickerStep, Profile, ScorerStep
from epp.scheduling.scheduler import HandlerStep, Scheduler
from epp.telemetry.metrics import Metrics, PluginLabels

SKIPPABLE = frozenset(
    {
        Role.SCORER,
        Role.SCREENER,
        Role.DATA_PRODUCER,
        Role.PRE_REQUEST,
        Role.RESPONSE_RECEIVED,
        Role.RESPONSE_STREAMING,
        Role.RESPONSE_COMPLETE,
    }
)
"""Roles without which a request can go on. The others may refuse it, choose its endpoint or read it: leaving a filter or an
admitter out would let through what it is there to keep back."""
_logger = log.get("epp.plugins")


class PipelineBuilder:
    """Assembles scheduler, hooks and parsers.

    Args:
        instances: created plugins with the configuration they come from.
        metrics: where plugin durations are observed.
        defects: told of plugins that misbehave.
        watch: has or makes the guards of the plugins.
        spawn: starts background tasks for coroutine hooks.
        clock: seconds, monotonic.
        stopwatch: seconds; of how long plugins take.
        flow_control: lets requests in; None = sheddable ones are refused by a full pool.
    """

    def __init__(
        self,
        instances: Instances,
        metrics: Metrics,
        defects: Defects,
        spawn: Spawn,
        clock: Callable[[], float] = time.monotonic,
        stopwatch: Callable[[], float] = time.perf_counter,
        *,
        watch: PluginWatch | None = None,
        flow_control: Admission | None = None,
    ) -> None:
        self._instances = instances
        self._flow_control = flow_control
        self._config = instances.config
        self._metrics = metrics
        self._defects = defects
        self._spawn = spawn
        self._watch = watch or PluginWatch(metrics, clock)
        self._stopwatch = stopwatch

    def build(self) -> Pipeline:
        """The pipeline."""
        return Pipeline(
            parsers=self._parsers(),
            scheduler=self._scheduler(),
            hooks=HookRunner(self._hooks(), self._spawn),
            admission=self._admission(),
            readings=tuple(reading(name) for name in request_readers(self._config)),
            match_keys=tuple(
                PREFIX_CACHE_MATCH.by(plugin.name)
                for plugin in self._config.plugins
                if plugin.active and any(key.name == PREFIX_CACHE_MATCH.name for key in plugin.type.produces)
            ),
        )

    def _admission(self) -> Admission | None:
        if self._flow_control is not None:
            return self._flow_control
        detector = self._instances.by_name.get(self._config.detector or "")
        return LegacyAdmission(detector) if isinstance(detector, SaturationDetector) else None

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
            self._watched(Role.PROFILE_HANDLER, loaded),
            self._watched(Role.PROFILE_HANDLER, loaded, point="ProcessProfilesResults"),
            cast("ProfileHandler", self._instances.by_name[loaded.name]),
        )
        return Scheduler(handler, [self._profile(profile) for profile in self._config.profiles])

    def _profile(self, loaded: LoadedProfile) -> Profile:
        filters: list[FilterStep] = []
        scorers: list[ScorerStep] = []
        picker: PickerStep | None = None
        for name, weight in loaded.plugins:
            plugin = self._config.plugin(name)
            instance = self._instances.by_name.get(name)
            if instance is None:
                continue
            shared = plugin.type.per_snapshot
            if plugin.has(Role.FILTER):
                watch = self._watched(Role.FILTER, plugin)
                filters.append(FilterStep(watch, cast("Filter", instance), per_snapshot=shared))
            if plugin.has(Role.SCORER):
                watch = self._watched(Role.SCORER, plugin)
                scorers.append(ScorerStep(watch, cast("Scorer", instance), weight, per_snapshot=shared))
            if plugin.has(Role.PICKER):
                picker = PickerStep(self._watched(Role.PICKER, plugin), cast("Picker", instance))
        if picker is None:
            msg = f"profile {loaded.name!r} has no picker"
            raise EppError(msg)
        return Profile(loaded.name, filters, scorers, picker)

    def _hooks(self) -> Hooks:
        return Hooks(
            responders=self._slot(Role.DIRECT_RESPONDER),
            request_header=self._slot(Role.REQUEST_HEADER),
            rewriters=self._slot(Role.BODY_REWRITER),
            screeners=self._slot(Role.SCREENER),
            producers=self._slot(Role.DATA_PRODUCER, in_creation_order=True),
            admitters=self._slot(Role.ADMITTER),
            pre_request=sorted(self._slot(Role.PRE_REQUEST), key=lambda hook: hook.is_async),
            received=self._slot(Role.RESPONSE_RECEIVED),
            streaming=self._slot(Role.RESPONSE_STREAMING),
            complete=self._slot(Role.RESPONSE_COMPLETE),
            every_chunk=any(
                plugin.active and plugin.has(Role.RESPONSE_STREAMING) and plugin.type.reads.every_chunk(plugin.params)
                for plugin in self._config.plugins
            ),
            reads_document=any(plugin.active and plugin.type.reads.response_document for plugin in self._config.plugins),
        )

    def _slot(self, role: Role, *, in_creation_order: bool = False) -> list[Hook[Any]]:
        """Active instances with this role: in declaration order, or each after those whose data it reads."""
        names = list(self._config.creation_order) if in_creation_order else list(self._instances.by_name)
        hooks: list[Hook[Any]] = []
        for name in names:
            instance = self._instances.by_name.get(name)
            loaded = self._config.plugin(name)
            if instance is None or not loaded.active or not loaded.has(role) or not has_hook(instance, role):
                continue
            limit_s = budget_s(is_async=is_async(instance, role), deadline_s=deadline_s(instance))
            watch = self._watched(role, loaded, budget_s=limit_s)
            hooks.append(make_hook(watch, instance, self._needs(loaded) if role is Role.DATA_PRODUCER else frozenset()))
        return hooks

    def _needs(self, reader: LoadedPlugin) -> frozenset[str]:
        """Names of the plugins that write something without which this one can do nothing."""
        read = {needed.key.name for needed in reader.type.consumes if needed.required}
        return frozenset(p.name for p in self._config.plugins if any(key.name in read for key in p.type.produces))

    def _watched(self, role: Role, plugin: LoadedPlugin, *, point: str = "", budget_s: float = BUDGET_S) -> CallWatch:
        """What watches the calls of a plugin. Its guard is one for the extension point, whatever the number of profiles."""
        kind, name = plugin.type.type, plugin.name
        guard = self._watch.guard(
            PluginLabels(EXTENSION_POINTS[role], kind, name), may_skip=may_skip(plugin, role), budget_s=budget_s
        )
        observe = self._metrics.plugin_duration(PluginLabels(point or EXTENSION_POINTS[role], kind, name)).observe
        return CallWatch(role, kind, name, self._defects, observe, guard, point=point, clock=self._stopwatch)


def followers(instances: Instances) -> list[Follower]:
    """The plugins that follow the endpoints."""
    return [
        Follower(instances.config.plugin(name).type.type, name, plugin)
        for name, plugin in instances.by_name.items()
        if isinstance(plugin, FollowsEndpoints)
    ]


def protocol_problem(instances: Instances, app_protocol: str) -> str:
    """Why the pool's ``appProtocol`` ("" = any) cannot be served; empty = it can."""
    if not app_protocol:
        return ""
    parsers = [(name, instances.by_name[name]) for name in instances.config.parsers if name in instances.by_name]
    refusing = [
        f"{name} ({', '.join(parser.app_protocols)})"
        for name, parser in parsers
        if isinstance(parser, Parser) and parser.app_protocols and app_protocol not in parser.app_protocols
    ]
    if not refusing:
        return ""
    return f"appProtocol {app_protocol} of the pool is not served by the parsers {', '.join(refusing)}"


def request_readers(config: LoadedConfig) -> tuple[str, ...]:
    """Names of the request readers that active plugins want, each once, in alphabetical order."""
    wanted: set[str] = set()
    for plugin in config.plugins:
        if plugin.active:
            wanted.update(plugin.type.reads.readers(plugin.params))
    return tuple(sorted(wanted))


def object_followers(instances: Instances) -> list[tuple[ObjectKind, list[ObjectFollower]]]:
    """Active sources of Kubernetes objects, each with who follows them."""
    config, by_name = instances.config, instances.by_name
    found = []
    for source in config.sources:
        instance = by_name.get(source.name)
        if source.active and isinstance(instance, TellsOfObjects):
            followers = [
                ObjectFollower(config.plugin(name).type.type, name, plugin)
                for name in source.extractors
                if isinstance(plugin := by_name.get(name), FollowsObjects)
            ]
            found.append((instance.objects, followers))
    return found


def data_sources(instances: Instances) -> list[SourceBinding]:
    """Active data sources of endpoints with their extractors."""
    config, by_name = instances.config, instances.by_name
    bindings = []
    for source in config.sources:
        instance = by_name.get(source.name)
        if not source.active or not isinstance(instance, DataSource) or isinstance(instance, TellsOfObjects):
            continue
        extractors = tuple(
            ExtractorBinding(config.plugin(name).type.type, extractor)
            for name in source.extractors
            if isinstance(extractor := by_name.get(name), Extractor)
        )
        bindings.append(SourceBinding(source.name, config.plugin(source.name).type.type, instance, extractors))
    return bindings


def may_skip(plugin: LoadedPlugin, role: Role) -> bool:
    """Whether requests can do without this plugin in this role.

    The hooks of a profile handler belong to its decision: headers for a second endpoint. The end of a request is never kept
    from a plugin that was told of its beginning: its counts of running requests would stay wrong.
    """
    if role is Role.RESPONSE_COMPLETE and plugin.has(Role.PRE_REQUEST):
        return False
    return role in SKIPPABLE and not plugin.has(Role.PROFILE_HANDLER)
