"""The one table of metrics: name, type, labels, buckets, help. A new family is one entry here.

Names, labels and bounds are those of llm-d-router (pkg/epp/metrics) where it has them, so that dashboards and recording
rules keep working; ``legacy_names`` lists the older names. Units end the names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

PREFIX = "llm_d_epp_"
Bounds = tuple[float, ...]


class Kind(StrEnum):
    """Metric types of the text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family."""

    name: str
    """Full name, as exposed."""
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: Bounds = ()
    """Upper bounds, ascending, without +Inf; empty unless a histogram."""
    of_endpoint: bool = False
    """Has labels ``endpoint_name`` and ``namespace``: series of endpoints that left the pool are dropped."""
    of_process: bool = False
    """There is one of a process, however many pools it serves."""


# Bucket sets. The odd 32778 is llm-d-router's; with 32768 histograms of both could not be aggregated.
LATENCY_S: Bounds = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 120),
    *(180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600),
)
TTFT_S: Bounds = tuple(bound for bound in LATENCY_S if bound <= 120)
_TPOT_TO_1_S: Bounds = (
    *(0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1),
)
TPOT_S: Bounds = (*_TPOT_TO_1_S, 2)
LONG_TPOT_S: Bounds = (*_TPOT_TO_1_S, 1.5, 2, 3, 4.5, 6, 12, 18, 24, 30, 36, 48, 60, 90, 120, 180, 270, 360)
ITL_S: Bounds = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
"""Also what a transport counts gaps between chunks by (``Settings.gap_bounds_s``)."""
NTPOT_S: Bounds = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
REQUEST_BYTES: Bounds = tuple(64 * 2**n for n in range(25))
RESPONSE_BYTES: Bounds = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536)
INPUT_TOKENS: Bounds = (*RESPONSE_BYTES, 131072, 262144, 524288, 1048576)
OUTPUT_TOKENS: Bounds = tuple(bound for bound in RESPONSE_BYTES if bound <= 8192)
SHORT_S: Bounds = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
REQUEST_PROCESSING_S: Bounds = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RESPONSE_PROCESSING_S: Bounds = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STREAM_S: Bounds = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)
"""What a transport counts stream durations by."""
HANDOVER_S: Bounds = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
"""What a transport counts by how long calls wait for the event loop: from idle to a loop that is blocked."""
QUEUE_S: Bounds = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REVOCATION_S: Bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PREDICTION_S: Bounds = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
MARGIN: Bounds = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Weighted totals are sums of scores in [0, 1] by their weights."""
KV_LOOKUP_S: Bounds = (
    0.00002,
    0.00005,
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
CLIENT_DEFAULT_S: Bounds = tuple(bound for bound in KV_LOOKUP_S if bound >= 0.005)
"""The default buckets of Prometheus' client libraries, which older names have."""
RATIO: Bounds = tuple(tenths / 10 for tenths in range(11))
HIT_BYTES: Bounds = (0, *(16 * 2**n for n in range(13)))

REQUEST_LABELS = ("model_name", "target_model_name", "fairness_id", "priority")
_PLUGIN = ("plugin_name", "plugin_type")
_PREDICTION = (*_PLUGIN, "model_name", "target_model_name")
POOL_LABEL = "pool"
"""Of every series of a pool, where a process serves several."""
_POOL = ("name",)
_POOL_ENDPOINT = ("name", "model_server_endpoint")
_OF_PRODUCER = ("endpoint_name", "namespace", "plugin_name")
_FLOW = ("fairness_id", "priority", "inference_pool", "model_name", "target_model_name")
_FLOW_POOL = ("inference_pool",)
_FLOW_BAND = ("priority", "inference_pool")
_INFLIGHT = ("endpoint_name", "namespace", "producer_name", "fairness_id", "priority")


def _counter(name: str, labels: tuple[str, ...], text: str, *, of_endpoint: bool = False) -> Metric:
    return Metric(PREFIX + name, Kind.COUNTER, labels, f"[ALPHA] {text}", of_endpoint=of_endpoint)


def _gauge(name: str, labels: tuple[str, ...], text: str, *, of_endpoint: bool = False) -> Metric:
    return Metric(PREFIX + name, Kind.GAUGE, labels, f"[ALPHA] {text}", of_endpoint=of_endpoint)


def _histogram(name: str, labels: tuple[str, ...], buckets: Bounds, text: str) -> Metric:
    return Metric(PREFIX + name, Kind.HISTOGRAM, labels, f"[ALPHA] {text}", buckets)


def _of_process(*families: Metric) -> tuple[Metric, ...]:
    return tuple(replace(family, of_process=True) for family in families)


_REQUESTS = (
    _counter("request_total", REQUEST_LABELS, "Requests that were scheduled."),
    _counter("request_error_total", (*REQUEST_LABELS, "error_code"), "Requests that ended in an error."),
    _gauge("request_running", REQUEST_LABELS, "Requests scheduled and not yet finished."),
    _histogram(
        "request_duration_seconds",
        REQUEST_LABELS,
        LATENCY_S,
        "From the request headers to the last byte of the response.",
    ),
    _histogram("request_size_bytes", REQUEST_LABELS, REQUEST_BYTES, "Size of request bodies as sent to the model server."),
    _histogram("response_size_bytes", REQUEST_LABELS, RESPONSE_BYTES, "Size of response bodies."),
    _histogram("request_input_tokens", REQUEST_LABELS, INPUT_TOKENS, "Prompt tokens that the model server reported."),
    _histogram("request_output_tokens", REQUEST_LABELS, OUTPUT_TOKENS, "Completion tokens that the model server reported."),
    _histogram("request_cached_tokens", REQUEST_LABELS, INPUT_TOKENS, "Prompt tokens that the model server had cached."),
    _histogram("request_ntpot_seconds", REQUEST_LABELS, NTPOT_S, "Request duration divided by the output tokens."),
    _histogram(
        "request_ttft_seconds",
        (*REQUEST_LABELS, "streaming"),
        TTFT_S,
        "From the request headers to the first response body byte.",
    ),
    _histogram("request_streaming_tpot_seconds", REQUEST_LABELS, TPOT_S, "Time per output token after the first."),
    _histogram("request_streaming_itl_seconds", REQUEST_LABELS, ITL_S, "Gap between two chunks of a streaming response."),
)

_POOL_FAMILIES = (
    _gauge("average_kv_cache_utilization", _POOL, "Mean KV cache use of the fresh endpoints, 0 to 1."),
    _gauge("average_queue_size", _POOL, "Mean number of waiting requests of the fresh endpoints."),
    _gauge("average_running_requests", _POOL, "Mean number of running requests of the fresh endpoints."),
    _gauge("std_dev_kv_cache_utilization", _POOL, "Population standard deviation of the KV cache use."),
    _gauge("std_dev_queue_size", _POOL, "Population standard deviation of the waiting requests."),
    _gauge("std_dev_running_requests", _POOL, "Population standard deviation of the running requests."),
    _gauge("ready_endpoints", _POOL, "Endpoints whose metrics are fresh."),
    _gauge("per_endpoint_queue_size", _POOL_ENDPOINT, "Waiting requests of one endpoint."),
    _gauge("endpoint_scrape_age_seconds", _POOL_ENDPOINT, "Time since the last good scrape of one endpoint."),
    _counter("endpoint_scrape_failures_total", _POOL_ENDPOINT, "Failed scrapes of one endpoint."),
)

_SCHEDULING = (
    _histogram("scheduler_e2e_duration_seconds", (), SHORT_S, "One scheduling decision, all profiles."),
    _counter(
        "scheduler_attempts_total",
        ("status", "target_model_name", "endpoint_name", "namespace", "port"),
        "Scheduling decisions by result and picked endpoint.",
        of_endpoint=True,
    ),
    _histogram("plugin_duration_seconds", ("extension_point", "plugin_type", "plugin_name"), SHORT_S, "One call of a plugin."),
    _counter(
        "plugin_errors_total",
        ("extension_point", "plugin_type", "plugin_name"),
        "Calls of a plugin that raised or broke its contract.",
    ),
    _counter(
        "plugin_overruns_total",
        ("extension_point", "plugin_type", "plugin_name"),
        "Calls of a plugin that took longer than their budget.",
    ),
    _gauge(
        "plugin_skipped",
        ("extension_point", "plugin_type", "plugin_name"),
        "1 while a plugin is left out because it was too slow too often.",
    ),
    _counter(
        "plugin_skipped_calls_total",
        ("extension_point", "plugin_type", "plugin_name"),
        "Calls of a plugin that were left out because it was too slow too often.",
    ),
    _histogram("request_processing_duration_seconds", (), REQUEST_PROCESSING_S, "Time spent on a request, queueing included."),
    _histogram("response_processing_duration_seconds", (), RESPONSE_PROCESSING_S, "Time spent on a response."),
    _counter(
        "model_rewrite_decisions_total",
        ("model_rewrite_name", "model_name", "target_model"),
        "Model names that were rewritten.",
    ),
)

_PLUGINS = (
    _gauge("prefix_indexer_size", _PLUGIN, "Entries of the prefix index."),
    _histogram("prefix_indexer_hit_ratio", _PLUGIN, RATIO, "Share of a prompt that was found in the prefix index."),
    _histogram("prefix_indexer_hit_bytes", _PLUGIN, HIT_BYTES, "Length of the prefix found in the index."),
    _counter("disagg_decision_total", (*_PLUGIN, "model_name", "decision_type"), "Decisions about disaggregated serving."),
    _counter("pd_decision_total", (*_PLUGIN, "model_name", "decision_type"), "Decisions about prefill and decode."),
    _gauge("inflight_requests", _INFLIGHT, "Requests sent to an endpoint and not yet finished.", of_endpoint=True),
    _gauge("inflight_tokens", _INFLIGHT, "Tokens of the requests in flight at an endpoint.", of_endpoint=True),
    _counter(
        "prefix_cache_predicted_tokens_total",
        _OF_PRODUCER,
        "Prompt tokens predicted to be cached, of responses that report cached tokens.",
        of_endpoint=True,
    ),
    _counter(
        "prefix_cache_reported_tokens_total",
        _OF_PRODUCER,
        "Prompt tokens that the endpoint reported as cached.",
        of_endpoint=True,
    ),
    _gauge(
        "prefix_cache_mismatch",
        _OF_PRODUCER,
        "1 while predictions and reports of an endpoint differ for long.",
        of_endpoint=True,
    ),
    _histogram(
        "prefix_cache_prediction_error_ratio",
        ("plugin_name",),
        RATIO,
        "Share of a prompt by which a report lies outside of what was predicted.",
    ),
    _counter("encoder_cache_queries_total", ("plugin_type", "plugin_name", "modality"), "Look-ups in the encoder cache."),
    _counter("encoder_cache_hits_total", ("plugin_type", "plugin_name", "modality", "pod"), "Hits in the encoder cache."),
    _histogram(
        "encoder_cache_hit_ratio", ("plugin_type", "plugin_name"), RATIO, "Share of the items found in the encoder cache."
    ),
    _counter(
        "disaggregatedset_strict_header_no_match_total",
        ("plugin_type", "plugin_name", "selector"),
        "Requests whose strict header named a label value that no endpoint has.",
    ),
    _gauge("program_aware_jains_fairness_index", (), "Jain's fairness index over programs, 0 to 1."),
    _gauge("program_aware_avg_wait_time_milliseconds", ("program_id",), "Mean waiting time of a program's requests."),
    _gauge("program_aware_attained_service_tokens", ("program_id",), "Tokens that a program has been served."),
)

_KV_POD = ("pod_identifier",)

_KV_CACHE = (
    _counter("kv_cache_index_admissions_total", (), "Blocks that the index did not hold before."),
    _counter("kv_cache_index_evictions_total", (), "Entries that left the index."),
    _counter("kv_cache_index_lookup_requests_total", (), "Requests that were looked up in the index."),
    _counter("kv_cache_index_lookup_hits_total", (), "Leading blocks that the best endpoint held."),
    _counter("kv_cache_index_max_pod_hit_count_total", (), "The same, by its other name."),
    _histogram("kv_cache_index_lookup_latency_seconds", (), KV_LOOKUP_S, "Looking up one request, all endpoints."),
    _counter("kv_cache_index_errors_total", (), "Look-ups and messages of events that a shared index did not take."),
    _gauge("kv_cache_index_keys", (), "Blocks in the index."),
    _histogram(
        "kv_cache_tokenization_render_chat_template_latency_seconds",
        ("tokenizer",),
        KV_LOOKUP_S,
        "Rendering a conversation by its model's template.",
    ),
    _histogram("kv_cache_tokenization_tokenization_latency_seconds", ("tokenizer",), KV_LOOKUP_S, "Tokenizing a prompt."),
    _counter("kv_cache_tokenization_tokenized_tokens_total", ("tokenizer",), "Tokens of the prompts that were tokenized."),
    _counter("kv_cache_tokenization_failures_total", ("tokenizer",), "Prompts that could not be tokenized."),
    _counter("kv_cache_events_dedup_removed_hashes_suppressed_total", (), "Removals of blocks that are cached a second time."),
    _counter("kv_cache_events_dedup_removed_hashes_forwarded_total", (), "Removals that were applied."),
    _counter("kv_cache_events_stores_skipped_total", ("cache_kind", "reason"), "Stored blocks that cannot be indexed."),
    _counter("kv_cache_events_removals_skipped_total", ("cache_kind", "reason"), "Removals of blocks that are not indexed."),
    _gauge("kv_cache_events_active_subscribers", (), "Sockets that events are received on."),
    _gauge(
        "kv_cache_events_receiving",
        ("plugin_name",),
        "1 while a plugin's thread receives events; 0 after a defect, until it receives again.",
    ),
    _counter(
        "kv_cache_events_receiver_restarts_total", ("plugin_name",), "Times that events were received again after a defect."
    ),
    _counter("kv_cache_events_subscriber_reconnections_total", _KV_POD, "Connections beyond the first one of a socket."),
    _counter("kv_cache_events_messages_received_total", _KV_POD, "Messages of events."),
    _counter("kv_cache_events_zmq_errors_total", (*_KV_POD, "operation"), "Failures of sockets."),
    _counter("kv_cache_events_decode_errors_total", ("reason",), "Payloads and events that could not be read."),
    _counter("kv_cache_events_messages_dropped_total", ("reason",), "Messages without a form, or of nobody in the pool."),
    _counter("kv_cache_events_unknown_parent_total", (), "Stored blocks whose predecessor nobody knows yet."),
    _gauge("kv_cache_events_orphans", (), "Those that wait for it."),
    _counter("kv_cache_events_sequence_gaps_total", (), "Times that messages of a publisher were missed."),
    _counter("kv_cache_events_missed_messages_total", (), "How many they were."),
    _counter("kv_cache_events_publisher_restarts_total", (), "Publishers that began to count anew."),
    _counter("kv_cache_events_replays_total", ("result",), "Times that missed messages were asked for again."),
)

_FLOW_CONTROL = (
    _histogram(
        "flow_control_request_queue_duration_seconds",
        ("fairness_id", "priority", "outcome", "inference_pool", "model_name", "target_model_name"),
        QUEUE_S,
        "From the arrival at flow control to the outcome.",
    ),
    _histogram("flow_control_dispatch_cycle_duration_seconds", (), SHORT_S, "One search for the next request to let go."),
    _histogram(
        "flow_control_request_enqueue_duration_seconds",
        ("fairness_id", "priority", "outcome"),
        SHORT_S,
        "Time spent on an arrival; outcome NotYetFinalized: it was taken.",
    ),
    _gauge("flow_control_queue_size", _FLOW, "Requests that wait."),
    _gauge("flow_control_queue_bytes", _FLOW, "Bodies of the requests that wait."),
    _gauge("flow_control_oldest_request_age_seconds", _FLOW_BAND, "Time that the longest waiting request has waited."),
    _gauge("flow_control_pool_saturation", ("inference_pool", "stage"), "How full the pool is; 1 and above = full."),
    _gauge("flow_control_stale_endpoints", ("detector",), "Endpoints whose metrics are too old for the detector."),
    _gauge("flow_control_capacity_utilization_requests", _FLOW_BAND, "Waiting requests of a band divided by its limit."),
    _gauge("flow_control_capacity_utilization_bytes", _FLOW_BAND, "Waiting bytes of a band divided by its limit."),
    _gauge("flow_control_global_capacity_utilization_requests", _FLOW_POOL, "All waiting requests divided by their limit."),
    _gauge("flow_control_global_capacity_utilization_bytes", _FLOW_POOL, "All waiting bytes divided by their limit."),
    _counter("flow_control_requests_total", ("outcome", *_FLOW_BAND), "Requests by how they left flow control."),
    _counter("flow_control_revocations_issued_total", _FLOW_BAND, "Running requests ended for one of this priority."),
    _counter("flow_control_revocations_total", ("outcome", *_FLOW_POOL), "Ended requests: their end was seen, or not in time."),
    _gauge("flow_control_reclaim_target", _FLOW_POOL, "Saturation that the last eviction was to free."),
    _gauge("flow_control_pending_reclaim", _FLOW_POOL, "Saturation whose freeing does not show yet."),
    _histogram(
        "flow_control_revocation_confirmation_seconds", _FLOW_POOL, REVOCATION_S, "From an eviction to the end of its stream."
    ),
)

_LATENCY_PREDICTION = (
    _gauge(
        "inference_request_metric",
        (*_PREDICTION, "type"),
        "Latencies of the last request in seconds: ttft, tpot, predicted_, _prediction_duration; _slo_violation is 0 or 1.",
    ),
    _histogram("request_predicted_ttft_seconds", _PREDICTION, LATENCY_S, "Predicted time to first token."),
    _histogram("request_predicted_tpot_seconds", _PREDICTION, LONG_TPOT_S, "Predicted time per output token."),
    _histogram(
        "request_ttft_prediction_duration_seconds",
        _PREDICTION,
        PREDICTION_S,
        "Time spent on predicting the first token's time.",
    ),
    _histogram(
        "request_tpot_prediction_duration_seconds", _PREDICTION, PREDICTION_S, "Time spent on predicting the time per token."
    ),
    _counter("request_slo_violation_total", (*_PREDICTION, "type"), "Requests that missed their latency objective."),
)

_PROCESS = (
    *_of_process(_gauge("info", ("commit", "build_ref", "version"), "The build; always 1.")),
    _counter("datalayer_poll_errors_total", ("source_type",), "Failed polls of a data source."),
    _counter(
        "datalayer_extract_errors_total", ("source_type", "extractor_type"), "Polls from which a value could not be read."
    ),
    *_of_process(
        _gauge("extproc_streams_inflight", (), "Open ext_proc streams."),
        _histogram("extproc_stream_duration_seconds", (), STREAM_S, "Duration of ext_proc streams."),
        _counter("extproc_streams_total", ("code",), "Ended ext_proc streams by gRPC status."),
        _gauge("extproc_buffered_bytes", (), "Request bodies held in memory."),
        _histogram(
            "extproc_handover_duration_seconds", (), HANDOVER_S, "From the wire to the event loop; native transport only."
        ),
    ),
    _counter("config_reloads_total", ("result",), "Reloads of the configuration."),
    _gauge("config_last_reload_success_timestamp_seconds", (), "When the configuration was last loaded, Unix time."),
    _gauge("config_last_reload_successful", (), "1 if the last load of the configuration succeeded."),
    _gauge("config_hash", ("sha256",), "The configuration in use; always 1."),
)

_SHADOW = (
    _gauge("shadow_state", ("state",), "1 for what became of the shadow configuration."),
    _counter("shadow_decisions_total", ("result",), "Served requests by what the shadow configuration made of them."),
    _counter("shadow_disagreements_total", ("reason",), "Requests it would have sent elsewhere, by the plugin that decided."),
    _histogram(
        "shadow_score_margin", (), MARGIN, "Its total of its own endpoint less that of the one used, where they differ."
    ),
    _counter("shadow_prefix_tokens_total", ("change",), "Prompt tokens thought cached that it would have won or lost."),
    _counter("shadow_skipped_total", ("reason",), "Requests it was not shown, as its queue was full or its time used up."),
    _counter("shadow_plugin_errors_total", ("extension_point", "plugin_type", "plugin_name"), "Failures of its plugins."),
    _histogram("shadow_decision_duration_seconds", (), SHORT_S, "One decision of it, waiting included."),
)

_MANY_POOLS = _of_process(
    _gauge("pool_loaded", (POOL_LABEL,), "1 while a pool of the pools file is served, 0 while it is not loaded."),
    _gauge("pool_ready", (POOL_LABEL,), "1 while it is ready."),
    _counter("pool_refusals_total", (POOL_LABEL, "reason"), "Requests that were refused before a pool decided about them."),
    _gauge("pool_buffered_bytes", (POOL_LABEL,), "Bodies of a pool's requests that wait for their decision on a shared port."),
    _counter("pools_file_reloads_total", ("result",), "Reloads of the pools file."),
)

CATALOGUE: tuple[Metric, ...] = (
    *_REQUESTS,
    *_POOL_FAMILIES,
    *_SCHEDULING,
    *_FLOW_CONTROL,
    *_PLUGINS,
    *_KV_CACHE,
    *_LATENCY_PREDICTION,
    *_PROCESS,
    *_SHADOW,
    *_MANY_POOLS,
)
"""All families, in the order in which they are exposed."""
