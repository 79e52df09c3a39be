"""``data`` or ``dataLayer``, and the request parsers: completed and checked."""

from __future__ import annotations

from epp.config import defaults
from epp.config.draft import Draft, DraftPlugin, DraftSource, Wanted, wanted
from epp.config.schema import DataLayerConfig, DataSourceConfig, DiscoveryConfig, Reference, Section
from epp.config.wording import show
from epp.errors import Edit
from epp.framework.interfaces import Role
from epp.framework.registry import Gate

_SOURCE = wanted(Role.DATA_SOURCE, "CFG082", "CFG083")
_EXTRACTOR = Wanted(
    frozenset({Role.EXTRACTOR, Role.ENDPOINT_EXTRACTOR, Role.OBJECT_EXTRACTOR}), "an extractor", "CFG082", "CFG084"
)
_EVENTS = {
    Role.ENDPOINT_EXTRACTOR: ("endpoints", defaults.ENDPOINT_SOURCE),
    Role.OBJECT_EXTRACTOR: ("Kubernetes objects", defaults.OBJECT_SOURCE),
}
"""Of what an extractor of events hears, and the type of source that tells of it."""
_DISCOVERY = wanted(Role.DISCOVERY, "CFG086", "CFG086")
_PEERS = wanted(Role.PEER_DISCOVERY, "CFG086", "CFG086")
_ANY = Wanted(frozenset(), "a plugin", "CFG082", "CFG082")
_PARSER = wanted(Role.PARSER, "CFG100", "CFG101", creates=True)


def read_data_layer(draft: Draft) -> None:
    """Fill ``draft.sources`` and ``draft.discovery``."""
    document, report = draft.document, draft.report
    if document.gives("data") and document.gives("dataLayer"):
        message = "data and dataLayer are the same section under two names; both are given"
        report.error("CFG080", "dataLayer", message, "merge them into one", at=document.key_place("dataLayer"))
        return
    section = document.data_layer or document.data
    active = True
    if section is None:
        _check_gate(draft)
    else:
        active = document.data_layer is not None or draft.gates[Gate.DATA_LAYER]
        if not active:
            message = "data is given, but the feature gate dataLayer is off: its sources do nothing"
            report.warn("WRN009", "data", message, "write `featureGates: [dataLayer]`", at=document.key_place("data"))
        _read_section(draft, section, active)
    if section is None or section.inject_defaults is not False:
        _add_metrics_source(draft)


def _check_gate(draft: Draft) -> None:
    if not draft.gates[Gate.DATA_LAYER] or draft.document.broken & {"data", "dataLayer"}:
        return
    message = "the feature gate dataLayer is on, but there is no data section: only the default metrics source runs"
    at = draft.document.key_place("featureGates")
    draft.report.warn("CFG081", "featureGates", message, "give data.sources, or remove the gate", at=at)


def _read_section(draft: Draft, section: DataLayerConfig, active: bool) -> None:
    first: dict[str, str] = {}
    for config in section.sources:
        plugin = _reference(draft, config, _SOURCE)
        extractors = _extractors(draft, config, plugin)
        if plugin is None:
            continue
        if plugin.name in first:
            path = config.child("pluginRef")
            message = f"{config.path} is the same source as {first[plugin.name]}: {show(plugin.name)}"
            at = config.place("pluginRef")
            draft.report.error("CFG085", path, message, "merge their extractors", value=plugin.name, at=at)
            continue
        first[plugin.name] = config.path
        if not config.extractors and "extractors" not in config.broken:
            message = f"the source {show(plugin.name)} has no extractors: what it reads is thrown away"
            draft.report.warn("WRN024", config.path, message, "add extractors", value=plugin.name, at=config.place("pluginRef"))
        active_here = active or plugin.is_type(defaults.METRICS_SOURCE)
        draft.sources.append(DraftSource(plugin.name, extractors, active_here))
    if section.discovery is not None:
        _read_discovery(draft, section.discovery)
    _check_replicas(draft, section)


def _read_discovery(draft: Draft, discovery: DiscoveryConfig) -> None:
    """``discovery: {pluginRef: x}`` and ``discovery: {endpoints: {pluginRef: x}}`` mean the same."""
    if discovery.endpoints is not None and discovery.plugin_ref:
        message = "discovery.endpoints and discovery.pluginRef are the same reference in two places; endpoints wins"
        at = discovery.key_place("pluginRef")
        draft.report.warn("WRN007", discovery.child("pluginRef"), message, "remove pluginRef", at=at)
    if not (discovery.endpoints or discovery.peers or discovery.plugin_ref or discovery.broken):
        message, fix = "pluginRef is missing", "give the name of an entry of plugins"
        draft.report.error("CFG086", discovery.child("pluginRef"), message, fix, at=discovery.place("pluginRef"))
        return
    found = _reference(draft, discovery.endpoints or discovery, _DISCOVERY)
    draft.discovery = found.name if found is not None else None


