"""What plugins need of each other: references in their parameters, and data that one writes and another reads."""

from __future__ import annotations

import heapq
from typing import Any

from epp.config.draft import ROLE_WORDS, Draft, DraftPlugin, Wanted
from epp.config.parameters import locate
from epp.config.wording import show
from epp.framework.data import Consumes, DataKey, Scope
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
        referrer=plugin.type.type if plugin.type is not None else "",
    )
    if (marker.required and use.given) or use.value in draft.plugins:
        return draft.resolve(use.value, path, at, wanted)
    if use.given and draft.knows_all_plugins:
        message, fix = draft.undefined(use.value, wanted)
        parameter = ".".join(use.path)
        draft.report.warn("WRN014", path, f"{message}: {parameter} has no effect", fix, value=use.value, at=at)
    return None


def _follow_data(draft: Draft, plugin: DraftPlugin, chosen: list[DraftPlugin]) -> list[str]:
    """Names of the plugins that write what this one reads."""
    names = []
    for needs in plugin.type.consumes if plugin.type is not None else ():
        if needs.when is not None and (plugin.params is None or not needs.when(plugin.params)):
            continue
        if needs.unless and any(other.spec is not None for other in draft.of_type(needs.unless)):
            continue
        key: DataKey[Any] = needs.key
        producer = _producer(draft, needs, chosen)
        if producer is None or producer.spec is None:
            _warn_of_undeclared(draft, plugin, needs)
        # Metrics are columns that exist in any case; a declared extractor may still tell the reader something.
        is_required = needs.required and key.scope is not Scope.METRICS
        if producer is None and is_required:
            producer = draft.add(key.producer) if key.producer else None
            if producer is None:
                _miss_producer(draft, plugin, key)
        if producer is not None and producer is not plugin:
            _check_value_type(draft, plugin, producer, key)
            if is_required or producer in chosen:
                _check_is_built(draft, plugin, producer, key)
            names.append(producer.name)
    return names


def _warn_of_undeclared(draft: Draft, plugin: DraftPlugin, needs: Consumes) -> None:
    if needs.undeclared is None or plugin.spec is None or plugin.params is None or draft.document.is_builtin:
        return
    said = needs.undeclared(plugin.params)
    if said:
        message, _, fix = said.partition("; ")
        at, name = plugin.place(), show(plugin.name)
        draft.report.warn("WRN025", f"{plugin.path}.type", f"the plugin {name} {message}", fix, value=plugin.name, at=at)


def _producer(draft: Draft, needs: Consumes, chosen: list[DraftPlugin]) -> DraftPlugin | None:
    """Who writes what is needed, in the order that ``Consumes`` describes.

    The last step matters where several types write the same data, such as a scorer with an index of its own.
    """
    key: DataKey[Any] = needs.key
    named = [draft.plugins[key.producer]] if key.producer in draft.plugins else []
    usual = [plugin for name in (key.producer, *needs.prefer) for plugin in draft.of_type(name)]
    others = sorted(draft.plugins.values(), key=lambda plugin: plugin.has(Role.SCORER))
    for candidate in (*chosen, *named, *usual):
        if candidate.type is None or _writes(candidate, key):
            return candidate
    return next((candidate for candidate in others if _writes(candidate, key)), None)


def _writes(plugin: DraftPlugin, key: DataKey[Any]) -> bool:
    return plugin.type is not None and any(produced.name == key.name for produced in plugin.type.produces)


def _check_is_built(draft: Draft, plugin: DraftPlugin, producer: DraftPlugin, key: DataKey[Any]) -> None:
    """A declared plugin without its data would only seem to work; a declared producer is reported itself."""
    if plugin.spec is None or producer.spec is not None or plugin.type is None or producer.type is None:
        return
    if producer.type.is_built or not plugin.type.is_built or draft.document.is_builtin:
        return
    message = (
        f"the plugin {show(plugin.name)} needs the data {key.name}, and the plugin type that writes it, "
        f"{producer.type.type}, is not built yet"
    )
    path, at = f"{plugin.path}.type", plugin.place()
    if draft.flags.for_serve:
        fix = "remove it to serve this configuration"
        draft.report.error("CFG059", path, message, fix, value=plugin.name, at=at)
    else:
        draft.report.inform("INF001", path, message, "`epp serve` refuses it", value=plugin.name, at=at)


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
