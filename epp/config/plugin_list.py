"""The entries of ``plugins``: names, types, parameters."""

from __future__ import annotations

from epp.config import defaults
from epp.config.draft import Draft, DraftPlugin
from epp.config.parameters import decode_parameters
from epp.config.schema import PluginSpec
from epp.config.wording import show, suggest
from epp.config.yaml_nodes import plain
from epp.errors import Edit
from epp.framework.registry import PluginType, Registry

_LONGEST_NAME = 253


def read_plugins(draft: Draft) -> None:
    """Fill ``draft.plugins`` from the document."""
    first: dict[str, PluginSpec] = {}
    for spec in draft.document.plugins:
        plugin_type = _type_of(draft, spec)
        name = spec.name or spec.type
        _check_name(draft, spec)
        if name in first:
            _duplicate(draft, spec, first[name])
            name = f"{name} in {spec.path}"
        elif name:
            first[name] = spec
        params = decode_parameters(spec, plugin_type, draft.report) if plugin_type is not None else None
        if name:
            document = plain(spec.parameters) if spec.parameters is not None else {}
            assert isinstance(document, dict)
            draft.plugins[name] = DraftPlugin(name, plugin_type, params, spec, document)


def _type_of(draft: Draft, spec: PluginSpec) -> PluginType | None:
    if not spec.type:
        return None
    plugin_type = draft.registry.get(spec.type)
    path, at, report = spec.child("type"), spec.place("type"), draft.report
    if plugin_type is None:
        message, fix = _unknown_type(draft.registry, spec.type)
        report.error("CFG052", path, message, fix, value=spec.type, at=at)
        return None
    alias = draft.registry.alias(spec.type)
    if alias is not None and alias.deprecated:
        message = f"{spec.type} is an older name of {plugin_type.type}"
        edit = (Edit.REPLACE, plugin_type.type)
        report.warn("WRN004", path, message, f"write {plugin_type.type}", value=spec.type, at=at, edit=edit)
    if plugin_type.type in defaults.OLDER_TYPES:
        newer = defaults.OLDER_TYPES[plugin_type.type]
        report.inform("WRN005", path, f"{plugin_type.type} has a more general form", f"see {newer}", value=spec.type, at=at)
    _judge_maturity(draft, spec, plugin_type)
    return plugin_type


def _unknown_type(registry: Registry, name: str) -> tuple[str, str]:
    """Message and fix."""
    was = registry.former(name)
    if was is not None:
        return f"the plugin type {name} of earlier versions became {was.successor}", f"write {was.successor}, {was.advice}"
    fix = suggest(name, registry.names())
    fix = f"{fix} (see --list-plugins)" if fix else "see --list-plugins for all types"
    return f"no plugin type is named {show(name)}", fix


def _judge_maturity(draft: Draft, spec: PluginSpec, plugin_type: PluginType) -> None:
    path, at, report = spec.child("type"), spec.place("type"), draft.report
    if plugin_type.experimental and not draft.flags.allow_experimental:
        message = f"the plugin type {spec.type} is experimental, and --allow-experimental-plugins is false"
        report.error("CFG049", path, message, "allow experimental plugins, or remove it", value=spec.type, at=at)
    elif plugin_type.experimental:
        message = f"the plugin type {spec.type} is experimental; llm-d refuses it without a flag"
        report.warn("WRN017", path, message, "expect changes", value=spec.type, at=at)
    if plugin_type.is_built or draft.document.is_builtin:
        return
    message = f"the plugin type {spec.type} is not built yet" + (
        f": it waits for {plugin_type.wait}" if plugin_type.wait else ""
    )
    if draft.flags.for_serve:
        report.error("CFG059", path, message, "remove it to serve this configuration", value=spec.type, at=at)
    else:
        report.inform("INF001", path, message, "`epp serve` refuses it", value=spec.type, at=at)


def _check_name(draft: Draft, spec: PluginSpec) -> None:
    problem = ""
    if spec.name != spec.name.strip():
        problem = "begins or ends with a blank"
    elif any(ord(character) < 32 or ord(character) == 127 for character in spec.name):
        problem = "contains a control character"
    elif len(spec.name) > _LONGEST_NAME:
        problem = f"has {len(spec.name)} characters; the limit is {_LONGEST_NAME}"
    elif not spec.name and spec.gives("name") and "name" not in spec.broken:
        problem = "is empty"
    if problem:
        message = f"the name {show(spec.name)} {problem}"
        draft.report.error("CFG035", spec.child("name"), message, "choose another name", value=spec.name, at=spec.place("name"))


def _duplicate(draft: Draft, spec: PluginSpec, first: PluginSpec) -> None:
    key = "name" if spec.gives("name") else "type"
    name = spec.name or spec.type
    message = f"{spec.path} has the same name as {first.path} (line {first.place().line}): {show(name)}"
    fix = "give one of them another name" if spec.gives("name") else "give one of them a name"
    draft.report.error("CFG051", spec.child(key), message, fix, value=name, at=spec.place(key))
