"""The completed document: what a configuration means once everything that was left out is written down.

Loading it again gives the same document. Parameters stand as they were written; their defaults are those of the plugin.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from epp.config.draft import Draft
from epp.config.header import API_VERSION, KIND, changed_gates
from epp.config.schema import DataLayerConfig
from epp.config.wording import MASK, is_secret
from epp.config.yaml_nodes import plain
from epp.config.yaml_scalars import resolve
from epp.framework.interfaces import Role

_CREDENTIALS = re.compile(r"(\w[\w+.-]*://)[^/\s]*@")


def effective_document(draft: Draft) -> dict[str, Any]:
    """The completed document of a draft without errors, secrets masked."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND}
    if gates := changed_gates(draft.gates):
        document["featureGates"] = gates
    document["plugins"] = [_plugin(draft, name) for name in draft.plugins]
    document["schedulingProfiles"] = [
        {
            "name": profile.name,
            "plugins": [
                {"pluginRef": plugin.name, "weight": weight} if plugin.has(Role.SCORER) else {"pluginRef": plugin.name}
                for plugin, weight in profile.refs
            ],
        }
        for profile in draft.profiles
    ]
    document |= _data(draft)
    if flow_control := _flow_control(draft):
        document["flowControl"] = flow_control
    if draft.detector is not None:
        document["saturationDetector"] = {"pluginRef": draft.detector}
    if draft.parsers:
        document["requestHandler"] = {"parsers": [{"pluginRef": name} for name in draft.parsers]}
    masked = mask(document)
    assert isinstance(masked, dict)
    return masked


def _plugin(draft: Draft, name: str) -> dict[str, Any]:
    plugin = draft.plugins[name]
    entry: dict[str, Any] = {"type": plugin.type.type if plugin.type is not None else "", "name": name}
    if plugin.document:
        entry["parameters"] = plugin.document
    return entry


def _data(draft: Draft) -> dict[str, Any]:
    section: DataLayerConfig | None = draft.document.data_layer or draft.document.data
    found: dict[str, Any] = {"injectDefaults": False}
    if draft.sources:
        found["sources"] = [
            {"pluginRef": source.name, "extractors": [{"pluginRef": name} for name in source.extractors]}
            for source in draft.sources
        ]
    if section is not None and section.node is not None:
        written = plain(section.node)
        assert isinstance(written, dict)
        found |= {key: value for key, value in written.items() if key not in ("sources", "injectDefaults")}
    inert = any(not source.active for source in draft.sources)
    return {"data" if inert else "dataLayer": found}


def _flow_control(draft: Draft) -> dict[str, Any]:
    section = draft.document.flow_control
    written = plain(section.node) if section is not None and section.node is not None else {}
    assert isinstance(written, dict)
    return {key: value for key, value in written.items() if key != "saturationDetector"}


def mask(value: object, key: str = "") -> object:
    """A copy without secrets: values under telling keys, and the credentials in URIs."""
    if isinstance(value, Mapping):
        return {name: mask(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [mask(item, key) for item in value]
    if not isinstance(value, str) or not value:
        return value
    return MASK if is_secret(key) else _CREDENTIALS.sub(rf"\1{MASK}@", value)


def fingerprint(document: Mapping[str, object]) -> str:
    """SHA-256 of a document, independent of how it is written."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: object) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if resolve(text)[0] != text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def to_yaml(document: Mapping[str, object]) -> str:
    """A document as YAML that loads to the same values."""
    text: str = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
