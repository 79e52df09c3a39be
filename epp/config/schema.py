"""The configuration document as frozen records.

One record for each kind of mapping. ``key(...)`` on a field says how its value is written in YAML and which codes its errors
have; ``decode`` reads by that alone. A record remembers the node it was read from, so that every later check can name the
place; a record without a node was added by the defaults.

Source: llm-d-router: apix/config/v1alpha1/endpointpickerconfig_types.go, and Heimdall's EndpointPickerConfig reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any

from epp.config.yaml_nodes import MapNode, Place


class Kind(StrEnum):
    """What a value must be; the text is how findings call it."""

    STRING = "a string"
    INTEGER = "an integer"
    NUMBER = "a number"
    BOOLEAN = "a boolean (true or false)"
    DURATION = "a duration"
    QUANTITY = "a quantity"
    MAPPING = "a mapping"
    SECTION = "a mapping "
    """A mapping with a record of its own."""
    STRINGS = "a list of strings"
    SECTIONS = "a list"


@dataclass(frozen=True, slots=True)
class Key:
    """How a field is written in YAML."""

    name: str
    kind: Kind
    record: type[Section] | None = None
    """Of a section, or of the entries of a list."""
    required: str = ""
    """Code of the error when it is missing or empty; "" = it may be."""
    negative: str = ""
    """Code of the error when it is below zero; "" = it may be."""
    form: str = ""
    """How a correct value looks, for the hint when it is of another kind; ``{}`` is the wrong value."""
    entry_form: str = ""
    """The same for the entries of a list."""


def key(name: str, kind: Kind, *, default: Any = None, **more: Any) -> Any:
    """A field of a record, read from the YAML key ``name``."""
    if kind in (Kind.STRINGS, Kind.SECTIONS):
        default = ()
    return field(default=default, metadata={"yaml": Key(name, kind, **more)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Base of all records."""

    path: str = ""
    node: MapNode | None = field(default=None, repr=False, compare=False)
    broken: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """YAML keys whose values could not be read; an error was reported for each."""

    def child(self, name: str) -> str:
        """Path of a key below this record."""
        return f"{self.path}.{name}" if self.path else name

    def place(self, name: str = "") -> Place:
        """Where the value of a key is; the record's own place if it is not given."""
        if self.node is None:
            return Place(0, 0)
        entry = self.node.entries.get(name)
        return entry.node.place if entry is not None else self.node.place

    def gives(self, name: str) -> bool:
        """The document has this key, with a value."""
        return self.node is not None and name in self.node.entries and not self.node.entries[name].node.is_null


