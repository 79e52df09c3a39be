"""The configuration document as frozen records.

One record for each kind of mapping. The ``Key`` of a field says how its value is written in YAML and which codes its errors
have; ``decode`` reads by that alone. A record remembers the node it was read from, so that every later check can name the
place; a record without a node was added by the defaults.

Source: llm-d-router: apix/config/v1alpha1/endpointpickerconfig_types.go, and Heimdall's EndpointPickerConfig reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, get_type_hints

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
    TEXTS = "a mapping of strings"
    STRINGS = "a list of strings"
    INTEGERS = "a list of integers"
    SECTIONS = "a list"


@dataclass(frozen=True, slots=True)
class Key:
    """How a field is written in YAML."""

    name: str
    kind: Kind
    record: type[Section] | None = None
    """Of a mapping, or of the entries of a list; a mapping without one stays a node."""
    required: str = ""
    """Code of the error when it is missing or empty; "" = it may be."""
    negative: str = ""
    """Code of the error when it is below zero; "" = it may be."""
    form: str = ""
    """How a correct value looks, for the hint when it is of another kind; ``{}`` is the wrong value."""
    entry_form: str = ""
    """The same for the entries of a list."""


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

    def key_place(self, name: str) -> Place:
        """Where a key is; the record's own place if it is not given."""
        if self.node is None or name not in self.node.entries:
            return self.place()
        return self.node.entries[name].key_place

    def gives(self, name: str) -> bool:
        """The document has this key, with a value."""
        return self.node is not None and name in self.node.entries and not self.node.entries[name].node.is_null


