"""Parameters of the precise prefix cache: index, tokenizers, KV events.

Source: llm-d-kv-cache: pkg/kvcache, pkg/kvevents.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from epp.framework.params import (
    Deprecated,
    GoDurationS,
    Ignored,
    Int,
    Params,
    exclusive,
    format_duration,
    moved,
    parse_duration,
)

_HUMAN_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtpe]i?b?|b)?\s*", re.IGNORECASE)
_ZMQ_SCHEMES = ("tcp://", "ipc://", "inproc://")
_TOKENIZER_MODES = "One of auto, hf, slow, mistral, deepseek_v32 (and limit, of v0.4)."


_POWERS = "kmgtpe"


def size_bytes(text: str) -> int:
    """Bytes of a size such as ``2GiB`` or ``500MB``; ``2Gi`` is ``2GiB``, ``2G`` is ``2GB``.

    Raises:
        ValueError: it is none.
    """
    match = _HUMAN_SIZE.fullmatch(_check_size(text))
    assert match is not None
    number, unit = match[1], (match[2] or "").lower()
    power = _POWERS.find(unit[0]) + 1 if unit and unit[0] in _POWERS else 0
    return int(float(number) * (1024 if "i" in unit else 1000) ** power)


def _check_size(text: str) -> str:
    if not _HUMAN_SIZE.fullmatch(text):
        raise ValueError(f"{text!r} is not a size; use a number of bytes, or one with a unit such as 2GiB, 512MiB or 2Gi")
    return text


def _as_duration(value: object) -> object:
    """Older guides write nanoseconds."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return format_duration(value * 1e-9) if is_number else value  # type: ignore[operator]


def _check_zmq_endpoint(text: str) -> str:
    if text and not text.startswith(_ZMQ_SCHEMES):
        raise ValueError(f"{text!r} is not a ZMQ endpoint; it begins with {', '.join(_ZMQ_SCHEMES)}")
    return text


HumanSize = Annotated[str, AfterValidator(_check_size)]
TokenizerMode = Literal["auto", "hf", "slow", "mistral", "deepseek_v32", "limit"]


class TokenProcessor(Params):
    """How tokens become block keys."""

    block_size: Int = Field(default=16, gt=0, description="Tokens per block; should equal the engine's `--block-size`.")
    block_size_tokens: Int = Field(default=0, ge=0, description="Newer name of `blockSize`; wins when not 0.")
    hash_seed: str = Field(
        default="", description="Seed of the key chain; must be the same in all pickers that share an index."
    )
    hash_algorithm: Literal["", "cbor-fnv", "xxh64"] = Field(
        default="", description="Chain algorithm of an index in Redis or Valkey; empty = `cbor-fnv`. Others have their own."
    )


class InMemoryIndex(Params):
    """An index in this process."""

    size: Int = Field(default=100_000_000, gt=0, description="Most keys; a ceiling, not a reservation.")
    pod_cache_size: Int = Field(default=10, gt=0, description="Most endpoints per key; applied only when given.")


class RedisIndex(Params):
    """An index in Redis or Valkey."""

    address: str = Field(default="redis://127.0.0.1:6379", description="URL: redis, rediss, valkey, valkeys or unix.")
    backend_type: Literal["redis", "valkey", ""] = Field(default="", description="Informational; the section decides.")
    key_prefix: str = Field(default="", description="In front of all keys, so that pools can share a database.")
    enable_rdma: Annotated[bool, Ignored("RDMA is not supported")] = Field(
        default=False, alias="enableRDMA", description="Use RDMA (Valkey)."
    )


class CostAwareIndex(Params):
    """An index in this process that is bounded by memory."""

    size: HumanSize = Field(default="2GiB", description="Most memory, such as `2GiB` or `500MB`.")


