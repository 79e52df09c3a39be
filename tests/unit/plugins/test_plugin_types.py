"""The inventory: every type there is, and what its descriptor must tell."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import plugins
from epp.framework import direct, flow_control, interfaces, notifications, rewriting
from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import Alias, PluginType, Registry
from epp.framework.testing import make_plugin

TYPES = tuple(plugins.plugin_types())
BUILT = tuple(t for t in TYPES if t.is_built)

HEIMDALL = [
    "single-profile-handler",
    "pd-profile-handler",
    "by-label",
    "by-label-selector",
    "prefill-filter",
    "decode-filter",
    "context-length-aware",
    "active-request-scorer",
    "load-aware-scorer",
    "no-hit-lru-scorer",
    "precise-prefix-cache-scorer",
    "prefix-cache-scorer",
    "session-affinity-scorer",
    "kv-cache-utilization-scorer",
    "lora-affinity-scorer",
    "queue-scorer",
    "running-requests-size-scorer",
    "max-score-picker",
    "random-picker",
    "weighted-random-picker",
    "response-header-handler",
    "prefill-header-handler",
    "disagg-profile-handler",
    "prefix-based-pd-decider",
    "always-disagg-pd-decider",
    "always-disagg-multimodal-decider",
    "encode-filter",
    "predicted-latency-scorer",
    "disagg-headers-handler",
    "tokenizer",
    "models-data-source",
    "model-server-protocol-models",
    "responses-store",
]

LLM_D = [
    "agent-identity",
    "label-selector-filter",
    "endpoint-attribute-filter",
    "utilization-filter",
    "prefix-cache-affinity-filter",
    "slo-headroom-tier-filter",
    "header-based-testing-filter",
    "concurrency-detector",
    "utilization-detector",
    "running-requests-detector",
    "token-load-scorer",
    "mm-embeddings-cache-scorer",
    "latency-scorer",
    "data-parallel-profile-handler",
    "approx-prefix-cache-producer",
    "precise-prefix-cache-producer",
    "inflight-load-producer",
    "predicted-latency-producer",
    "mm-embeddings-cache-producer",
    "token-producer",
    "session-id-producer",
    "latency-slo-admitter",
    "probabilistic-admitter",
    "request-attribute-reporter",
    "destination-endpoint-served-verifier",
    "metrics-data-source",
    "core-metrics-extractor",
    "model-server-protocol-metrics",
    "models-data-extractor",
    "k8s-notification-source",
    "endpoint-notification-source",
    "global-strict-fairness-policy",
    "round-robin-fairness-policy",
    "program-aware-fairness",
    "fcfs-ordering-policy",
    "edf-ordering-policy",
    "slo-deadline-ordering-policy",
    "static-usage-limit-policy",
    "openai-parser",
    "anthropic-parser",
    "vllmhttp-parser",
    "sglanghttp-parser",
    "vllmgrpc-parser",
    "vertexai-parser",
    "passthrough-parser",
]

EXPERIMENTAL = [
    "agent-identity",
    "burst-prefix-cache-producer",
    "dcgm-data-source",
    "dcgm-extractor",
    "disaggregatedset-rollout-screener",
    "endpoint-attribute-filter",
    "endpoint-attribute-scorer",
    "header-label-affinity-scorer",
    "header-profile-handler",
    "multicluster-approx-prefix-cache-producer",
    "multicluster-file-discovery",
    "multicluster-kv-cache-utilization-scorer",
    "multicluster-metrics-data-source",
    "multicluster-metrics-extractor",
    "multicluster-prefix-cache-scorer",
    "multicluster-queue-scorer",
    "multicluster-session-affinity-filter",
    "p2p-source-producer",
    "priority-holdback-policy",
    "priority-then-time-eviction-order-policy",
    "session-affinity-filter",
    "sheddable-eviction-filter",
    "soft-reflective-ceiling-policy",
    "topology-affinity-filter",
    "topology-affinity-scorer",
    "topology-extractor",
    "utilization-filter",
]

PROTOCOLS = {
    Role.PROFILE_HANDLER: interfaces.ProfileHandler,
    Role.DECIDER: interfaces.Decider,
    Role.REQUEST_HEADER: interfaces.RequestHeaderProcessor,
    Role.SCREENER: interfaces.Screener,
    Role.ADMITTER: interfaces.Admitter,
    Role.FILTER: interfaces.Filter,
    Role.SCORER: interfaces.Scorer,
    Role.PICKER: interfaces.Picker,
    Role.PRE_REQUEST: interfaces.PreRequest,
    Role.BODY_REWRITER: rewriting.BodyRewriter,
    Role.DIRECT_RESPONDER: direct.DirectResponder,
    Role.RESPONSE_RECEIVED: interfaces.ResponseReceived,
    Role.RESPONSE_STREAMING: interfaces.ResponseStreaming,
    Role.RESPONSE_COMPLETE: interfaces.ResponseComplete,
    Role.PARSER: interfaces.Parser,
    Role.DATA_SOURCE: interfaces.DataSource,
    Role.EXTRACTOR: interfaces.Extractor,
    Role.ENDPOINT_EXTRACTOR: interfaces.FollowsEndpoints,
    Role.OBJECT_EXTRACTOR: notifications.FollowsObjects,
    Role.DISCOVERY: interfaces.EndpointDiscovery,
    Role.DATA_PRODUCER: interfaces.DataProducer,
    Role.SATURATION_DETECTOR: interfaces.SaturationDetector,
    Role.FAIRNESS_POLICY: flow_control.FairnessPolicy,
    Role.ORDERING_POLICY: flow_control.OrderingPolicy,
    Role.USAGE_LIMIT_POLICY: flow_control.UsageLimitPolicy,
    Role.EVICTION_FILTER: flow_control.EvictionFilter,
    Role.EVICTION_ORDER: flow_control.EvictionOrderPolicy,
}

each_type = pytest.mark.parametrize("plugin_type", TYPES, ids=lambda plugin_type: plugin_type.type)
each_built_type = pytest.mark.parametrize("plugin_type", BUILT, ids=lambda plugin_type: plugin_type.type)


@pytest.fixture(scope="module")
def registry() -> Registry:
    filled = Registry()
    plugins.register_all(filled)
    return filled


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A parameter model and those of its nested objects."""
    yield model
    for info in model.model_fields.values():
        for part in _classes(info.annotation):
            if issubclass(part, BaseModel):
                yield from models(part)


