"""What plugins need of each other: references in their parameters, and data that one writes and another reads."""

from __future__ import annotations

import heapq
from typing import Any

from epp.config.draft import ROLE_WORDS, Draft, DraftPlugin, Wanted
from epp.config.parameters import locate
from epp.config.wording import show
from epp.framework.data import DataKey, Scope
from epp.framework.interfaces import HOOK_ROLES, Role
from epp.framework.params import PluginReference, ReferenceUse, references
from epp.framework.registry import Gate


def connect_plugins(draft: Draft) -> None:
    """Fill ``draft.reads_from``, adding producers of required data that nobody declared, and theirs in turn."""
    done: set[str] = set()
    while pending := [plugin for name, plugin in draft.plugins.items() if name not in done]:
        for plugin in pending:
            done.add(plugin.name)
            needed = draft.reads_from.setdefault(plugin.name, set())
            producers = _follow_references(draft, plugin, needed)
            needed.update(_follow_data(draft, plugin, producers))


def _follow_references(draft: Draft, plugin: DraftPlugin, needed: set[str]) -> list[DraftPlugin]:
    """The plugins that the parameters name."""
    found: list[DraftPlugin] = []
    for use in references(plugin.params) if plugin.params is not None else ():
        if isinstance(use.marker, PluginReference):
            other = _resolve(draft, plugin, use, use.marker)
            if other is not None:
                found.append(other)
    needed.update(other.name for other in found)
    return found


def _resolve(draft: Draft, plugin: DraftPlugin, use: ReferenceUse, marker: PluginReference) -> DraftPlugin | None:
    path, at = locate(plugin, use.path)
    role = marker.role
    wanted = Wanted(
        roles=frozenset({role}) if role is not None else frozenset(),
        words=ROLE_WORDS[role] if role is not None else "a plugin",
        undefined="CFG057",
        wrong="CFG069" if role is Role.DECIDER else "CFG057",
        creates=role is Role.DATA_PRODUCER,
    )
    if marker.required or use.value in draft.plugins:
        return draft.resolve(use.value, path, at, wanted)
    if draft.knows_all_plugins:
        message, fix = draft.undefined(use.value, wanted)
        parameter = ".".join(use.path)
        draft.report.warn("WRN014", path, f"{message}: {parameter} has no effect", fix, value=use.value, at=at)
    return None


def _follow_data(draft: Draft, plugin: DraftPlugin, chosen: list[DraftPlugin]) -> list[str]:
    """Names of the plugins that write what this one reads."""
    names = []
    for needs in plugin.type.consumes if plugin.type is not None else ():
        key: DataKey[Any] = needs.key
        if key.scope is Scope.METRICS:
            continue
        producer = _producer(draft, key, chosen)
        if producer is None and needs.required:
            producer = draft.add(key.producer) if key.producer else None
            if producer is None:
                _miss_producer(draft, plugin, key)
        if producer is not None and producer is not plugin:
            _check_value_type(draft, plugin, producer, key)
            names.append(producer.name)
    return names


def _producer(draft: Draft, key: DataKey[Any], chosen: list[DraftPlugin]) -> DraftPlugin | None:
    """Who writes ``key``: a plugin that the parameters name, else one of the usual name, else one of the usual type."""
    named = [draft.plugins[key.producer]] if key.producer in draft.plugins else []
    for candidate in chosen + named + draft.of_type(key.producer):
        if candidate.type is None or any(produced.name == key.name for produced in candidate.type.produces):
            return candidate
    return None


def _miss_producer(draft: Draft, plugin: DraftPlugin, key: DataKey[Any]) -> None:
    message = f"the plugin {show(plugin.name)} needs the data {key.name}, but no plugin writes it"
    fix = f"declare a plugin of type {key.producer}" if draft.registry.get(key.producer) else "remove the plugin"
    draft.report.error("CFG110", f"{plugin.path}.type", message, fix, value=key.name, at=plugin.place())


def _check_value_type(draft: Draft, plugin: DraftPlugin, producer: DraftPlugin, key: DataKey[Any]) -> None:
    for produced in producer.type.produces if producer.type is not None else ():
        if produced.name == key.name and produced.value_type is not key.value_type:
            message = (
                f"the plugin {show(plugin.name)} reads {key.name} as {key.value_type.__name__}, "
                f"but {show(producer.name)} writes it as {produced.value_type.__name__}"
            )
            fix = "use another producer"
            draft.report.error("CFG110", f"{plugin.path}.type", message, fix, value=key.name, at=plugin.place())


def creation_order(draft: Draft) -> list[str]:
    """Every plugin after those that it needs; among several that are ready the one declared first."""
    position = {name: index for index, name in enumerate(draft.plugins)}
    waiting = {name: {other for other in draft.reads_from[name] if other != name} for name in draft.plugins}
    ready = [position[name] for name, needs in waiting.items() if not needs]
    names = list(draft.plugins)
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for other, needs in waiting.items():
            if name in needs:
                needs.remove(name)
                if not needs:
                    heapq.heappush(ready, position[other])
    if len(order) < len(names):
        _report_cycle(draft, {name: needs for name, needs in waiting.items() if needs})
    return order


def _report_cycle(draft: Draft, waiting: dict[str, set[str]]) -> None:
    seen: list[str] = []
    name = next(iter(waiting))
    while name not in seen:
        seen.append(name)
        name = next(other for other in draft.plugins if other in waiting[name])
    cycle = [*seen[seen.index(name) :], name]
    plugin = draft.plugins[cycle[0]]
    message = f"plugins need each other in a circle: {' → '.join(cycle)}"
    path = f"{plugin.path}.type"
    draft.report.error("CFG055", path, message, "remove one of these references", value=cycle[0], at=plugin.place())


def apply_gates(draft: Draft) -> None:
    """Mark the plugins whose gate is off; data that another plugin reads is produced all the same."""
    read = {name for needs in draft.reads_from.values() for name in needs}
    for plugin in draft.plugins.values():
        gate = plugin.type.gate if plugin.type is not None else None
        if gate is None or draft.gates[gate]:
            continue
        plugin.active = gate is Gate.PREPARE_DATA and plugin.name in read
        if gate is Gate.PREPARE_DATA and not plugin.active and plugin.spec is not None:
            message = f"the plugin {show(plugin.name)} does nothing: the feature gate {gate} is off"
            fix = f"write `featureGates: [{gate}]`"
            draft.report.warn("WRN011", plugin.path, message, fix, value=plugin.name, at=plugin.place())


def report_unused(draft: Draft) -> None:
    """Plugins that only act where something refers to them, and nothing does."""
    used = {name for needs in draft.reads_from.values() for name in needs}
    used.update(draft.referred)
    used.update(plugin.name for profile in draft.profiles for plugin, _ in profile.refs)
    used.update(name for source in draft.sources for name in (source.name, *source.extractors))
    used.add(draft.detector or "")
    for plugin in draft.declared():
        if plugin.type is None or plugin.name in used or not plugin.type.roles <= _ONLY_BY_REFERENCE:
            continue
        message = f"nothing refers to the plugin {show(plugin.name)}: it does nothing"
        draft.report.inform("INF004", plugin.path, message, "refer to it or remove it", value=plugin.name, at=plugin.place())


_ONLY_BY_REFERENCE = frozenset(Role) - HOOK_ROLES - {Role.PROFILE_HANDLER}
"""Roles without any effect unless a reference activates them."""