def keys_of(record: type[Section]) -> Mapping[str, tuple[str, Key]]:
    """YAML key → (field name, key) of a record, in document order."""
    found = {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Key):
                found[mark.name] = (name, mark)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec(Section):
    """One entry of ``plugins``."""

    type: Annotated[str, Key("type", Kind.STRING, required="CFG050")] = ""
    name: Annotated[str, Key("name", Kind.STRING)] = ""
    parameters: Annotated[MapNode | None, Key("parameters", Kind.MAPPING)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlugin(Section):
    """A reference in a scheduling profile."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING, required="CFG062")] = ""
    weight: Annotated[float | None, Key("weight", Kind.NUMBER)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingProfile(Section):
    """One entry of ``schedulingProfiles``."""

    name: Annotated[str, Key("name", Kind.STRING, required="CFG060")] = ""
    plugins: Annotated[
        tuple[ProfilePlugin, ...],
        Key(
            "plugins",
            Kind.SECTIONS,
            record=ProfilePlugin,
            form="write a list of `- pluginRef: ...`",
            entry_form="write `- pluginRef: {}`",
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Section):
    """A mapping whose point is the name of a plugin."""

    plugin_ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReference(Reference):
    """An extractor of a data source."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING, required="CFG082")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSourceConfig(Reference):
    """One entry of ``data.sources``."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING, required="CFG082")] = ""
    extractors: Annotated[
        tuple[DataReference, ...], Key("extractors", Kind.SECTIONS, record=DataReference, entry_form="write `- pluginRef: {}`")
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryReference(Reference):
    """A reference to what finds endpoints or peers."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING, required="CFG086")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryConfig(Reference):
    """``discovery``: the endpoints' reference itself, or one for endpoints and one for peers (``llm-d.ai/v1``)."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING)] = ""
    endpoints: Annotated[
        DiscoveryReference | None,
        Key("endpoints", Kind.MAPPING, record=DiscoveryReference, form="write `endpoints: {{pluginRef: {}}}`"),
    ] = None
    peers: Annotated[
        DiscoveryReference | None,
        Key("peers", Kind.MAPPING, record=DiscoveryReference, form="write `peers: {{pluginRef: {}}}`"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossReplicaConfig(Section):
    """``crossReplica`` of ``llm-d.ai/v1``; older documents have its fields as ``crossReplica...`` beside it."""

    syncer: Annotated[str, Key("syncerPluginRef", Kind.STRING)] = ""
    sync_interval_s: Annotated[float | None, Key("syncInterval", Kind.DURATION, negative="CFG035")] = None
    publish_timeout_s: Annotated[float | None, Key("publishTimeout", Kind.DURATION, negative="CFG035")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLayerConfig(Section):
    """``data`` (Heimdall) or ``dataLayer`` (llm-d): the same section under two keys."""

    sources: Annotated[
        tuple[DataSourceConfig, ...],
        Key("sources", Kind.SECTIONS, record=DataSourceConfig, entry_form="write `- pluginRef: {}`"),
    ] = ()
    inject_defaults: Annotated[bool | None, Key("injectDefaults", Kind.BOOLEAN)] = None
    discovery: Annotated[
        DiscoveryConfig | None,
        Key("discovery", Kind.MAPPING, record=DiscoveryConfig, form="write `discovery: {{pluginRef: {}}}`"),
    ] = None
    peer_discovery: Annotated[
        DiscoveryReference | None,
        Key("peerDiscovery", Kind.MAPPING, record=DiscoveryReference, form="write `peerDiscovery: {{pluginRef: {}}}`"),
    ] = None
    cross_replica_syncer: Annotated[str, Key("crossReplicaSyncerPluginRef", Kind.STRING)] = ""
    cross_replica_sync_interval_s: Annotated[
        float | None, Key("crossReplicaSyncInterval", Kind.DURATION, negative="CFG035")
    ] = None
    cross_replica_publish_timeout_s: Annotated[
        float | None, Key("crossReplicaPublishTimeout", Kind.DURATION, negative="CFG035")
    ] = None
    cross_replica: Annotated[CrossReplicaConfig | None, Key("crossReplica", Kind.MAPPING, record=CrossReplicaConfig)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig(Section):
    """``saturationDetector``: a reference, or the parameters of an anonymous detector."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING)] = ""
    type: Annotated[str, Key("type", Kind.STRING)] = ""
    queue_depth_threshold: Annotated[int | None, Key("queueDepthThreshold", Kind.INTEGER)] = None
    kv_cache_util_threshold: Annotated[float | None, Key("kvCacheUtilThreshold", Kind.NUMBER)] = None
    metrics_staleness_threshold_s: Annotated[float | None, Key("metricsStalenessThreshold", Kind.DURATION)] = None
    max_concurrency_per_pod: Annotated[int | None, Key("maxConcurrencyPerPod", Kind.INTEGER)] = None
    cache_ttl_s: Annotated[float | None, Key("cacheTTL", Kind.DURATION)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BandTemplate(Section):
    """``defaultPriorityBand`` and ``defaultNegativePriorityBand``."""

    priority: Annotated[int | None, Key("priority", Kind.INTEGER)] = None
    max_bytes: Annotated[int | None, Key("maxBytes", Kind.QUANTITY, negative="CFG090")] = None
    max_requests: Annotated[int | None, Key("maxRequests", Kind.QUANTITY, negative="CFG090")] = None
    fairness_policy: Annotated[str, Key("fairnessPolicyRef", Kind.STRING)] = ""
    ordering_policy: Annotated[str, Key("orderingPolicyRef", Kind.STRING)] = ""
    default_request_ttl_s: Annotated[float | None, Key("defaultRequestTTL", Kind.DURATION, negative="CFG090")] = None
    max_flow_bytes: Annotated[int | None, Key("maxBytesPerFlow", Kind.QUANTITY, negative="CFG090")] = None
    max_flow_requests: Annotated[int | None, Key("maxRequestsPerFlow", Kind.QUANTITY, negative="CFG090")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityBand(BandTemplate):
    """One entry of ``flowControl.priorityBands``."""

    priority: Annotated[int | None, Key("priority", Kind.INTEGER, required="CFG033")] = None
    min_share: Annotated[float | None, Key("minShare", Kind.NUMBER)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowControlConfig(Section):
    """``flowControl``; limits of 0 mean unlimited."""

    max_bytes: Annotated[int | None, Key("maxBytes", Kind.QUANTITY, negative="CFG090")] = None
    max_requests: Annotated[int | None, Key("maxRequests", Kind.QUANTITY, negative="CFG090")] = None
    default_request_ttl_s: Annotated[float | None, Key("defaultRequestTTL", Kind.DURATION, negative="CFG090")] = None
    no_endpoint_request_ttl_s: Annotated[float | None, Key("noEndpointRequestTTL", Kind.DURATION, negative="CFG090")] = None
    default_priority_band: Annotated[BandTemplate | None, Key("defaultPriorityBand", Kind.MAPPING, record=BandTemplate)] = None
    default_negative_priority_band: Annotated[
        BandTemplate | None, Key("defaultNegativePriorityBand", Kind.MAPPING, record=BandTemplate)
    ] = None
    priority_bands: Annotated[
        tuple[PriorityBand, ...], Key("priorityBands", Kind.SECTIONS, record=PriorityBand, entry_form="write `- priority: {}`")
    ] = ()
    usage_limit_policy: Annotated[str, Key("usageLimitPolicyPluginRef", Kind.STRING)] = ""
    saturation_detector: Annotated[DetectorConfig | None, Key("saturationDetector", Kind.MAPPING, record=DetectorConfig)] = None
    enable_eviction: Annotated[bool | None, Key("enableEviction", Kind.BOOLEAN)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserReference(Reference):
    """A reference to a parser."""

    plugin_ref: Annotated[str, Key("pluginRef", Kind.STRING, required="CFG100")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHandlerConfig(Section):
    """``requestHandler``."""

    parsers: Annotated[
        tuple[ParserReference, ...], Key("parsers", Kind.SECTIONS, record=ParserReference, entry_form="write `- pluginRef: {}`")
    ] = ()
    parser: Annotated[
        ParserReference | None, Key("parser", Kind.MAPPING, record=ParserReference, form="write `parsers: [{{pluginRef: {}}}]`")
    ] = None
    propagate_priority: Annotated[bool | None, Key("propagatePriority", Kind.BOOLEAN)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headed(Section):
    """A document of any kind."""

    api_version: Annotated[str, Key("apiVersion", Kind.STRING)] = ""
    kind: Annotated[str, Key("kind", Kind.STRING)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Headed):
    """The whole document."""

    feature_gates: Annotated[
        tuple[str, ...], Key("featureGates", Kind.STRINGS, form="write a list: `featureGates: [flowControl]`")
    ] = ()
    plugins: Annotated[
        tuple[PluginSpec, ...],
        Key("plugins", Kind.SECTIONS, record=PluginSpec, form="write a list of `- type: ...`", entry_form="write `- type: {}`"),
    ] = ()
    scheduling_profiles: Annotated[
        tuple[SchedulingProfile, ...],
        Key("schedulingProfiles", Kind.SECTIONS, record=SchedulingProfile, entry_form="write `- name: {}`"),
    ] = ()
    saturation_detector: Annotated[DetectorConfig | None, Key("saturationDetector", Kind.MAPPING, record=DetectorConfig)] = None
    data: Annotated[DataLayerConfig | None, Key("data", Kind.MAPPING, record=DataLayerConfig)] = None
    data_layer: Annotated[DataLayerConfig | None, Key("dataLayer", Kind.MAPPING, record=DataLayerConfig)] = None
    flow_control: Annotated[FlowControlConfig | None, Key("flowControl", Kind.MAPPING, record=FlowControlConfig)] = None
    request_handler: Annotated[
        RequestHandlerConfig | None, Key("requestHandler", Kind.MAPPING, record=RequestHandlerConfig)
    ] = None
    parser: Annotated[
        ParserReference | None, Key("parser", Kind.MAPPING, record=ParserReference, form="write `parser: {{pluginRef: {}}}`")
    ] = None
    is_builtin: bool = False
    """No document was given."""
