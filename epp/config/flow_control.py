"""``flowControl`` and ``saturationDetector``: completed and checked."""

from __future__ import annotations

from typing import Any

from epp.config import defaults
from epp.config.draft import Draft, DraftPlugin, wanted
from epp.config.environment import thresholds_of
from epp.config.schema import BandTemplate, DetectorConfig, FlowControlConfig
from epp.config.wording import show
from epp.config.yaml_nodes import plain
from epp.framework.interfaces import Role
from epp.framework.params import format_duration
from epp.framework.registry import Gate

_FAIRNESS = wanted(Role.FAIRNESS_POLICY, "CFG093", "CFG094")
_ORDERING = wanted(Role.ORDERING_POLICY, "CFG093", "CFG094")
_USAGE = wanted(Role.USAGE_LIMIT_POLICY, "CFG093", "CFG094")
_DETECTOR = wanted(Role.SATURATION_DETECTOR, "CFG095", "CFG095", creates=True)

_QUEUE, _KV, _STALENESS = "queueDepthThreshold", "kvCacheUtilThreshold", "metricsStalenessThreshold"
_CONCURRENCY, _CACHE = "maxConcurrencyPerPod", "cacheTTL"
_FIELDS = {
    defaults.DETECTOR: (_QUEUE, _KV, _STALENESS),
    defaults.DETECTORS["running-requests"]: (_CONCURRENCY, _CACHE),
}
"""Detector type → fields of the inline form that it uses."""
_DEFAULT_STALENESS_S = 0.2
_INLINE_NAME = "saturationDetector"
"""Of an anonymous detector whose type name is taken."""


def read_flow_control(draft: Draft) -> None:
    """Check the section and its references; also while its gate is off."""
    section = draft.document.flow_control
    on = draft.gates[Gate.FLOW_CONTROL]
    report = draft.report
    if section is not None:
        _check_bands(draft, section)
        if section.usage_limit_policy:
            name = "usageLimitPolicyPluginRef"
            draft.resolve(section.usage_limit_policy, section.child(name), section.place(name), _USAGE)
        only_detector = section.node is not None and set(section.node.entries) == {"saturationDetector"}
        if not on and not only_detector:
            message = "flowControl is given, but the feature gate flowControl is off: it does nothing"
            at = draft.document.key_place("flowControl")
            report.warn("WRN010", "flowControl", message, "write `featureGates: [flowControl]`", at=at)
    if not on:
        return
    if section is not None and section.enable_eviction:
        defaults.add_eviction_policies(draft)
    if section is None or not (section.default_request_ttl_s or "defaultRequestTTL" in section.broken):
        message = "flow control is on without a time limit: requests may wait in the queue for ever"
        at = draft.document.key_place("flowControl")
        report.warn("WRN020", "flowControl", message, "set flowControl.defaultRequestTTL, such as 30s", at=at)
    ordering = draft.registry.get(defaults.ORDERING_POLICY)
    if ordering is not None and not ordering.is_built:
        message = "flow control is not built yet: requests are not queued"
        at = draft.document.key_place("featureGates")
        report.inform("INF003", "flowControl", message, at=at)


def _check_bands(draft: Draft, section: FlowControlConfig) -> None:
    first: dict[int, str] = {}
    for band in section.priority_bands:
        _check_policies(draft, band)
        if band.priority is None:
            continue
        path, at = band.child("priority"), band.place("priority")
        if not -(2**31) <= band.priority < 2**31:
            message = f"{band.priority} is no priority"
            draft.report.error("CFG035", path, message, "use a 32-bit integer", value=band.priority, at=at)
        if band.priority in first:
            other = first[band.priority]
            message = f"{band.path} has the same priority as {other}: {band.priority}"
            draft.report.error("CFG091", path, message, "merge them", value=band.priority, at=at)
        first.setdefault(band.priority, band.path)
    _check_shares(draft, section)
    for template in (section.default_priority_band, section.default_negative_priority_band):
        if template is not None:
            _check_policies(draft, template)


