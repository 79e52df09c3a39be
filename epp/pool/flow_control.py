"""Flow control of a configuration: its settings, made of the document and the plugin instances that it names."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from epp.config import defaults
from epp.config.loaded import Instances, LoadedPlugin
from epp.config.schema import BandTemplate, FlowControlConfig, PriorityBand
from epp.datalayer.objects import ObjectStore
from epp.datalayer.store import EndpointStore
from epp.errors import EppError
from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.pages import snapshot
from epp.flowcontrol.settings import (
    MAX_BYTES,
    MAX_REQUESTS,
    BandSettings,
    EvictionSettings,
    FlowControlSettings,
    Named,
)
from epp.framework.flow_control import (
    CountsCredits,
    EvictionFilter,
    EvictionOrderPolicy,
    FairnessPolicy,
    OrderingPolicy,
    UsageLimitPolicy,
)
from epp.framework.interfaces import Role, SaturationDetector
from epp.framework.registry import Gate
from epp.plugin_calls.defects import Defects
from epp.pool.settings import PoolSettings
from epp.telemetry.flow_control import FlowMetrics

MARGIN_S = 0.25
"""On top of the times after which a scrape must have shown something. Source: llm-d-router: pkg/epp/flowcontrol."""
MIN_GRACE_S = 0.01
_NOTHING = FlowControlConfig()


def flow_control_settings(instances: Instances, pool: PoolSettings) -> FlowControlSettings | None:
    """The settings; None if the feature gate is off."""
    config = instances.config
    if not config.enabled(Gate.FLOW_CONTROL):
        return None
    section = config.flow_control or _NOTHING
    ttl_s = section.default_request_ttl_s or 0.0
    empty_pool_ttl_s = section.no_endpoint_request_ttl_s
    template = _band(instances, section.default_priority_band, ttl_s)
    negative = section.default_negative_priority_band
    return FlowControlSettings(
        detector=_named(instances, config.detector or "", SaturationDetector),
        usage=_named(instances, section.usage_limit_policy or defaults.USAGE_LIMIT_POLICY, UsageLimitPolicy),
        template=template,
        negative_template=_band(instances, negative, ttl_s) if negative is not None else template,
        bands={band.priority: _band(instances, band, ttl_s) for band in section.priority_bands if band.priority is not None},
        max_requests=section.max_requests or 0,
        max_bytes=section.max_bytes or 0,
        empty_pool_ttl_s=ttl_s if empty_pool_ttl_s is None else empty_pool_ttl_s,
        eviction=_eviction(instances, pool) if section.enable_eviction else None,
    )


def start_flow_control(
    settings: FlowControlSettings,
    store: EndpointStore,
    objects: ObjectStore,
    metrics: FlowMetrics,
    defects: Defects,
    *,
    clock: Callable[[], float] = time.monotonic,
    stopwatch: Callable[[], float] = time.perf_counter,
) -> FlowController:
    """Flow control of a pool, told of all that changes: endpoints, their metrics, the priorities of objectives."""
    control = FlowController(settings, store.candidates, metrics, defects, clock=clock, stopwatch=stopwatch)
    metrics.watch(lambda: snapshot(control, clock()))
    store.subscribe(control)
    store.on_scrape(control.scraped)
    control.want(objects.priorities)
    objects.on_change(lambda: control.want(objects.priorities))
    return control


def _band(instances: Instances, band: BandTemplate | None, ttl_s: float) -> BandSettings:
    band = band or BandTemplate()
    return BandSettings(
        fairness=_named(instances, band.fairness_policy or defaults.FAIRNESS_POLICY, FairnessPolicy),
        ordering=_named(instances, band.ordering_policy or defaults.ORDERING_POLICY, OrderingPolicy),
        max_requests=band.max_requests or MAX_REQUESTS,
        max_bytes=band.max_bytes or MAX_BYTES,
        max_flow_requests=band.max_flow_requests or 0,
        max_flow_bytes=band.max_flow_bytes or 0,
        ttl_s=ttl_s if band.default_request_ttl_s is None else band.default_request_ttl_s,
        min_share=(band.min_share or 0.0) if isinstance(band, PriorityBand) else 0.0,
    )


def _eviction(instances: Instances, pool: PoolSettings) -> EvictionSettings:
    detector = instances.by_name[instances.config.detector or ""]
    grace_s = pool.refresh_interval_s + pool.staleness_threshold_s + MARGIN_S
    if isinstance(detector, CountsCredits):
        grace_s = max(detector.shows_after_s, MIN_GRACE_S)
    return EvictionSettings(
        _first(instances, Role.EVICTION_FILTER, EvictionFilter),
        _first(instances, Role.EVICTION_ORDER, EvictionOrderPolicy),
        grace_s=grace_s,
    )


def _first(instances: Instances, role: Role, protocol: type[Any]) -> Named[Any]:
    """The first declared plugin with a role, or the one that the defaults added."""
    found: LoadedPlugin | None = next((plugin for plugin in instances.config.plugins if plugin.has(role)), None)
    return _named(instances, found.name if found is not None else "", protocol)


def _named(instances: Instances, name: str, protocol: type[Any]) -> Named[Any]:
    """The plugin of this name.

    Raises:
        EppError: there is none, or its type claims a role that its instance cannot play.
    """
    plugin = instances.by_name.get(name)
    if plugin is None:
        msg = f"flow control needs the plugin {name!r}, which does not exist"
        raise EppError(msg)
    plugin_type = instances.config.plugin(name).type
    if not isinstance(plugin, protocol):
        msg = (
            f"flow control cannot use the plugin {name!r}: its type {plugin_type.type} of {plugin_type.package} claims to be "
            f"a {protocol.__name__}, but {type(plugin).__name__} lacks some of its members; see epp/framework/flow_control.py"
        )
        raise EppError(msg)
    return Named(plugin, plugin_type.type, name)