class BlockIndex(Params):
    """Back end of the block index; at most one."""

    in_memory_config: InMemoryIndex | None = Field(default=None, description="In this process, bounded by keys (default).")
    redis_config: RedisIndex | None = Field(default=None, description="In Redis.")
    valkey_config: RedisIndex | None = Field(default=None, description="In Valkey.")
    cost_aware_memory_config: CostAwareIndex | None = Field(default=None, description="In this process, bounded by bytes.")
    max_prefix_blocks_to_match: Annotated[Int, Ignored("an index of engines' events matches whole prompts")] = Field(
        default=0, description="Most blocks of a prompt that are looked at (samples of llm-d)."
    )
    max_prefix_tokens_to_match: Annotated[Int, Ignored("an index of engines' events matches whole prompts")] = Field(
        default=0, description="The same in tokens."
    )
    enable_metrics: bool = Field(default=False, description="Count lookups, hits, additions and evictions.")
    metrics_logging_interval: GoDurationS = Field(
        default=0.0, ge=0, description="Period of a log line with the counters; 0 = none. A duration, or nanoseconds."
    )

    @model_validator(mode="after")
    def _check_single(self) -> BlockIndex:
        names = ("in_memory_config", "redis_config", "valkey_config", "cost_aware_memory_config")
        given = [type(self).model_fields[name].alias or name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise exclusive(f"kvBlockIndexConfig allows only one back end, given are {' and '.join(given)}")
        return self


class LocalTokenizer(Params):
    """Tokenizers found on disk."""

    auto_discovery_dir: str = Field(default="/mnt/models", description="Searched for tokenizer files.")
    auto_discovery_tokenizer_file_name: str = Field(default="tokenizer.json", description="Name of a tokenizer file.")
    model_tokenizer_map: dict[str, str] = Field(default={}, description="Model name to tokenizer file or its directory.")
    tokenizer: str = Field(default="", description="Tokenizer id to use instead of the model name.")
    tokenizer_mode: TokenizerMode = Field(default="auto", description=_TOKENIZER_MODES)
    tokenizer_revision: str = Field(default="", description="Snapshot to use.")


class HubTokenizer(Params):
    """Tokenizers from the Hugging Face hub."""

    enabled: bool = Field(default=True, description="Allow downloads.")
    hugging_face_token: str = Field(default="", repr=False, description="Access token; empty = environment `HF_TOKEN`.")
    tokenizers_cache_dir: str = Field(default="bin", description="Cache directory, relative to the working directory.")
    tokenizer: str = Field(default="", description="Tokenizer id to use instead of the model name.")
    tokenizer_mode: TokenizerMode = Field(default="auto", description=_TOKENIZER_MODES)
    tokenizer_revision: str = Field(default="", description="Revision to use.")


class SocketTokenizer(Params):
    """A tokenizer service over a socket."""

    socket_file: str = Field(
        default="/tmp/tokenizer/tokenizer-uds.socket",
        description="Path of the socket, or host:port with `useTCP`.",
    )
    use_tcp: bool = Field(default=False, alias="useTCP", description="`socketFile` is a host:port.")
    model_tokenizer_map: dict[str, str] = Field(default={}, description="Model name to directory or tokenizer file.")


class TokenizersPool(Params):
    """Tokenizers of the base model."""

    model_name: str = Field(
        default="", description="Tokenizer or model id of the base model; needed unless a declared plugin makes the tokens."
    )
    workers_count: Int = Field(default=5, description="Concurrent tokenizations; <= 0 = 5.")
    min_prefix_overlap_ratio: float = Field(
        default=0.8, gt=0, le=1, description="Share of a prompt that must be known to reuse its tokens."
    )
    local: LocalTokenizer = Field(default_factory=LocalTokenizer, description="Tokenizers on disk; tried first.")
    hf: HubTokenizer = Field(default_factory=HubTokenizer, description="Tokenizers from the Hugging Face hub; tried last.")
    uds: SocketTokenizer | None = Field(default=None, description="A tokenizer service; tried between the two.")
    hugging_face_token: Annotated[str, Deprecated("write hf.huggingFaceToken, which wins")] = Field(
        default="", repr=False, description="Older place of `hf.huggingFaceToken` (llm-d v0.3)."
    )
    tokenizers_cache_dir: Annotated[str, Deprecated("write hf.tokenizersCacheDir, which wins")] = Field(
        default="", description="Older place of `hf.tokenizersCacheDir` (llm-d v0.3)."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_hub(cls, document: object) -> object:
        return moved(moved(document, "huggingFaceToken", "hf"), "tokenizersCacheDir", "hf")


class PrefixStore(Params):
    """Tokens of known prompt prefixes."""

    cache_size: Int = Field(default=500_000, gt=0, description="Most blocks.")
    block_size: Int = Field(default=256, gt=0, description="Bytes of text per block.")


class CacheTier(Params):
    """A storage tier of the engines' KV caches."""

    name: str = Field(min_length=1, description="Tier as the engine names it, such as gpu or cpu.")
    weight: float = Field(ge=0, description="Worth of a block there.")


class Indexer(Params):
    """The block index, and the tokenizers that make prompts comparable with it."""

    kv_block_index_config: BlockIndex = Field(default_factory=BlockIndex, description="Back end of the index.")
    prefix_store_config: PrefixStore = Field(default_factory=PrefixStore, description="Cache of tokenized prefixes.")
    enable_metrics: Annotated[bool, Ignored("its place is kvBlockIndexConfig.enableMetrics")] = Field(
        default=False, description="Misplaced in guides of v0.4."
    )
    kv_cache_backend_configs: list[CacheTier] = Field(default=[], description="Weights of tiers; default gpu 1.0, cpu 0.8.")
    token_processor_config: Annotated[
        TokenProcessor | None, Deprecated("give tokenProcessorConfig beside indexerConfig; it wins there")
    ] = Field(default=None, description="Older place of `tokenProcessorConfig`.")
    tokenizers_pool_config: TokenizersPool | None = Field(
        default=None, description="Tokenizers; default: the tokens of a token producer."
    )


class PodDiscovery(Params):
    """Which endpoints are asked for their events."""

    pod_label_selector: str = Field(
        default="llm-d.ai/inferenceServing=true", description="Restricts the endpoints, applied only when given."
    )
    pod_namespace: str = Field(default="", description="Restricts the endpoints; empty = all.")
    socket_port: Int = Field(default=5557, ge=1, le=65535, description="Port of an engine's event socket.")
    replay_socket_port: Int = Field(default=0, le=65535, description="Port of an engine's replay socket; <= 0 = no replay.")


class KvEvents(Params):
    """Where KV events come from."""

    zmq_endpoint: Annotated[str, AfterValidator(_check_zmq_endpoint)] = Field(
        default="", description="Socket to bind for engines that push, such as `tcp://0.0.0.0:5557`."
    )
    topic_filter: str = Field(default="kv@", description="Prefix of the subscribed topics.")
    concurrency: Int = Field(default=4, description="Ordered worker queues of other pickers; one thread does it here.")
    discover_pods: bool = Field(default=True, description="Connect to every endpoint of the pool.")
    pod_discovery_config: PodDiscovery = Field(default_factory=PodDiscovery, description="How endpoints are subscribed to.")
    engine_type: Literal["vllm", "sglang"] = Field(default="vllm", description="Dialect of the events.")


class PreciseParams(Params):
    """What scorer and producer have in common."""

    token_processor_config: TokenProcessor = Field(default_factory=TokenProcessor, description="How tokens become keys.")
    kv_events_config: KvEvents = Field(default_factory=KvEvents, description="Where events come from.")
    speculative_indexing: bool = Field(
        default=False, description="Assume for a moment that a prompt is cached where it was sent."
    )
    speculative_ttl: Annotated[str, BeforeValidator(_as_duration)] = Field(
        default="2s", alias="speculativeTTL", description="How long that is assumed, a duration; <= 0 = 2s."
    )
    indexer_config: Indexer = Field(default_factory=Indexer, description="Index and tokenizers.")
    model_aliases: dict[str, str] = Field(
        default={},
        description="Name of a model in topics and requests to the base model that it is; given where a pool has several base "
        "models, which are then told apart by these names.",
    )

    @model_validator(mode="after")
    def _check_ttl(self) -> PreciseParams:
        if self.speculative_indexing:
            try:
                parse_duration(self.speculative_ttl)
            except ValueError as error:
                raise ValueError(f"speculativeTTL: {error}") from error
        return self


class PreciseScorerParams(PreciseParams):
    """Parameters of the scorer, which hosts index and tokenizers itself."""

    score_normalization: Literal["ratio", "minmax"] = Field(
        default="ratio",
        description="`ratio`: the held share of the prompt; `minmax`: the spread between the endpoints that hold something, "
        "as v0.4 scored.",
    )


class PreciseProducerParams(PreciseParams):
    """Parameters of the producer."""


def lacks_model(params: PreciseParams) -> str:
    """What to say where no other plugin makes the tokens; "" if the plugin makes them itself."""
    pool = params.indexer_config.tokenizers_pool_config
    if pool is not None and pool.model_name:
        return ""
    return (
        "knows no model whose tokens it could compare with the engines' blocks, so that it finds none; "
        "declare a token-producer with a modelName, or give indexerConfig.tokenizersPoolConfig.modelName"
    )
