"""Metrics pages of model servers, reduced to what is read, and a page of realistic size."""

from __future__ import annotations

VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen3-8b"} 6.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="qwen3-8b"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="qwen3-8b"} 0.4175
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="27832",sliding_window="None"} 1.0
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.755300000e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql,chat",waiting_lora_adapters="sql,chat"} 1.755300420e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="chat",waiting_lora_adapters=""} 1.755300310e+09
"""

VLLM_TWO_ENGINES = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 7.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.9
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1200"} 1.0
"""

_SGLANG_LOAD = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 11.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 4.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.28
"""

SGLANG = (
    _SGLANG_LOAD
    + """\
# TYPE sglang:page_size gauge
sglang:page_size{model_name="m"} 64.0
# TYPE sglang:num_pages gauge
sglang:num_pages{model_name="m"} 5120.0
"""
)

SGLANG_OLD = _SGLANG_LOAD + 'sglang:cache_config_info{num_pages="5120",page_size="64"} 1.0\n'

SGLANG_WITHOUT_CACHE = _SGLANG_LOAD

TRTLLM = """\
# TYPE trtllm_num_requests_waiting gauge
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 1.0
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 9.0
# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.62
# TYPE trtllm_kv_cache_tokens_per_block gauge
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="m"} 32.0
# TYPE trtllm_kv_cache_max_blocks gauge
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="m"} 8000.0
"""

TRITON_WAITING = 'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3\n'
TRITON_TRTLLM = f"""\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="scheduled",version="1"}} 5
{TRITON_WAITING}nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="max",version="1"}} 512
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"}} 0.125
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"}} 64
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="max",model="tensorrt_llm",version="1"}} 6239
"""

TRITON = """\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="resnet",version="1"} 2
nv_inference_pending_request_count{model="bert",version="1"} 3
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="resnet",version="1"} 81234
"""

_BUCKETS = (
    "0.001",
    "0.005",
    "0.01",
    "0.02",
    "0.05",
    "0.1",
    "0.25",
    "0.5",
    "1.0",
    "2.5",
    "5.0",
    "10.0",
    "30.0",
    "120.0",
    "+Inf",
)


def full_page(size_bytes: int = 62_000, engines: int = 1) -> str:
    """A vLLM page of about this size: the wanted families among histograms, the info series last."""
    lines = [line for line in VLLM_TWO_ENGINES.splitlines() if "cache_config" not in line]
    tail = [line for line in VLLM.splitlines() if "cache_config" in line or "lora" in line]
    size = sum(len(line) + 1 for line in lines + tail)
    number = 0
    while size < size_bytes:
        family = f"vllm:stage_{number}_seconds"
        block = [f"# HELP {family} Histogram of a stage in seconds.", f"# TYPE {family} histogram"]
        for engine in range(engines):
            labels = f'engine="{engine}",model_name="meta-llama/Llama-3.1-8B-Instruct"'
            block += [f'{family}_bucket{{{labels},le="{bound}"}} {number}.0' for bound in _BUCKETS]
            block += [f"{family}_count{{{labels}}} 5.0", f"{family}_sum{{{labels}}} 5.0"]
        lines += block
        size += sum(len(line) + 1 for line in block)
        number += 1
    return "\n".join(lines + tail) + "\n"
