"""The in-tree plugin types: the one list of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from epp.framework.registry import PluginType, Registry

MODULES = (
    "admitters.latency_slo",
    "admitters.probabilistic",
    "datalayer.core_metrics",
    "datalayer.dcgm",
    "datalayer.metrics_source",
    "datalayer.models",
    "datalayer.multicluster",
    "datalayer.notifications",
    "datalayer.topology",
    "deciders.always",
    "deciders.prefix_based",
    "discovery.file",
    "filters.by_label",
    "filters.by_label_selector",
    "filters.endpoint_attribute",
    "filters.header_based_testing",
    "filters.prefix_cache_affinity",
    "filters.role",
    "filters.session_affinity",
    "filters.slo_headroom_tier",
    "filters.topology_affinity",
    "filters.utilization",
    "flowcontrol.concurrency_detector",
    "flowcontrol.eviction",
    "flowcontrol.fairness",
    "flowcontrol.ordering",
    "flowcontrol.program_aware",
    "flowcontrol.running_requests_detector",
    "flowcontrol.usage_limits",
    "flowcontrol.utilization_detector",
    "parsers.anthropic",
    "parsers.openai",
    "parsers.passthrough",
    "parsers.sglanghttp",
    "parsers.vertexai",
    "parsers.vllmgrpc",
    "parsers.vllmhttp",
    "pickers.max_score",
    "pickers.random",
    "pickers.weighted_random",
    "prerequest.disagg_headers",
    "producers.approximate_prefix",
    "producers.burst_prefix",
    "producers.inflight_load",
    "producers.media_cache",
    "producers.p2p_source",
    "producers.precise_prefix",
    "producers.predicted_latency",
    "producers.session_id",
    "producers.tokenizer",
    "profile_handlers.data_parallel",
    "profile_handlers.disagg",
    "profile_handlers.header",
    "profile_handlers.pd",
    "profile_handlers.single",
    "request_headers.agent_identity",
    "response.request_attribute_reporter",
    "response.response_header",
    "response.served_endpoint_verifier",
    "scorers.active_request",
    "scorers.context_length_aware",
    "scorers.endpoint_attribute",
    "scorers.header_label_affinity",
    "scorers.kv_cache_utilization",
    "scorers.latency",
    "scorers.load_aware",
    "scorers.lora_affinity",
    "scorers.media_cache",
    "scorers.multicluster",
    "scorers.no_hit_lru",
    "scorers.precise_prefix_cache",
    "scorers.predicted_latency",
    "scorers.prefix_cache",
    "scorers.queue",
    "scorers.running_requests",
    "scorers.session_affinity",
    "scorers.token_load",
    "scorers.topology_affinity",
    "screeners.rollout",
    "stores.responses",
)
"""Modules of this package that define types, sorted: one has ``PLUGIN``, several have ``PLUGINS``."""


def plugin_types() -> Iterator[PluginType]:
    """Every in-tree plugin type."""
    for name in MODULES:
        module = import_module(f"{__name__}.{name}")
        yield from (module.PLUGIN,) if hasattr(module, "PLUGIN") else module.PLUGINS


def register_all(registry: Registry) -> None:
    """Register every in-tree plugin type."""
    for plugin_type in plugin_types():
        registry.register(plugin_type)
