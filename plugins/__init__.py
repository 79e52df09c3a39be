"""The in-tree plugin types: the one table of them. A module is imported when one of its types is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import groupby

from epp.framework.registry import PluginType, Registry
from plugins.former import FORMER

TYPES: Mapping[str, str] = {
    "latency-slo-admitter": "admitters.latency_slo",
    "probabilistic-admitter": "admitters.probabilistic",
    "core-metrics-extractor": "datalayer.core_metrics",
    "model-server-protocol-metrics": "datalayer.core_metrics",
    "dcgm-data-source": "datalayer.dcgm",
    "dcgm-extractor": "datalayer.dcgm",
    "metrics-data-source": "datalayer.metrics_source",
    "models-data-source": "datalayer.models",
    "model-server-protocol-models": "datalayer.models",
    "models-data-extractor": "datalayer.models",
    "multicluster-metrics-data-source": "datalayer.multicluster",
    "multicluster-metrics-extractor": "datalayer.multicluster",
    "multicluster-file-discovery": "datalayer.multicluster",
    "k8s-notification-source": "datalayer.notifications",
    "endpoint-notification-source": "datalayer.notifications",
    "redis-syncer": "datalayer.replica_state",
    "redis-state-store": "datalayer.replica_state",
    "local-syncer": "datalayer.replica_state",
    "topology-extractor": "datalayer.topology",
    "always-disagg-pd-decider": "deciders.always",
    "always-disagg-multimodal-decider": "deciders.always",
    "prefix-based-pd-decider": "deciders.prefix_based",
    "file-discovery": "discovery.file",
    "by-label": "filters.by_label",
    "by-label-selector": "filters.by_label_selector",
    "label-selector-filter": "filters.by_label_selector",
    "endpoint-attribute-filter": "filters.endpoint_attribute",
    "header-based-testing-filter": "filters.header_based_testing",
    "prefix-cache-affinity-filter": "filters.prefix_cache_affinity",
    "prefill-filter": "filters.role",
    "decode-filter": "filters.role",
    "encode-filter": "filters.role",
    "session-affinity-filter": "filters.session_affinity",
    "multicluster-session-affinity-filter": "filters.session_affinity",
    "slo-headroom-tier-filter": "filters.slo_headroom_tier",
    "topology-affinity-filter": "filters.topology_affinity",
    "utilization-filter": "filters.utilization",
    "concurrency-detector": "flowcontrol.concurrency_detector",
    "sheddable-eviction-filter": "flowcontrol.eviction",
    "priority-then-time-eviction-order-policy": "flowcontrol.eviction",
    "global-strict-fairness-policy": "flowcontrol.fairness",
    "round-robin-fairness-policy": "flowcontrol.fairness",
    "fcfs-ordering-policy": "flowcontrol.ordering",
    "edf-ordering-policy": "flowcontrol.ordering",
    "slo-deadline-ordering-policy": "flowcontrol.ordering",
    "program-aware-fairness": "flowcontrol.program_aware",
    "running-requests-detector": "flowcontrol.running_requests_detector",
    "static-usage-limit-policy": "flowcontrol.usage_limits",
    "priority-holdback-policy": "flowcontrol.usage_limits",
    "soft-reflective-ceiling-policy": "flowcontrol.usage_limits",
    "utilization-detector": "flowcontrol.utilization_detector",
    "anthropic-parser": "parsers.anthropic",
    "openai-parser": "parsers.openai",
    "passthrough-parser": "parsers.passthrough",
    "sglanghttp-parser": "parsers.sglanghttp",
    "vertexai-parser": "parsers.vertexai",
    "vllmgrpc-parser": "parsers.vllmgrpc",
    "vllmhttp-parser": "parsers.vllmhttp",
    "max-score-picker": "pickers.max_score",
    "random-picker": "pickers.random",
    "weighted-random-picker": "pickers.weighted_random",
    "disagg-headers-handler": "prerequest.disagg_headers",
    "approx-prefix-cache-producer": "producers.approximate_prefix",
    "multicluster-approx-prefix-cache-producer": "producers.approximate_prefix",
    "burst-prefix-cache-producer": "producers.burst_prefix",
    "inflight-load-producer": "producers.inflight_load",
    "mm-embeddings-cache-producer": "producers.media_cache",
    "p2p-source-producer": "producers.p2p_source",
    "precise-prefix-cache-producer": "producers.precise_prefix",
    "predicted-latency-producer": "producers.predicted_latency",
    "session-id-producer": "producers.session_id",
    "tokenizer": "producers.tokenizer",
    "token-producer": "producers.tokenizer",
    "data-parallel-profile-handler": "profile_handlers.data_parallel",
    "disagg-profile-handler": "profile_handlers.disagg",
    "header-profile-handler": "profile_handlers.header",
    "pd-profile-handler": "profile_handlers.pd",
    "single-profile-handler": "profile_handlers.single",
    "agent-identity": "request_headers.agent_identity",
    "request-attribute-reporter": "response.request_attribute_reporter",
    "response-header-handler": "response.response_header",
    "destination-endpoint-served-verifier": "response.served_endpoint_verifier",
    "active-request-scorer": "scorers.active_request",
    "context-length-aware": "scorers.context_length_aware",
    "endpoint-attribute-scorer": "scorers.endpoint_attribute",
    "header-label-affinity-scorer": "scorers.header_label_affinity",
    "kv-cache-utilization-scorer": "scorers.kv_cache_utilization",
    "latency-scorer": "scorers.latency",
    "load-aware-scorer": "scorers.load_aware",
    "lora-affinity-scorer": "scorers.lora_affinity",
    "mm-embeddings-cache-scorer": "scorers.media_cache",
    "multicluster-queue-scorer": "scorers.multicluster",
    "multicluster-kv-cache-utilization-scorer": "scorers.multicluster",
    "multicluster-prefix-cache-scorer": "scorers.multicluster",
    "no-hit-lru-scorer": "scorers.no_hit_lru",
    "precise-prefix-cache-scorer": "scorers.precise_prefix_cache",
    "predicted-latency-scorer": "scorers.predicted_latency",
    "prefix-cache-scorer": "scorers.prefix_cache",
    "queue-scorer": "scorers.queue",
    "running-requests-size-scorer": "scorers.running_requests",
    "session-affinity-scorer": "scorers.session_affinity",
    "token-load-scorer": "scorers.token_load",
    "topology-affinity-scorer": "scorers.topology_affinity",
    "disaggregatedset-rollout-screener": "screeners.rollout",
    "responses-store": "stores.responses",
}
"""Type name or alias → module of this package that declares it, in the order of the modules.

A module has ``PLUGIN``, or ``PLUGINS`` if there are several; a type's name is followed by its aliases.
"""

MODULES = tuple(dict.fromkeys(TYPES.values()))
"""Modules that declare types, sorted."""


def plugin_types() -> Iterator[PluginType]:
    """Every in-tree plugin type; imports all of them."""
    for module in MODULES:
        yield from declared_by(module)


def declared_by(module: str) -> tuple[PluginType, ...]:
    """The types that a module of this package declares."""
    imported = import_module(f"{__name__}.{module}")
    return (imported.PLUGIN,) if hasattr(imported, "PLUGIN") else tuple(imported.PLUGINS)


def register_all(registry: Registry) -> None:
    """Make every in-tree plugin type known to ``registry``, without importing one."""
    for module, names in groupby(TYPES, TYPES.__getitem__):
        registry.announce(names, partial(declared_by, module))
    registry.remember(FORMER)