def _classes(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _classes(part)


def fields(plugin_type: PluginType) -> Iterator[tuple[str, FieldInfo]]:
    for model in models(plugin_type.params):
        for name, info in model.model_fields.items():
            yield f"{model.__name__}.{name}", info


@pytest.mark.parametrize("name", [*HEIMDALL, *LLM_D, *EXPERIMENTAL])
def test_every_type_of_both_projects_is_known(registry: Registry, name: str) -> None:
    assert registry.get(name) is not None


def test_the_list_of_modules_is_sorted_and_complete() -> None:
    found = (info.name for info in pkgutil.walk_packages(plugins.__path__, "plugins.") if not info.ispkg)
    defining = [name for name in found if {"PLUGIN", "PLUGINS"} & vars(import_module(name)).keys()]
    assert [f"plugins.{name}" for name in plugins.MODULES] == sorted(defining)


def test_experimental_types_are_those_that_llm_d_marks_as_alpha() -> None:
    assert sorted(t.type for t in TYPES if t.experimental) == EXPERIMENTAL


@pytest.mark.parametrize(
    ("alias", "canonical", "is_deprecated"),
    [
        ("prefill-header-handler", "disagg-headers-handler", True),
        ("label-selector-filter", "by-label-selector", False),
        ("models-data-extractor", "model-server-protocol-models", False),
        ("model-server-protocol-metrics", "core-metrics-extractor", False),
    ],
)
def test_aliases(registry: Registry, alias: str, canonical: str, is_deprecated: bool) -> None:
    assert registry.get(alias) is registry.get(canonical)
    record = registry.alias(alias)
    assert record is not None
    assert record.deprecated == is_deprecated


@each_type
def test_listings_can_describe_it(plugin_type: PluginType) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", plugin_type.type)
    assert plugin_type.summary.endswith((".", ")"))
    assert "\n" not in plugin_type.summary
    assert bool(plugin_type.wait) != plugin_type.is_built


@each_type
def test_every_parameter_is_described(plugin_type: PluginType) -> None:
    for name, info in fields(plugin_type):
        assert info.description, name
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", info.alias or ""), name


@each_type
def test_defaults_are_valid_or_what_is_missing_is_named(plugin_type: PluginType) -> None:
    try:
        decoded = plugin_type.params.decode({})
    except ValidationError as failure:
        names = {info.alias or name for name, info in fields(plugin_type)}
        for error in failure.errors():
            named = [str(part) for part in error["loc"]] or re.findall(r"[A-Za-z]+", error["msg"])
            assert names & set(named), error
    else:
        assert isinstance(decoded, Params)


@each_type
def test_unknown_parameters_are_refused(plugin_type: PluginType) -> None:
    with pytest.raises(ValidationError, match="noSuchParameter"):
        plugin_type.params.decode({"noSuchParameter": 1})


MINIMAL: dict[str, dict[str, object]] = {
    "k8s-notification-source": {"version": "v1", "kind": "ConfigMap"},
    "by-label": {"label": "tier", "validValues": ["gold"]},
    "disaggregatedset-rollout-screener": {"scope": {"labelSelector": "app=chat"}, "revisionGating": {"mode": "disabled"}},
    "endpoint-attribute-filter": {
        "attribute": "WaitingQueueSize",
        "algorithm": {"type": "threshold", "threshold": {"operator": "LessThan", "value": 5}},
    },
    "endpoint-attribute-scorer": {"attributeKey": "WaitingQueueSize", "algorithm": {"type": "linear_lower_is_better"}},
    "header-label-affinity-scorer": {"headerName": "x-zone", "labelKey": "zone"},
    "priority-holdback-policy": {"minCeiling": 0.5},
    "session-id-producer": {"headerName": "x-session-id"},
    "tokenizer": {"modelName": "acme/tiny"},
    "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 5}]},
    "file-discovery": {"path": "/nonexistent/endpoints.yaml"},
    "request-attribute-reporter": {"attributes": [{"key": {"name": "cost"}, "expression": "usage.total_tokens"}]},
}
"""What a type needs to be created."""


@each_built_type
def test_an_instance_has_the_methods_of_its_roles(plugin_type: PluginType) -> None:
    instance = make_plugin(plugin_type, MINIMAL.get(plugin_type.type))
    for role in plugin_type.roles:
        assert isinstance(instance, PROTOCOLS[role]), role


@each_built_type
def test_its_class_is_documented(plugin_type: PluginType) -> None:
    kind = type(make_plugin(plugin_type, MINIMAL.get(plugin_type.type)))
    assert kind.__doc__
    assert plugin_type.type in (sys.modules[kind.__module__].__doc__ or "")
    if plugin_type.roles & {Role.FILTER, Role.SCORER, Role.PICKER}:
        for heading in ("Parameters:", "Reads:", "Formula:", "Missing data:", "Source:"):
            assert heading in kind.__doc__


# ── the table of names ──


def test_the_table_is_what_the_modules_declare() -> None:
    declared = [(name, module) for module in plugins.MODULES for t in plugins.declared_by(module) for name in t.names]
    assert list(plugins.TYPES.items()) == declared


LOADED = """
import sys
from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadFlags
from epp.process.plugin_types import build_registry

registry, _ = build_registry()
print(sorted(registry.names()) == registry.names(), [name for name in sys.modules if name.startswith("plugins.")])
text = sys.stdin.read()
instantiate(load_config(ConfigSource.from_text(text), registry, LoadFlags(for_serve=True)))
print(*(name for name in sys.modules if name.startswith("plugins.")))
"""

SMALL = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: max-score-picker}]
"""


def test_a_configuration_imports_only_what_it_uses() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], input=SMALL, capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stdout.splitlines()
    assert first == "True ['plugins.former']"
    imported = {name.removeprefix("plugins.") for name in second.split()}
    assert {"scorers.queue", "pickers.max_score"} <= imported
    families = {name.partition(".")[0] for name in imported}
    assert families.isdisjoint({"filters", "producers", "stores", "deciders", "admitters", "discovery", "prerequest"})
    assert {name for name in imported if name.startswith("scorers.")} == {"scorers.queue"}


def test_a_misspelt_name_is_suggested_without_importing() -> None:
    def refuse() -> tuple[PluginType, ...]:
        raise AssertionError("imported")

    lazy = Registry()
    lazy.announce(["their-scorer", "their-alias"], refuse)
    assert lazy.names() == ["their-alias", "their-scorer"]
    assert lazy.get("their-scorrer") is None


def test_announced_types_are_loaded_once_and_together() -> None:
    calls: list[int] = []

    def load() -> tuple[PluginType, ...]:
        calls.append(1)
        return (
            PluginType("one", frozenset({Role.SCORER}), "One.", aliases=(Alias("uno"),)),
            PluginType("two", frozenset({Role.SCORER}), "Two."),
        )

    lazy = Registry()
    lazy.announce(["one", "uno", "two"], load)
    assert lazy.alias("uno") == Alias("uno")
    assert [t.type for t in lazy] == ["one", "two"]
    assert (len(lazy), calls) == (2, [1])


def test_an_announced_name_is_taken() -> None:
    lazy = Registry()
    plugins.register_all(lazy)
    with pytest.raises(ValueError, match="already registered by endpoint-picker as 'queue-scorer'"):
        lazy.register(PluginType("queue-scorer", frozenset({Role.SCORER}), "Another."))