def _check_shares(draft: Draft, section: FlowControlConfig) -> None:
    """Minimum shares are fractions of one whole."""
    total = 0.0
    for band in section.priority_bands:
        share = band.min_share
        if share is None:
            continue
        total += share
        if not 0 <= share < 1:
            path, at = band.child("minShare"), band.place("minShare")
            message = f"minShare {share:g} is no share: it is the fraction of all requests that the band gets at least"
            draft.report.error("CFG035", path, message, "use a number from 0 to below 1", value=share, at=at)
    if total > 1 + 1e-9:
        path, at = section.child("priorityBands"), section.key_place("priorityBands")
        message = f"the minimum shares of all bands add up to {total:g}, which is more than there is"
        draft.report.error("CFG035", path, message, "make them 1 together at most", value=total, at=at)


def _check_policies(draft: Draft, band: BandTemplate) -> None:
    if band.fairness_policy:
        name = "fairnessPolicyRef"
        draft.resolve(band.fairness_policy, band.child(name), band.place(name), _FAIRNESS)
    if band.ordering_policy:
        name = "orderingPolicyRef"
        draft.resolve(band.ordering_policy, band.child(name), band.place(name), _ORDERING)


def read_detector(draft: Draft) -> None:
    """Set ``draft.detector``: of two places ``flowControl.saturationDetector`` wins."""
    document = draft.document
    given = thresholds_of(draft.flags.environ, draft.report)
    nested = document.flow_control.saturation_detector if document.flow_control is not None else None
    if nested is not None and document.saturation_detector is not None:
        message = "saturationDetector is given here and in flowControl; the one in flowControl counts"
        at = document.key_place("saturationDetector")
        draft.report.warn("WRN023", "saturationDetector", message, "remove one of them", at=at)
    for config in (document.saturation_detector, nested):
        if config is not None:
            detector = _read_detector(draft, config, given)
            draft.detector = detector.name if detector is not None else None
    if nested is None and document.saturation_detector is None:
        detector = draft.add(defaults.DETECTOR, document=given)
        draft.detector = detector.name if detector is not None else None
    _check_staleness(draft)


def _read_detector(draft: Draft, config: DetectorConfig, given: dict[str, Any]) -> DraftPlugin | None:
    inline = [name for fields in _FIELDS.values() for name in fields if config.gives(name)]
    if config.plugin_ref and (inline or config.gives("type")):
        other = inline[0] if inline else "type"
        message = f"pluginRef and {other} exclude each other: a detector is either declared in plugins or written here"
        path, at = config.child(other), config.key_place(other)
        draft.report.error("CFG037", path, message, f"move {other} to the parameters of the plugin", at=at)
        return None
    if config.plugin_ref:
        return draft.resolve(config.plugin_ref, config.child("pluginRef"), config.place("pluginRef"), _DETECTOR)
    return _add_inline(draft, config, given)


def _add_inline(draft: Draft, config: DetectorConfig, given: dict[str, Any]) -> DraftPlugin | None:
    type_name = defaults.DETECTORS.get(config.type)
    if type_name is None:
        message = f"no detector is of type {show(config.type)}; utilization is used"
        legal = ", ".join(name for name in defaults.DETECTORS if name)
        at = config.place("type")
        draft.report.warn("WRN012", config.child("type"), message, f"use one of {legal}", value=config.type, at=at)
        type_name = defaults.DETECTOR
    used = _FIELDS[type_name]
    for fields in _FIELDS.values():
        for name in fields:
            if config.gives(name) and name not in used:
                message = f"{name} has no effect: it belongs to another type of detector"
                draft.report.warn("WRN012", config.child(name), message, "remove it", at=config.key_place(name))
    wrong = _out_of_range(draft, config, used)
    if config.broken:
        return None
    name = type_name if type_name not in draft.plugins else _INLINE_NAME
    written = _inline_parameters(draft, config, type_name, wrong)
    return draft.add(type_name, name, {**written, **given} if type_name == defaults.DETECTOR else written)


