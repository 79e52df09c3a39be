"""core-metrics-extractor: queue, running requests, KV cache, LoRA adapters from a model server's metrics page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field, ValidationInfo, field_validator

from epp.framework.handle import MetricsFlags, PluginContext
from epp.framework.interfaces import Extraction, Extractor, Role
from epp.framework.params import Params
from epp.framework.registry import Alias, PluginType
from epp.framework.types import Endpoint, EndpointMetrics
from plugins.datalayer.engine_reader import EngineReader
from plugins.datalayer.engines import BUILT_IN, DEFAULT_ENGINE, Engine, EngineConfig, engine_from, kv_usage_specs, optional_spec

TYPE = "core-metrics-extractor"
ENGINE_LABEL = "llm-d.ai/engine-type"
LEGACY_ENGINE_LABEL = "inference.networking.k8s.io/engine-type"


class CoreMetricsParams(Params):
    """Parameters of core-metrics-extractor."""

    engine_label_key: str = Field(
        ENGINE_LABEL, min_length=1, description=f"Label with an endpoint's engine; {LEGACY_ENGINE_LABEL} is looked at next."
    )
    engine_configs: tuple[EngineConfig, ...] = Field(
        (), strict=False, description="Engines beside, or instead of, the built-in ones."
    )
    default_engine: str = Field(
        DEFAULT_ENGINE, validate_default=True, description="Engine of endpoints without the label, or with an unknown value."
    )

    @field_validator("engine_configs")
    @classmethod
    def _distinct(cls, configs: tuple[EngineConfig, ...]) -> tuple[EngineConfig, ...]:
        names = [config.name for config in configs]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"engine {doubled!r} is configured twice; merge the two entries")
        return configs

    @field_validator("default_engine")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if "engine_configs" not in info.data:
            return name
        known = [*(config.name for config in info.data["engine_configs"]), *BUILT_IN]
        if name not in known:
            raise ValueError(f"defaultEngine {name!r} not found in engineConfigs; known are {', '.join(dict.fromkeys(known))}")
        return name


class CoreMetricsExtractor:
    """Reads the page of each endpoint by the mapping of its engine.

    Reads: labels (the engine). Writes: waiting_queue, running_requests, kv_cache_usage, active_models, waiting_models,
    max_active_models, cache_block_size, cache_num_blocks, started_s, and attributes for custom metrics.
    Missing data: a value that cannot be read keeps its last one and is named; adapters are cleared when their series is gone.
    Several engines or models on one page: counts and blocks are summed, KV usage is averaged, the smallest block size counts.
    Their labels are known whichever way a series was named; of series that differ in others the first counts, and that is told.
    Restarts: a page that has ``process_start_time_seconds`` tells when its server began; if that becomes later by more than a
    second, all plugins forget what they knew of the endpoint. Several processes on one page tell nothing.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/extractor/metrics/extractor.go
    """

    input = "prometheus-text"

    def __init__(self, engines: Mapping[str, Engine], default: str, label: str = ENGINE_LABEL) -> None:
        self._readers = {name: EngineReader(engine) for name, engine in engines.items()}
        self._default = self._readers[default]
        self._label = label

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        """The metrics of a page; ``previous`` itself if nothing could be read."""
        return self._reader(endpoint).read(payload, previous)

    def families(self, endpoint: Endpoint) -> frozenset[str]:
        """The names that the mapping of its engine has."""
        return self._reader(endpoint).families

    def path_for(self, endpoint: Endpoint, configured: str | None) -> str | None:
        """The engine's path: a configured one always, a built-in one unless the source was given its own."""
        engine = self._reader(endpoint).engine
        if not engine.path or (engine.is_built_in and configured is not None):
            return None
        return engine.path

    def _reader(self, endpoint: Endpoint) -> EngineReader:
        labels = endpoint.labels
        name = labels.get(self._label) or labels.get(LEGACY_ENGINE_LABEL)
        return self._readers.get(name, self._default) if name else self._default


def _create(context: PluginContext, params: CoreMetricsParams) -> Extractor:
    engines = dict(BUILT_IN) | {config.name: engine_from(config) for config in params.engine_configs}
    default = engines[params.default_engine]
    flags = context.metrics_flags
    if flags.specs and not default.is_built_in:
        context.warn(
            "engineConfigs",
            f"the flags that name metrics ({', '.join(sorted(flags.specs))}) are not used: "
            f"the document configures engine {default.name!r} itself",
        )
    elif flags.specs:
        engines[default.name] = _with_flags(default, flags)
    return CoreMetricsExtractor(engines, default.name, params.engine_label_key)


def _with_flags(engine: Engine, flags: MetricsFlags) -> Engine:
    """The engine with the series that flags name; "" = not read. Charts pass quotes around the names."""
    specs = {key: _unquoted(text) for key, text in flags.specs.items()}
    if "queued" in specs:
        engine = replace(engine, queued=optional_spec(specs["queued"]))
    if "running" in specs:
        engine = replace(engine, running=optional_spec(specs["running"]))
    if "kv_usage" in specs:
        engine = replace(engine, kv_usage=kv_usage_specs(specs["kv_usage"]))
    if "lora" in specs:
        engine = replace(engine, lora=optional_spec(specs["lora"]))
    if "cache_info" in specs:
        engine = replace(engine, cache_info=optional_spec(specs["cache_info"]))
    return engine


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.EXTRACTOR}),
    summary="Reads queue, running requests, KV cache and LoRA adapters from metrics pages.",
    params=CoreMetricsParams,
    factory=_create,
    aliases=(Alias("model-server-protocol-metrics"),),
    example="""
        defaultEngine: mine
        engineConfigs:
        - name: mine
          queuedRequestsSpec: my_waiting
          runningRequestsSpec: my_running
          kvUsageSpec: 'my_kv{device="0"}'
    """,
)
