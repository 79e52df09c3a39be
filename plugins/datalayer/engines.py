"""Which series of which model server mean what: the built-in table, and its entries in the configuration.

Source: llm-d-router: docs/plugin-metric-protocol.md, pkg/epp/framework/plugins/datalayer/extractor/metrics/mapping.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from epp.framework.params import Params
from epp.framework.prometheus_text import SeriesSpec
from plugins.datalayer.ranks import PART_LABELS

DEFAULT_ENGINE = "vllm"
RESERVED_NAME = "default"

PROCESS_START = "process_start_time_seconds"
"""Unix time at which the server's process began, of every engine whose page has it: a standard series of Prometheus' libraries.
vLLM has it; with several API servers it has not, as SGLang and trtllm-serve never have, since ``prometheus_client`` leaves out
what belongs to one process where several share a page.
Source: prometheus/client_python: prometheus_client/process_collector.py, docs (multiprocess mode); vllm:
vllm/v1/metrics/prometheus.py; sglang: ``add_prometheus_middleware``; TensorRT-LLM: tensorrt_llm/serve/openai_server.py."""

_RENAMED = {
    "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
}
"""vLLM renamed this series in 0.10; whichever is asked for, the other one means the same."""


def _checked_spec(text: str) -> str:
    if text:
        SeriesSpec.parse(text)
    return text


Spec = Annotated[str, AfterValidator(_checked_spec)]
"""A series: ``name`` or ``name{label=value}``; "" = not read."""


class CustomMetric(Params):
    """A series that becomes an attribute of the endpoint."""

    attribute_key: str = Field(min_length=1, description="Key of the attribute.")
    metric_spec: Annotated[str, AfterValidator(_checked_spec)] = Field(min_length=1, description="Series that is read.")


class EngineConfig(Params):
    """The series of one kind of model server. A name that is built in is replaced whole: what is not given is not read."""

    name: str = Field(min_length=1, description="Value of the engine label.")
    queued_requests_spec: Spec = Field("", description="Requests that wait.")
    running_requests_spec: Spec = Field("", description="Requests that run.")
    kv_usage_spec: Spec = Field("", description="Used fraction of the KV cache, 0 to 1.")
    lora_spec: Spec = Field("", description="Info series with the LoRA adapters.")
    cache_info_spec: Spec = Field("", description="Info series with the cache configuration in its labels.")
    cache_block_size_label_name: str = Field("block_size", description="Label of the info series: tokens per block.")
    cache_num_blocks_label_name: str = Field("num_gpu_blocks", description="Label of the info series: blocks.")
    cache_block_size_spec: Spec = Field("", description="Series with the tokens per block; goes before the label.")
    cache_num_blocks_spec: Spec = Field("", description="Series with the number of blocks; goes before the label.")
    custom_metrics: tuple[CustomMetric, ...] = Field((), strict=False, description="Further series, as attributes.")
    path: str = Field("", description='Path of the page on this kind of server; "" = the source\'s.')
    rank_label: str | None = Field(
        None, description='One more label that tells the engines of one page apart; "" = no label does, not even a known one.'
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == RESERVED_NAME:
            raise ValueError(f"{name!r} is reserved for endpoints without an engine label; use defaultEngine to choose theirs")
        return name

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if path and not path.startswith("/"):
            raise ValueError(f"{path!r} must begin with /")
        return path

    @field_validator("custom_metrics")
    @classmethod
    def _distinct(cls, metrics: tuple[CustomMetric, ...]) -> tuple[CustomMetric, ...]:
        keys = [metric.attribute_key for metric in metrics]
        doubled = next((key for key in keys if keys.count(key) > 1), None)
        if doubled is not None:
            raise ValueError(f"attributeKey {doubled!r} is used twice; each attribute has one series")
        return metrics


@dataclass(frozen=True, slots=True)
class Engine:
    """The series of one kind of model server, parsed."""

    name: str
    queued: SeriesSpec | None = None
    running: SeriesSpec | None = None
    kv_usage: tuple[SeriesSpec, ...] = ()
    """The first that exists is read."""
    lora: SeriesSpec | None = None
    cache_info: SeriesSpec | None = None
    block_size_label: str = "block_size"
    num_blocks_label: str = "num_gpu_blocks"
    block_size: SeriesSpec | None = None
    num_blocks: SeriesSpec | None = None
    custom: tuple[tuple[str, SeriesSpec], ...] = ()
    rank_labels: tuple[str, ...] = PART_LABELS
    """Labels by which the engines (ranks) of one page differ."""
    path: str = ""
    is_built_in: bool = True


def kv_usage_specs(text: str) -> tuple[SeriesSpec, ...]:
    """The series of the KV usage, and the one that another version of the server calls it.

    Raises:
        ValueError: not a series.
    """
    if not text:
        return ()
    spec = SeriesSpec.parse(text)
    other = _RENAMED.get(spec.name)
    return (spec,) if other is None else (spec, replace(spec, name=other))


def optional_spec(text: str) -> SeriesSpec | None:
    """The series, or None for "".

    Raises:
        ValueError: not a series.
    """
    return SeriesSpec.parse(text) if text else None


def engine_from(config: EngineConfig) -> Engine:
    """The engine that an entry of the configuration describes."""
    rank_labels: tuple[str, ...] = PART_LABELS
    if config.rank_label is not None:
        rank_labels = (config.rank_label, *PART_LABELS) if config.rank_label else ()
    return Engine(
        name=config.name,
        queued=optional_spec(config.queued_requests_spec),
        running=optional_spec(config.running_requests_spec),
        kv_usage=kv_usage_specs(config.kv_usage_spec),
        lora=optional_spec(config.lora_spec),
        cache_info=optional_spec(config.cache_info_spec),
        block_size_label=config.cache_block_size_label_name,
        num_blocks_label=config.cache_num_blocks_label_name,
        block_size=optional_spec(config.cache_block_size_spec),
        num_blocks=optional_spec(config.cache_num_blocks_spec),
        custom=tuple((m.attribute_key, SeriesSpec.parse(m.metric_spec)) for m in config.custom_metrics),
        rank_labels=rank_labels,
        path=config.path,
        is_built_in=False,
    )


def _triton_request(kind: str) -> SeriesSpec:
    return SeriesSpec("nv_trt_llm_request_metrics", (("request_type", kind),))


def _triton_block(kind: str) -> SeriesSpec:
    return SeriesSpec("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", kind),))


BUILT_IN: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="vllm",
            queued=SeriesSpec("vllm:num_requests_waiting"),
            running=SeriesSpec("vllm:num_requests_running"),
            kv_usage=kv_usage_specs("vllm:kv_cache_usage_perc"),
            lora=SeriesSpec("vllm:lora_requests_info"),
            cache_info=SeriesSpec("vllm:cache_config_info"),
        ),
        Engine(
            name="sglang",
            queued=SeriesSpec("sglang:num_queue_reqs"),
            running=SeriesSpec("sglang:num_running_reqs"),
            kv_usage=(SeriesSpec("sglang:token_usage"),),
            cache_info=SeriesSpec("sglang:cache_config_info"),
            block_size_label="page_size",
            num_blocks_label="num_pages",
            block_size=SeriesSpec("sglang:page_size"),
            num_blocks=SeriesSpec("sglang:num_pages"),
        ),
        Engine(
            name="trtllm-serve",
            queued=SeriesSpec("trtllm_num_requests_waiting"),
            running=SeriesSpec("trtllm_num_requests_running"),
            kv_usage=(SeriesSpec("trtllm_kv_cache_utilization"),),
            block_size=SeriesSpec("trtllm_kv_cache_tokens_per_block"),
            num_blocks=SeriesSpec("trtllm_kv_cache_max_blocks"),
            path="/prometheus/metrics",  # its /metrics is JSON
        ),
        Engine(
            name="triton-tensorrt-llm",
            queued=_triton_request("waiting"),
            running=_triton_request("scheduled"),
            kv_usage=(_triton_block("fraction"),),
            block_size=_triton_block("tokens_per"),
            num_blocks=_triton_block("max"),
        ),
        Engine(
            name="triton",
            queued=SeriesSpec("nv_inference_pending_request_count"),
            running=SeriesSpec("nv_inference_exec_count"),
        ),
    )
}
"""The engines that need no configuration, by the value of the engine label."""