def _out_of_range(draft: Draft, config: DetectorConfig, used: tuple[str, ...]) -> set[str]:
    """Fields whose value is replaced by the default, as upstream does silently."""
    kv = config.kv_cache_util_threshold
    bad = {
        _QUEUE: (_not_positive(config.queue_depth_threshold), "5", "an integer above 0"),
        _KV: (kv is not None and not 0 < kv < 1, "0.8", "a number between 0 and 1, both excluded"),
        _STALENESS: (_not_positive(config.metrics_staleness_threshold_s), "200ms", "a duration above 0"),
        _CONCURRENCY: (_not_positive(config.max_concurrency_per_pod), "100", "an integer above 0"),
        _CACHE: (_not_positive(config.cache_ttl_s), "100ms", "a duration above 0"),
    }
    wrong = set()
    for name in used:
        is_bad, default, legal = bad[name]
        if is_bad and config.node is not None:
            value = plain(config.node.entries[name].node)
            message = f"{name} {show(value)} is out of range; the default {default} is used"
            draft.report.warn("WRN012", config.child(name), message, f"use {legal}", value=value, at=config.place(name))
            wrong.add(name)
    return wrong


def _not_positive(value: float | None) -> bool:
    return value is not None and value <= 0


def _inline_parameters(draft: Draft, config: DetectorConfig, type_name: str, wrong: set[str]) -> dict[str, Any]:
    plugin_type = draft.registry.get(type_name)
    if plugin_type is None or config.node is None:
        return {}
    known = {info.alias or name for name, info in plugin_type.params.model_fields.items()}
    document = plain(config.node)
    assert isinstance(document, dict)
    return {key: value for key, value in document.items() if key in known and key not in wrong}


def _check_staleness(draft: Draft) -> None:
    """Metrics older than the threshold read as a full pool, so that a threshold near the interval refuses requests."""
    refresh_s = draft.flags.metrics_flags.refresh_interval_s
    document = draft.document
    nested = document.flow_control.saturation_detector if document.flow_control is not None else None
    config = nested or document.saturation_detector
    threshold_s = config.metrics_staleness_threshold_s if config is not None else None
    if threshold_s is not None and config is not None and not config.plugin_ref:
        path, at = config.child(_STALENESS), config.place(_STALENESS)
    else:
        plugin = draft.plugins.get(draft.detector or "")
        threshold_s = getattr(plugin.params, "metrics_staleness_threshold", None) if plugin is not None else None
        path, at = (plugin.path, plugin.place("parameters")) if plugin is not None else ("", document.place())
    if threshold_s is None or threshold_s <= 0 or threshold_s >= 2 * refresh_s:
        return
    shown = format_duration(threshold_s)
    message = f"metrics older than {shown} count as a full pool, but they are read only every {format_duration(refresh_s)}"
    fix = f"use at least {format_duration(2 * refresh_s)}, or lower --refresh-metrics-interval"
    draft.report.warn("WRN013", path, message, fix, value=shown, at=at)


def check_metrics_for_detector(draft: Draft) -> None:
    """Without metrics the utilization detector reads as full for ever."""
    detector = draft.plugins.get(draft.detector or "")
    section = draft.document.data_layer or draft.document.data
    if detector is None or not detector.is_type(defaults.DETECTOR) or section is None:
        return
    scraped = any(source.active and draft.plugins[source.name].is_type(defaults.METRICS_SOURCE) for source in draft.sources)
    if draft.gates[Gate.FLOW_CONTROL] and not scraped and section.inject_defaults is False:
        message = "flow control is on, but no metrics are read: the pool reads as full for ever"
        path, at = section.child("injectDefaults"), section.place("injectDefaults")
        draft.report.warn("WRN022", path, message, "remove injectDefaults, or use another detector", at=at)