def _extractors(draft: Draft, config: DataSourceConfig, source: DraftPlugin | None) -> list[str]:
    types: dict[str, str] = {}
    names = []
    for ref in config.extractors:
        plugin = _reference(draft, ref, _EXTRACTOR)
        if plugin is None or plugin.type is None:
            continue
        other = types.setdefault(plugin.type.type, plugin.name)
        if other != plugin.name or plugin.name in names:
            message = f"the source has two extractors of type {plugin.type.type}: {show(other)} and {show(plugin.name)}"
            at = ref.place("pluginRef")
            draft.report.error("CFG084", ref.child("pluginRef"), message, "remove one of them", value=plugin.name, at=at)
            continue
        role = _hears_elsewhere(plugin, source)
        if source is not None and role is not None:
            what, fitting = _EVENTS[role]
            message = f"{show(plugin.name)} hears of {what}, but the source {show(source.name)} tells of something else"
            fix = f"list it as an extractor of a plugin of type {fitting}"
            at = ref.place("pluginRef")
            draft.report.error("CFG084", ref.child("pluginRef"), message, fix, value=plugin.name, at=at)
            continue
        names.append(plugin.name)
    return names


def _hears_elsewhere(plugin: DraftPlugin, source: DraftPlugin | None) -> Role | None:
    """The role of an extractor of events that the source has nothing for; None if they fit."""
    roles = [role for role in _EVENTS if plugin.has(role)]
    if source is None or plugin.has(Role.EXTRACTOR) or any(source.is_type(_EVENTS[role][1]) for role in roles):
        return None
    return roles[0]


def _reference(draft: Draft, config: Reference, wanted_plugin: Wanted) -> DraftPlugin | None:
    if not config.plugin_ref:
        return None
    return draft.resolve(config.plugin_ref, config.child("pluginRef"), config.place("pluginRef"), wanted_plugin)


def _check_replicas(draft: Draft, section: DataLayerConfig) -> None:
    """Fields of llm-d's exchange of state between replicas: checked, but without effect."""
    if section.peer_discovery is not None:
        _reference(draft, section.peer_discovery, _PEERS)
    if section.discovery is not None and section.discovery.peers is not None:
        _reference(draft, section.discovery.peers, _PEERS)
        _warn_of_replicas(draft, section.discovery, "peers")
    if section.cross_replica_syncer:
        name = "crossReplicaSyncerPluginRef"
        draft.resolve(section.cross_replica_syncer, section.child(name), section.place(name), _ANY)
    if section.cross_replica is not None and section.cross_replica.syncer:
        inner, name = section.cross_replica, "syncerPluginRef"
        draft.resolve(inner.syncer, inner.child(name), inner.place(name), _ANY)
    for name in _OF_REPLICAS:
        _warn_of_replicas(draft, section, name)


_OF_REPLICAS = (
    "peerDiscovery",
    "crossReplica",
    "crossReplicaSyncerPluginRef",
    "crossReplicaSyncInterval",
    "crossReplicaPublishTimeout",
)


def _warn_of_replicas(draft: Draft, section: Section, name: str) -> None:
    if section.gives(name):
        message = f"{name} has no effect: replicas do not exchange state"
        draft.report.warn("WRN007", section.child(name), message, "remove it", at=section.key_place(name))


def _add_metrics_source(draft: Draft) -> None:
    """Compared by type: a renamed source must not lead to a second scraper."""
    for source in draft.sources:
        if source.active and draft.plugins[source.name].is_type(defaults.METRICS_SOURCE):
            return
    plugin, extractor = defaults.metrics_source(draft)
    if plugin is not None and extractor is not None:
        draft.sources.append(DraftSource(plugin.name, [extractor.name]))


def read_parsers(draft: Draft) -> None:
    """Fill ``draft.parsers``."""
    document, report = draft.document, draft.report
    handler = document.request_handler
    references = handler.parsers if handler is not None else ()
    if handler is not None and handler.gives("propagatePriority"):
        path, at = handler.child("propagatePriority"), handler.key_place("propagatePriority")
        report.warn("WRN007", path, "propagatePriority has no effect: engines are told no priority", "remove it", at=at)
    for older in (handler, document):
        if older is None or older.parser is None:
            continue
        more = "; requestHandler.parsers wins" if references else ""
        path, at, fix = older.child("parser"), older.key_place("parser"), "write `requestHandler: {parsers: [...]}`"
        edit = None if references else (Edit.LIST_PARSER, "")
        report.warn("WRN003", path, f"{path} is an older form{more}", fix, at=at, edit=edit)
        found = _reference(draft, older.parser, _PARSER)
        if not references:
            draft.parsers = [found.name] if found is not None else []
            return
    for ref in references:
        found = _reference(draft, ref, _PARSER)
        if found is not None and found.name not in draft.parsers:
            draft.parsers.append(found.name)
    if not references:
        draft.parsers = [plugin.name for name in defaults.PARSERS if (plugin := draft.add(name)) is not None]
