"""A complete configuration that shows a plugin type at work.

Made from the type's ``example`` and roles: an example may be the parameters, or, where other plugins matter, the body of a
document with ``plugins``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import yaml

from epp.config.defaults import DEFAULT_PROFILE, MAX_SCORE_PICKER
from epp.framework.interfaces import SCHEDULING_ROLES, Role
from epp.framework.params import PluginReference, ProfileReference, ReferenceUse, references
from epp.framework.registry import Gate, PluginType, Registry

HEADER = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
_FLOW_CONTROL = {
    Role.FAIRNESS_POLICY: "  priorityBands:\n  - priority: 0\n    fairnessPolicyRef: {name}\n",
    Role.ORDERING_POLICY: "  priorityBands:\n  - priority: 0\n    orderingPolicyRef: {name}\n",
    Role.USAGE_LIMIT_POLICY: "  usageLimitPolicyPluginRef: {name}\n",
}


def example(plugin_type: PluginType, registry: Registry) -> str:
    """The document, as YAML text."""
    if "plugins:" in plugin_type.example:
        return HEADER + textwrap.dedent(plugin_type.example).strip() + "\n"
    gates = [gate for gate in (plugin_type.gate, _flow_control_gate(plugin_type)) if gate]
    text = HEADER
    if gates:
        text += f"featureGates: [{', '.join(dict.fromkeys(gates))}]\n"
    text += "plugins:\n" + _entry(plugin_type.type, plugin_type.example)
    needed = [_entry(other.type, other.example if _has_required(other) else "") for other in _needed(plugin_type, registry)]
    text += "".join(dict.fromkeys(needed))
    return text + "".join(_sections(plugin_type, registry))


def _entry(type_name: str, parameters: str) -> str:
    entry = f"- type: {type_name}\n"
    if parameters.strip():
        entry += "  parameters:\n" + textwrap.indent(textwrap.dedent(parameters).strip("\n"), "    ") + "\n"
    return entry


def _has_required(plugin_type: PluginType) -> bool:
    try:
        plugin_type.params.decode({})
    except ValueError:
        return True
    return False


def _needed(plugin_type: PluginType, registry: Registry) -> Iterator[PluginType]:
    """What the document needs besides: plugins that the parameters name by type, filters of the profiles, a picker."""
    names = [use.value for use in _uses(plugin_type) if isinstance(use.marker, PluginReference) and use.given]
    if Role.PROFILE_HANDLER in plugin_type.roles:
        names += [f"{profile}-filter" for profile in _profiles(plugin_type)]
    if Role.PICKER not in plugin_type.roles:
        names.append(MAX_SCORE_PICKER)
    yield from filter(None, map(registry.get, names))


def _profiles(plugin_type: PluginType) -> list[str]:
    """The profiles that a profile handler's parameters name."""
    return [use.value for use in _uses(plugin_type) if isinstance(use.marker, ProfileReference)]


def _uses(plugin_type: PluginType) -> Iterator[ReferenceUse]:
    return references(plugin_type.params.decode(yaml.safe_load(plugin_type.example) or {}))


def _flow_control_gate(plugin_type: PluginType) -> Gate | None:
    return Gate.FLOW_CONTROL if plugin_type.roles & _FLOW_CONTROL.keys() else None


def _sections(plugin_type: PluginType, registry: Registry) -> Iterator[str]:
    name, roles = plugin_type.type, plugin_type.roles
    yield "schedulingProfiles:\n"
    profiles = _profiles(plugin_type) if Role.PROFILE_HANDLER in roles else []
    for profile in profiles or [DEFAULT_PROFILE]:
        refs = [f"{profile}-filter"] if profiles and registry.get(f"{profile}-filter") else []
        refs += [name] if roles & SCHEDULING_ROLES else []
        refs += [MAX_SCORE_PICKER] if Role.PICKER not in roles else []
        yield f"- name: {profile}\n  plugins:\n" + "".join(f"  - pluginRef: {ref}\n" for ref in refs)
    if Role.PARSER in roles:
        yield f"requestHandler:\n  parsers:\n  - pluginRef: {name}\n"
    if Role.DISCOVERY in roles:
        yield f"dataLayer:\n  discovery:\n    pluginRef: {name}\n"
    if Role.SATURATION_DETECTOR in roles:
        yield f"saturationDetector:\n  pluginRef: {name}\n"
    for role, section in _FLOW_CONTROL.items():
        if role in roles:
            yield "flowControl:\n  defaultRequestTTL: 30s\n" + section.format(name=name)
