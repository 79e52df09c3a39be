"""``apiVersion``, ``kind`` and the feature gates."""

from __future__ import annotations

from collections.abc import Mapping

from epp.config.report import Report
from epp.config.schema import Document, Headed
from epp.config.wording import show, suggest
from epp.config.yaml_nodes import ListNode, MapNode, Place, ScalarNode
from epp.errors import Edit
from epp.framework.registry import Gate

API_VERSION = "inference.networking.x-k8s.io/v1alpha1"
KIND = "EndpointPickerConfig"
POOLS_KIND = "EndpointPickerPools"
"""Of the file that names several pools, each with a document of its own."""
_MISSPELT = (
    "inference.networking.k8s-x.io/v1alpha1",
    "config.apix.gateway-api-inference-extension.sigs.k8s.io/v1alpha1",
)
"""Groups that published pages write and that no version has had."""
_OTHERS = ("llm-d.ai/v1alpha1", "llm-d.ai/v1", "mif.moreh.io/v1alpha1")
ACCEPTED_VERSIONS = (API_VERSION, *_OTHERS, *_MISSPELT)
"""All values of ``apiVersion`` that are read."""
_OTHER_KINDS = {
    KIND: "this configures one pool: name it as configFile of a pool, or pass it with --config-file",
    POOLS_KIND: "this names several pools: pass it with --pools-file",
}
"""What to do with a document of the other kind."""
_MANIFEST_FIX = "this is the manifest of a ConfigMap; pass the content of data['config.yaml']"

_DEFAULTS: Mapping[str, bool] = {
    Gate.DATA_LAYER: False,
    Gate.PREPARE_DATA: False,
    Gate.FLOW_CONTROL: False,
    "haPopulateNonLeaderDatastore": True,
    "enableLegacyMetrics": False,
    "experimentalPlugins": False,
    "disableDataLayer": False,
    "pluggableParser": False,
}
"""Every gate that one of the pickers knows, with its default."""
_WITHOUT_EFFECT = {
    "enableLegacyMetrics": "use the flag --legacy-metrics",
    "experimentalPlugins": "use the flag --allow-experimental-plugins",
    "disableDataLayer": "remove it; `dataLayer: {injectDefaults: false}` leaves out the default metrics source",
    "pluggableParser": "remove it; parsers can always be chosen",
}
_LITERALS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def kind_of(root: MapNode) -> str:
    """What a document says it is; "" if it does not."""
    entry = root.entries.get("kind")
    return (
        entry.node.value
        if entry is not None and isinstance(entry.node, ScalarNode) and isinstance(entry.node.value, str)
        else ""
    )


def refuse_manifest(root: MapNode, report: Report) -> None:
    """The manifest around a configuration is a frequent mistake, and nothing in it is worth a finding of its own.

    Raises:
        UnreadableError: the document is a ConfigMap.
    """
    version = root.entries.get("apiVersion")
    if kind_of(root) != "ConfigMap":
        return
    if version is not None and isinstance(version.node, ScalarNode):
        message = f"apiVersion {show(version.node.value)} is not accepted; it must be {API_VERSION}"
        at = version.node.place
        report.error("CFG021", "apiVersion", message, _MANIFEST_FIX, value=version.node.value, at=at)
    message = f"kind {show(kind_of(root))} is not {show(KIND)}"
    at = root.entries["kind"].node.place
    raise report.stop("CFG022", "kind", message, _MANIFEST_FIX, value=kind_of(root), at=at)


def check_header(document: Headed, report: Report, kind: str = KIND) -> None:
    """Report an ``apiVersion`` or ``kind`` that is missing or not ours.

    The group selects nothing: one schema and one set of defaults hold for all of them.

    Args:
        kind: of the document that is wanted.
    """
    at = document.place("apiVersion")
    edit = (Edit.REPLACE, API_VERSION) if document.api_version else (Edit.ADD_LINE, f"apiVersion: {API_VERSION}")
    if not document.api_version and "apiVersion" not in document.broken:
        report.warn("WRN002", "apiVersion", "apiVersion is missing", f"write `apiVersion: {API_VERSION}`", at=at, edit=edit)
    elif document.api_version in _MISSPELT:
        message = f"the group of {document.api_version} is misspelt"
        report.warn("WRN001", "apiVersion", message, f"write {API_VERSION}", value=document.api_version, at=at, edit=edit)
    elif document.api_version and document.api_version not in (API_VERSION, *_OTHERS):
        message = f"apiVersion {show(document.api_version)} is not accepted"
        fix = f"use {API_VERSION} (or one of {', '.join(_OTHERS)})"
        report.error("CFG021", "apiVersion", message, fix, value=document.api_version, at=at)
    _check_kind(document, report, kind)


def _check_kind(document: Headed, report: Report, kind: str) -> None:
    at = document.place("kind")
    if not document.kind and "kind" not in document.broken:
        edit = (Edit.ADD_LINE, f"kind: {kind}")
        report.warn("WRN002", "kind", "kind is missing", f"write `kind: {kind}`", at=at, edit=edit)
    elif document.kind and document.kind != kind:
        fix = _OTHER_KINDS.get(document.kind, f"write `kind: {kind}`")
        report.error("CFG022", "kind", f"kind {show(document.kind)} is not {show(kind)}", fix, value=document.kind, at=at)


def read_gates(document: Document, report: Report) -> dict[str, bool]:
    """The state of every known gate; of several entries for one gate the last one counts."""
    gates = dict(_DEFAULTS)
    entry = document.node.entries.get("featureGates") if document.node is not None else None
    items = entry.node.items if entry is not None and isinstance(entry.node, ListNode) else ()
    given: dict[str, bool] = {}
    for index, item in enumerate(items):
        if not isinstance(item, ScalarNode) or not isinstance(item.value, str):
            continue
        gate = _gate(item.value, f"featureGates[{index}]", item.place, report)
        if gate is None:
            continue
        name, value = gate
        if given.get(name, value) is not value:
            message = f"the gate {name} is given twice with different values; the last one counts: {str(value).lower()}"
            report.warn("WRN008", f"featureGates[{index}]", message, "keep one of them", value=item.value, at=item.place)
        gates[name] = given[name] = value
    return gates


def _gate(entry: str, path: str, at: Place, report: Report) -> tuple[str, bool] | None:
    name, equals, text = entry.partition("=")
    name = name.strip()
    if name not in _DEFAULTS:
        fix = suggest(name, _DEFAULTS)
        report.error("CFG041", path, f"no feature gate is named {show(name)}", fix, value=entry, at=at)
        return None
    value = _LITERALS.get(text.strip().lower()) if equals else True
    if value is None:
        fix = f"write {name}, {name}=true or {name}=false"
        report.error("CFG042", path, f"{show(entry)} is not a gate with a value", fix, value=entry, at=at)
        return None
    if name in _WITHOUT_EFFECT:
        edit = (Edit.DROP_ITEM, "")
        report.warn("WRN008", path, f"the gate {name} has no effect", _WITHOUT_EFFECT[name], value=entry, at=at, edit=edit)
    return name, value


def known_gates() -> frozenset[str]:
    """The names of all gates."""
    return frozenset(_DEFAULTS)


def changed_gates(gates: Mapping[str, bool]) -> list[str]:
    """The entries of ``featureGates`` that lead to these states."""
    return [
        f"{name}={str(value).lower()}"
        for name, value in gates.items()
        if value is not _DEFAULTS[name] and name not in _WITHOUT_EFFECT
    ]