@cache
def keys_of(record: type[Section]) -> Mapping[str, tuple[str, Key]]:
    """YAML key → (field name, key) of a record, in document order."""
    found = {}
    for item in fields(record):
        if "yaml" in item.metadata:
            entry: Key = item.metadata["yaml"]
            found[entry.name] = (item.name, entry)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec(Section):
    """One entry of ``plugins``."""

    type: str = key("type", Kind.STRING, default="", required="CFG050")
    name: str = key("name", Kind.STRING, default="")
    parameters: MapNode | None = key("parameters", Kind.MAPPING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlugin(Section):
    """A reference in a scheduling profile."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="", required="CFG062")
    weight: float | None = key("weight", Kind.NUMBER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingProfile(Section):
    """One entry of ``schedulingProfiles``."""

    name: str = key("name", Kind.STRING, default="", required="CFG060")
    plugins: tuple[ProfilePlugin, ...] = key(
        "plugins",
        Kind.SECTIONS,
        record=ProfilePlugin,
        form="write a list of `- pluginRef: ...`",
        entry_form="write `- pluginRef: {}`",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReference(Section):
    """A reference of the data layer: an extractor, or discovery."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="", required="CFG082")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSourceConfig(Section):
    """One entry of ``data.sources``."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="", required="CFG082")
    extractors: tuple[DataReference, ...] = key(
        "extractors", Kind.SECTIONS, record=DataReference, entry_form="write `- pluginRef: {}`"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryReference(Section):
    """A reference to what finds endpoints or peers."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="", required="CFG086")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLayerConfig(Section):
    """``data`` (Heimdall) or ``dataLayer`` (llm-d): the same section under two keys."""

    sources: tuple[DataSourceConfig, ...] = key(
        "sources", Kind.SECTIONS, record=DataSourceConfig, entry_form="write `- pluginRef: {}`"
    )
    inject_defaults: bool | None = key("injectDefaults", Kind.BOOLEAN)
    discovery: DiscoveryReference | None = key(
        "discovery", Kind.SECTION, record=DiscoveryReference, form="write `discovery: {{pluginRef: {}}}`"
    )
    peer_discovery: DiscoveryReference | None = key(
        "peerDiscovery", Kind.SECTION, record=DiscoveryReference, form="write `peerDiscovery: {{pluginRef: {}}}`"
    )
    cross_replica_syncer: str = key("crossReplicaSyncerPluginRef", Kind.STRING, default="")
    cross_replica_sync_interval_s: float | None = key("crossReplicaSyncInterval", Kind.DURATION, negative="CFG035")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig(Section):
    """``saturationDetector``: a reference, or the parameters of an anonymous detector."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="")
    type: str = key("type", Kind.STRING, default="")
    queue_depth_threshold: int | None = key("queueDepthThreshold", Kind.INTEGER)
    kv_cache_util_threshold: float | None = key("kvCacheUtilThreshold", Kind.NUMBER)
    metrics_staleness_threshold_s: float | None = key("metricsStalenessThreshold", Kind.DURATION)
    max_concurrency_per_pod: int | None = key("maxConcurrencyPerPod", Kind.INTEGER)
    cache_ttl_s: float | None = key("cacheTTL", Kind.DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandTemplate(Section):
    """``defaultPriorityBand`` and ``defaultNegativePriorityBand``."""

    priority: int | None = key("priority", Kind.INTEGER)
    max_bytes: int | None = key("maxBytes", Kind.QUANTITY, negative="CFG090")
    max_requests: int | None = key("maxRequests", Kind.QUANTITY, negative="CFG090")
    fairness_policy: str = key("fairnessPolicyRef", Kind.STRING, default="")
    ordering_policy: str = key("orderingPolicyRef", Kind.STRING, default="")
    default_request_ttl_s: float | None = key("defaultRequestTTL", Kind.DURATION, negative="CFG090")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityBand(BandTemplate):
    """One entry of ``flowControl.priorityBands``."""

    priority: int | None = key("priority", Kind.INTEGER, required="CFG033")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowControlConfig(Section):
    """``flowControl``; limits of 0 mean unlimited."""

    max_bytes: int | None = key("maxBytes", Kind.QUANTITY, negative="CFG090")
    max_requests: int | None = key("maxRequests", Kind.QUANTITY, negative="CFG090")
    default_request_ttl_s: float | None = key("defaultRequestTTL", Kind.DURATION, negative="CFG090")
    no_endpoint_request_ttl_s: float | None = key("noEndpointRequestTTL", Kind.DURATION, negative="CFG090")
    default_priority_band: BandTemplate | None = key("defaultPriorityBand", Kind.SECTION, record=BandTemplate)
    default_negative_priority_band: BandTemplate | None = key("defaultNegativePriorityBand", Kind.SECTION, record=BandTemplate)
    priority_bands: tuple[PriorityBand, ...] = key(
        "priorityBands", Kind.SECTIONS, record=PriorityBand, entry_form="write `- priority: {}`"
    )
    usage_limit_policy: str = key("usageLimitPolicyPluginRef", Kind.STRING, default="")
    saturation_detector: DetectorConfig | None = key("saturationDetector", Kind.SECTION, record=DetectorConfig)
    enable_eviction: bool | None = key("enableEviction", Kind.BOOLEAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserReference(Section):
    """A reference to a parser."""

    plugin_ref: str = key("pluginRef", Kind.STRING, default="", required="CFG100")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHandlerConfig(Section):
    """``requestHandler``."""

    parsers: tuple[ParserReference, ...] = key(
        "parsers", Kind.SECTIONS, record=ParserReference, entry_form="write `- pluginRef: {}`"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Section):
    """The whole document."""

    api_version: str = key("apiVersion", Kind.STRING, default="")
    kind: str = key("kind", Kind.STRING, default="")
    feature_gates: tuple[str, ...] = key("featureGates", Kind.STRINGS, form="write a list: `featureGates: [flowControl]`")
    plugins: tuple[PluginSpec, ...] = key(
        "plugins", Kind.SECTIONS, record=PluginSpec, form="write a list of `- type: ...`", entry_form="write `- type: {}`"
    )
    scheduling_profiles: tuple[SchedulingProfile, ...] = key(
        "schedulingProfiles", Kind.SECTIONS, record=SchedulingProfile, entry_form="write `- name: {}`"
    )
    saturation_detector: DetectorConfig | None = key("saturationDetector", Kind.SECTION, record=DetectorConfig)
    data: DataLayerConfig | None = key("data", Kind.SECTION, record=DataLayerConfig)
    data_layer: DataLayerConfig | None = key("dataLayer", Kind.SECTION, record=DataLayerConfig)
    flow_control: FlowControlConfig | None = key("flowControl", Kind.SECTION, record=FlowControlConfig)
    request_handler: RequestHandlerConfig | None = key("requestHandler", Kind.SECTION, record=RequestHandlerConfig)
    parser: ParserReference | None = key(
        "parser", Kind.SECTION, record=ParserReference, form="write `parser: {{pluginRef: {}}}`"
    )
    is_builtin: bool = False
    """No document was given."""
