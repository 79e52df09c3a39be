"""From the parameters of the precise plugins to what an instance is made of."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from epp.framework.handle import PluginContext
from epp.framework.params import parse_duration
from epp.framework.types import Endpoint
from plugins.kvcache.block_index import BlockIndex, Bounds
from plugins.kvcache.event_index import EventIndex, IndexSettings, PythonEventIndex, make_index
from plugins.kvcache.parameters import BlockIndex as BlockIndexParams
from plugins.kvcache.parameters import KvEvents, PreciseParams, TokenizersPool, TokenProcessor, size_bytes
from plugins.kvcache.precise import Behaviour, Parts
from plugins.kvcache.receiver_settings import ReceiverSettings, matches_selector
from plugins.kvcache.reporting import Reporting
from plugins.kvcache.request_keys import CborFnvChain, KeyChain, Xxh64Chain
from plugins.kvcache.shared_index import RedisStore, Server, SharedLookup
from plugins.kvcache.tiers import Tiers
from plugins.tokenization.backend import BackEnd
from plugins.tokenization.files import Hub
from plugins.tokenization.in_process import require_libraries
from plugins.tokenization.pool import LocalFiles, PoolSettings, TokenizerPool

EXTRA = "kv-events"
DEFAULT_TTL_S, DEFAULT_WORKERS = 2.0, 5


def make_parts(context: PluginContext, params: PreciseParams) -> tuple[Parts, Behaviour]:
    """Everything of an instance.

    Raises:
        ValueError: a value that only the instance can judge, or a library that is not installed.
    """
    _require_libraries()
    from plugins.kvcache.subscriber import EventReceiver  # loads ZMQ

    processor = _token_processor(params)
    block_size = processor.block_size_tokens or processor.block_size
    indexer = params.indexer_config
    index, shared = _index(context, params, processor, block_size)
    receiver = EventReceiver(index, _receiver(context, params.kv_events_config), context.clock)
    reporting = Reporting(context.metrics, context.name, with_index=indexer.kv_block_index_config.enable_metrics)
    pool = indexer.tokenizers_pool_config
    tokenizer = _tokenizers(context, params, pool, reporting) if pool is not None and pool.model_name else None
    behaviour = Behaviour(
        block_size=block_size,
        models=frozenset(_names(pool)) if pool is not None and pool.model_name else frozenset(),
        assume_s=_assume_s(params),
        log_interval_s=indexer.kv_block_index_config.metrics_logging_interval,
    )
    return Parts(index, receiver, reporting, tokenizer, shared), behaviour


def _require_libraries() -> None:
    missing = [name for name in ("zmq", "msgspec", "cbor2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"KV events need {', '.join(missing)}, which is not installed: install the extra {EXTRA!r} "
            f"(pip install 'endpoint-picker[{EXTRA}]')"
        )


def _token_processor(params: PreciseParams) -> TokenProcessor:
    older = params.indexer_config.token_processor_config
    given = "token_processor_config" in params.model_fields_set
    return params.token_processor_config if given or older is None else older


def _index(
    context: PluginContext, params: PreciseParams, processor: TokenProcessor, block_size: int
) -> tuple[EventIndex, SharedLookup | None]:
    config = params.indexer_config.kv_block_index_config
    settings = IndexSettings(
        block_size=block_size,
        hash_seed=processor.hash_seed,
        dialect=params.kv_events_config.engine_type,
        bounds=bounds(config),
        tier_weights={tier.name: tier.weight for tier in params.indexer_config.kv_cache_backend_configs},
        aliases=params.model_aliases,
    )
    redis = config.redis_config or config.valkey_config
    if redis is None:
        return make_index(settings, context.clock), None
    chain: KeyChain = (
        Xxh64Chain(processor.hash_seed) if processor.hash_algorithm == "xxh64" else CborFnvChain(processor.hash_seed)
    )
    server = Server(redis.address, redis.key_prefix)

    stores: list[RedisStore] = []

    def store(local: BlockIndex, tiers: Tiers) -> RedisStore:
        stores.append(RedisStore(server, local, tiers, context.clock))
        return stores[0]

    index = PythonEventIndex(settings, context.clock, chain=chain, make_store=store)
    return index, SharedLookup(server, index, index.tiers, stores[0])


def bounds(config: BlockIndexParams) -> Bounds:
    """How much an index in this process may hold."""
    if config.cost_aware_memory_config is not None:
        return Bounds(max_bytes=size_bytes(config.cost_aware_memory_config.size))
    memory = config.in_memory_config
    if memory is None:
        return Bounds()
    pods = memory.pod_cache_size if "pod_cache_size" in memory.model_fields_set else None
    return Bounds(max_keys=memory.size, max_pods_per_key=pods)


def _receiver(context: PluginContext, events: KvEvents) -> ReceiverSettings:
    discovery = events.pod_discovery_config
    if not events.discover_pods and not events.zmq_endpoint:
        context.warn("kvEventsConfig.discoverPods", "no events are received: discoverPods is off and there is no zmqEndpoint")
    if events.concurrency <= 0:
        context.warn("kvEventsConfig.concurrency", "it must be more than 0; one thread receives all events in any case")
    filter_given = "topic_filter" in events.model_fields_set
    return ReceiverSettings(
        central=events.zmq_endpoint,
        topic_filter=events.topic_filter,
        pod_topic_filter=events.topic_filter if filter_given else "",
        follows_pods=events.discover_pods,
        port=discovery.socket_port,
        replay_port=max(0, discovery.replay_socket_port),
        wants=_wants(events),
    )


def _wants(events: KvEvents) -> Callable[[Endpoint], bool]:
    """Only what is given restricts: the defaults are those of a reconciler that pickers never ran."""
    discovery = events.pod_discovery_config
    selector = discovery.pod_label_selector if "pod_label_selector" in discovery.model_fields_set else ""
    matches = matches_selector(selector)
    namespace = discovery.pod_namespace
    return lambda endpoint: (not namespace or endpoint.namespace == namespace) and matches(endpoint.labels)


def _assume_s(params: PreciseParams) -> float:
    if not params.speculative_indexing:
        return 0.0
    ttl_s = parse_duration(params.speculative_ttl)
    return ttl_s if ttl_s > 0 else DEFAULT_TTL_S


def _names(pool: TokenizersPool) -> set[str]:
    """What a producer may call the tokenizer of this model."""
    return {name for name in (pool.model_name, pool.local.tokenizer, pool.hf.tokenizer) if name}


def _tokenizers(
    context: PluginContext, params: PreciseParams, pool: TokenizersPool, reporting: Reporting
) -> TokenizerPool | None:
    path = "indexerConfig.tokenizersPoolConfig"
    _check_modes(context, pool, path)
    service = _service(context, pool)
    local = _local(pool)
    if service is None:
        if not pool.hf.enabled and not pool.local.model_tokenizer_map and not local.folder.is_dir():
            raise ValueError(f"{path}: nothing can tokenize: hf is off, there is no uds, and no folder {local.folder}")
        require_libraries()
    if pool.workers_count <= 0:
        context.warn(f"{path}.workersCount", f"it must be more than 0; {DEFAULT_WORKERS} are used")
    hub = Hub(pool.hf.tokenizers_cache_dir, pool.hf.hugging_face_token, pool.hf.tokenizer_revision) if pool.hf.enabled else None
    store = params.indexer_config.prefix_store_config
    settings = PoolSettings(
        model=pool.model_name,
        local=local,
        hub=hub,
        hub_model=pool.hf.tokenizer,
        workers=pool.workers_count if pool.workers_count > 0 else DEFAULT_WORKERS,
        store_blocks=store.cache_size,
        store_block_bytes=store.block_size,
        least_known=pool.min_prefix_overlap_ratio,
    )
    return TokenizerPool(settings, service, context.runtime, reporting)


def _local(pool: TokenizersPool) -> LocalFiles:
    """As given, else as the environment says, else the default."""
    local = pool.local
    given = local.model_fields_set
    folder = local.auto_discovery_dir if "auto_discovery_dir" in given else os.environ.get("LOCAL_TOKENIZER_DIR", "")
    name = local.auto_discovery_tokenizer_file_name
    if "auto_discovery_tokenizer_file_name" not in given:
        name = os.environ.get("LOCAL_TOKENIZER_FILENAME") or name
    return LocalFiles(
        folder=Path(folder or local.auto_discovery_dir),
        file_name=name,
        explicit=local.model_tokenizer_map,
        model=local.tokenizer,
        revision=local.tokenizer_revision,
    )


def _service(context: PluginContext, pool: TokenizersPool) -> BackEnd | None:
    uds = pool.uds
    if uds is None:
        return None
    from plugins.tokenization.render_uds import RenderUds  # loads protobuf

    model = pool.model_name
    if uds.model_tokenizer_map:
        if model not in uds.model_tokenizer_map:
            from plugins.tokenization.unmapped import Unmapped

            return Unmapped(model, "indexerConfig.tokenizersPoolConfig.uds.modelTokenizerMap")
        model = re.sub(r"/tokenizer\.json$", "", uds.model_tokenizer_map[model])
    return RenderUds(uds.socket_file, model, context.runtime, uses_tcp=uds.use_tcp)


def _check_modes(context: PluginContext, pool: TokenizersPool, path: str) -> None:
    for section, mode in (("local", pool.local.tokenizer_mode), ("hf", pool.hf.tokenizer_mode)):
        parameter = f"{path}.{section}.tokenizerMode"
        if mode == "mistral":
            raise ValueError(
                f"{parameter}: mistral tokenizers are not run in this process; give uds a tokenizer service, or declare a "
                "token-producer with vllm"
            )
        if mode in ("slow", "limit"):
            context.warn(parameter, f"{mode} is the same as auto here: the fast tokenizer of the model, whose tokens are equal")
