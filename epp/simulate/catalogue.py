"""The families of a vLLM metrics page, in its order. Pure data, apart from where the moving values come from.

Source: vllm-project/vllm: vllm/v1/metrics/loggers.py, vllm/v1/spec_decode/metrics.py;
trallnag/prometheus-fastapi-instrumentator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epp.simulate.engine import Engine
from epp.simulate.statistics import Histogram, Statistics

Read = Callable[[Engine], float]


def _zero(_: Engine) -> float:
    """What this engine does not do."""
    return 0.0


READ_BY_SCHEDULERS: Sequence[tuple[str, str, Read]] = (
    ("vllm:num_requests_running", "Number of requests in model execution batches.", lambda e: e.running),
    ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", lambda e: e.waiting),
    ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", lambda e: e.kv_usage_ratio),
)
"""Gauges of both pages."""

PREFIX_COUNTERS: Sequence[tuple[str, str, Read]] = (
    (
        "vllm:prefix_cache_queries",
        "Prefix cache queries, in terms of number of queried tokens.",
        lambda e: e.statistics.prefix_queries,
    ),
    ("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", lambda e: e.statistics.prefix_hits),
)
"""Counters of both pages."""

COUNTERS: Sequence[tuple[str, str, Read]] = (
    (
        "vllm:external_prefix_cache_queries",
        "External prefix cache queries from KV connector cross-instance cache sharing.",
        lambda e: e.statistics.external_queries,
    ),
    (
        "vllm:external_prefix_cache_hits",
        "External prefix cache hits from KV connector cross-instance cache sharing.",
        lambda e: e.statistics.external_hits,
    ),
    ("vllm:mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items.", _zero),
    ("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.", _zero),
    ("vllm:num_preemptions", "Cumulative number of preemption from the engine.", lambda e: e.statistics.preemptions),
    ("vllm:prompt_tokens", "Number of prefill tokens processed.", lambda e: e.statistics.prompt_tokens),
    (
        "vllm:prompt_tokens_cached",
        "Number of cached prompt tokens, local and external.",
        lambda e: e.statistics.prefix_hits + e.statistics.external_hits,
    ),
    ("vllm:generation_tokens", "Number of generation tokens processed.", lambda e: e.statistics.generation_tokens),
    ("vllm:corrupted_requests", "Corrupted requests, in terms of total number of requests with NaNs in logits.", _zero),
    ("vllm:spec_decode_num_drafts", "Number of spec decoding drafts.", _zero),
    ("vllm:spec_decode_num_draft_tokens", "Number of draft tokens.", _zero),
    ("vllm:spec_decode_num_accepted_tokens", "Number of accepted tokens.", _zero),
)

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

HISTOGRAMS: Sequence[tuple[str, str, Callable[[Statistics], Histogram]]] = (
    ("vllm:request_prompt_tokens", "Number of prefill tokens processed.", lambda s: s.request_prompt_tokens),
    ("vllm:request_generation_tokens", "Number of generation tokens processed.", lambda s: s.request_generation_tokens),
    ("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", lambda s: s.iteration_tokens),
    ("vllm:request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.",
     lambda s: s.request_generation_tokens),
    ("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", lambda s: s.request_generation_tokens),
    ("vllm:request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill, excluding cached tokens.",
     lambda s: s.request_computed_tokens),
    ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", lambda s: s.ttft_s),
    ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", lambda s: s.inter_token_s),
    ("vllm:time_per_output_token_seconds", "Histogram of time per output token in seconds. Deprecated.",
     lambda s: s.inter_token_s),
    ("vllm:request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.",
     lambda s: s.time_per_output_token_s),
    ("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", lambda s: s.e2e_s),
    ("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", lambda s: s.queue_s),
    ("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", lambda s: s.inference_s),
    ("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", lambda s: s.prefill_s),
    ("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", lambda s: s.decode_s),
)  # fmt: skip

QUIET_HISTOGRAMS: Sequence[tuple[str, str, tuple[float, ...]]] = (
    ("vllm:request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20)),
)
"""Families that are there and do not move."""

PROCESS_START = "process_start_time_seconds"
PROCESS: Sequence[tuple[str, str, str, Sequence[tuple[Mapping[str, str], float]]]] = (
    ("python_gc_objects_collected_total", "counter", "Objects collected during gc",
     [({"generation": "0"}, 18312), ({"generation": "1"}, 2781), ({"generation": "2"}, 1154)]),
    ("python_gc_objects_uncollectable_total", "counter", "Uncollectable objects found during GC",
     [({"generation": "0"}, 0), ({"generation": "1"}, 0), ({"generation": "2"}, 0)]),
    ("python_gc_collections_total", "counter", "Number of times this generation was collected",
     [({"generation": "0"}, 1694), ({"generation": "1"}, 153), ({"generation": "2"}, 11)]),
    ("python_info", "gauge", "Python platform information",
     [({"implementation": "CPython", "major": "3", "minor": "12", "patchlevel": "11", "version": "3.12.11"}, 1)]),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", [({}, 14417821696)]),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", [({}, 1093246976)]),
    (PROCESS_START, "gauge", "Start time of the process since unix epoch in seconds.", [({}, 0)]),
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", [({}, 41.57)]),
    ("process_open_fds", "gauge", "Number of open file descriptors.", [({}, 58)]),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors.", [({}, 1048576)]),
)  # fmt: skip

CACHE_CONFIG: Mapping[str, str] = {
    "cache_dtype": "auto", "calculate_kv_scales": "False", "cpu_kvcache_space_bytes": "None", "cpu_offload_gb": "0",
    "enable_prefix_caching": "True", "gpu_memory_utilization": "0.9", "is_attention_free": "False",
    "kv_cache_memory_bytes": "None", "kv_offloading_backend": "native", "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False", "mamba_block_size": "None", "mamba_cache_dtype": "auto",
    "mamba_page_size_padded": "None", "mamba_ssm_cache_dtype": "auto", "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None", "prefix_caching_hash_algo": "sha256", "sliding_window": "None", "swap_space": "4",
    "swap_space_bytes": "4294967296", "user_specified_block_size": "False",
}  # fmt: skip
"""Labels of ``vllm:cache_config_info`` beside ``block_size``, ``num_gpu_blocks`` and ``engine``."""

HTTP_HANDLERS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/models", "/health", "none")
HTTP_BOUNDS = (0.1, 0.5, 1)
HTTP_FINE_BOUNDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
)  # fmt: skip
