"""Older names of metrics, produced from the current ones whenever metrics are exposed.

Every entry keeps the labels its readers know; series that differ only in a dropped label are added up. llm-d-router dropped
most of these names in 2026; dashboards and alerts in the field still ask for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from epp.telemetry.catalogue import CLIENT_DEFAULT_S, LATENCY_S, LONG_TPOT_S, PREFIX, Bounds


@dataclass(frozen=True, slots=True)
class Legacy:
    """An older name of a family."""

    name: str
    current: str
    """Full name of the family it is made from."""
    labels: tuple[tuple[str, str], ...]
    """(label as exposed, label of the current family)."""
    buckets: Bounds = ()
    """Bounds where they differ from the current family's."""


_MODELS = ("model_name", "target_model_name")
_ATTEMPT = (
    ("status", "status"),
    ("target_model_name", "target_model_name"),
    ("pod_name", "endpoint_name"),
    ("namespace", "namespace"),
    ("port", "port"),
)


def _same(*labels: str) -> tuple[tuple[str, str], ...]:
    return tuple((label, label) for label in labels)


def _objective(name: str, current: str, *labels: str, buckets: Bounds = ()) -> Legacy:
    return Legacy(f"inference_objective_{name}", PREFIX + current, _same(*labels), buckets)


def _pool(name: str, current: str) -> Legacy:
    return Legacy(f"inference_pool_{name}", PREFIX + current, _same("name"))


def _extension(name: str, *labels: str) -> Legacy:
    return Legacy(f"inference_extension_{name}", PREFIX + name, _same(*labels))


def _scheduler(name: str, *labels: str) -> Legacy:
    return Legacy(f"llm_d_inference_scheduler_{name}", PREFIX + name, _same(*labels))


def _kv_index(name: str, buckets: Bounds = ()) -> Legacy:
    return Legacy(f"kvcache_index_{name}", f"{PREFIX}kv_cache_index_{name}", (), buckets)


def _kv_tokens(name: str, buckets: Bounds = ()) -> Legacy:
    return Legacy(f"kvcache_tokenization_{name}", f"{PREFIX}kv_cache_tokenization_{name}", _same("tokenizer"), buckets)


def _kv_dedup(name: str) -> Legacy:
    return Legacy(f"kvcache_kvevents_dedup_{name}", f"{PREFIX}kv_cache_events_dedup_{name}", ())


LEGACY: tuple[Legacy, ...] = (
    _objective("request_total", "request_total", *_MODELS, "priority"),
    _objective("request_error_total", "request_error_total", *_MODELS, "error_code"),
    _objective("request_duration_seconds", "request_duration_seconds", *_MODELS),
    _objective("request_sizes", "request_size_bytes", *_MODELS),
    _objective("response_sizes", "response_size_bytes", *_MODELS),
    _objective("input_tokens", "request_input_tokens", *_MODELS),
    _objective("output_tokens", "request_output_tokens", *_MODELS),
    _objective("prompt_cached_tokens", "request_cached_tokens", *_MODELS),
    _objective("running_requests", "request_running", "model_name"),
    _objective("normalized_time_per_output_token_seconds", "request_ntpot_seconds", *_MODELS),
    _objective("request_ttft_seconds", "request_ttft_seconds", *_MODELS, buckets=LATENCY_S),
    _objective("request_tpot_seconds", "request_streaming_tpot_seconds", *_MODELS, buckets=LONG_TPOT_S),
    _objective("request_itl_seconds", "request_streaming_itl_seconds", *_MODELS),
    _objective("inference_request_metric", "inference_request_metric", *_MODELS, "type"),
    _objective("request_predicted_ttft_seconds", "request_predicted_ttft_seconds", *_MODELS),
    _objective("request_predicted_tpot_seconds", "request_predicted_tpot_seconds", *_MODELS),
    _objective("request_ttft_prediction_duration_seconds", "request_ttft_prediction_duration_seconds", *_MODELS),
    _objective("request_tpot_prediction_duration_seconds", "request_tpot_prediction_duration_seconds", *_MODELS),
    _objective("request_slo_violation_total", "request_slo_violation_total", *_MODELS, "type"),
    _pool("average_kv_cache_utilization", "average_kv_cache_utilization"),
    _pool("average_queue_size", "average_queue_size"),
    _pool("average_running_requests", "average_running_requests"),
    _pool("ready_pods", "ready_endpoints"),
    Legacy(
        "inference_pool_per_pod_queue_size",
        f"{PREFIX}per_endpoint_queue_size",
        (("name", "name"), ("model_server_pod", "model_server_endpoint")),
    ),
    _extension("scheduler_e2e_duration_seconds"),
    Legacy("inference_extension_scheduler_attempts_total", f"{PREFIX}scheduler_attempts_total", _ATTEMPT),
    _extension("plugin_duration_seconds", "extension_point", "plugin_type", "plugin_name"),
    _extension("info", "commit", "build_ref"),
    _extension("model_rewrite_decisions_total", "model_rewrite_name", "model_name", "target_model"),
    _extension(
        "flow_control_request_queue_duration_seconds",
        "fairness_id",
        "priority",
        "outcome",
        "inference_pool",
        *_MODELS,
    ),
    _extension("flow_control_dispatch_cycle_duration_seconds"),
    _extension("flow_control_request_enqueue_duration_seconds", "priority", "outcome"),
    _extension("flow_control_queue_size", "fairness_id", "priority", "inference_pool", *_MODELS),
    _extension("flow_control_queue_bytes", "fairness_id", "priority", "inference_pool", *_MODELS),
    _extension("flow_control_pool_saturation", "inference_pool", "stage"),
    _extension("prefix_indexer_size"),
    _extension("prefix_indexer_hit_ratio"),
    _extension("prefix_indexer_hit_bytes"),
    _kv_index("admissions_total"),
    _kv_index("evictions_total"),
    _kv_index("lookup_requests_total"),
    _kv_index("lookup_hits_total"),
    _kv_index("max_pod_hit_count_total"),
    _kv_index("lookup_latency_seconds", CLIENT_DEFAULT_S),
    _kv_tokens("render_chat_template_latency_seconds", CLIENT_DEFAULT_S),
    _kv_tokens("tokenization_latency_seconds", CLIENT_DEFAULT_S),
    _kv_tokens("tokenized_tokens_total"),
    _kv_dedup("removed_hashes_suppressed_total"),
    _kv_dedup("removed_hashes_forwarded_total"),
    _scheduler("datalayer_poll_errors_total", "source_type"),
    _scheduler("datalayer_extract_errors_total", "source_type", "extractor_type"),
    _scheduler("disagg_decision_total", "model_name", "decision_type"),
    _scheduler("pd_decision_total", "model_name", "decision_type"),
)
"""All older names, in the order in which they are exposed."""
