"""What is read and judged before anything starts: which configuration, whether it can be used, where endpoints come from."""

from __future__ import annotations

import dataclasses
import json
import sys

from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadedConfig, LoadFlags
from epp.datalayer.objects import PoolIdentity
from epp.discovery.static import parse_endpoints
from epp.errors import UsageError
from epp.framework import log
from epp.framework.handle import MetricsFlags
from epp.framework.registry import Registry
from epp.pool.settings import PoolSettings
from epp.pool.shadow import ShadowSettings
from epp.pools.load import PoolEntry, PoolsFile, load_pools
from epp.process.options import Options
from epp.process.plugin_types import build_registry
from epp.telemetry.decisions import DecisionOptions

_logger = log.get("epp.process.startup")

NO_ENDPOINTS = (
    "either pool-name or endpoint-selector must be set, or model servers named with --endpoint HOST:PORT, "
    "or a file-discovery plugin declared in the configuration"
)


def config_source(options: Options) -> ConfigSource:
    """The configuration that the options name."""
    if options.config_file:
        return ConfigSource.from_file(options.config_file)
    if options.config_text:
        return ConfigSource.from_text(options.config_text)
    return ConfigSource.builtin()


def load_flags(options: Options) -> LoadFlags:
    """How the configuration is judged."""
    return LoadFlags(
        strict=options.strict_config,
        allow_experimental=options.allow_experimental_plugins,
        for_serve=True,
        metrics_flags=metrics_flags(options),
        environ=options.older_environment,
    )


def load(options: Options) -> LoadedConfig:
    """Load the configuration that the options name.

    Raises:
        ConfigError: it cannot be used.
    """
    registry, findings = build_registry()
    for finding in findings:
        print(f"epp: {finding.message}", file=sys.stderr)
    return load_config(config_source(options), registry, load_flags(options))


def load_shadow(options: Options) -> ShadowSettings | None:
    """Load the second configuration, if the options name one.

    Raises:
        ConfigError: it cannot be used.
    """
    if not options.shadow_config_file:
        return None
    source = dataclasses.replace(ConfigSource.from_file(options.shadow_config_file), may_be_empty=False)
    config = load_config(source, build_registry()[0], load_flags(options))
    return ShadowSettings(config, options.shadow_share)


def load_pools_file(options: Options) -> PoolsFile:
    """Load the pools file that the options name; the documents of its pools are loaded later, each by itself.

    Raises:
        ConfigError: it cannot be used.
        UsageError: one of its ports is one of the process's.
    """
    file = load_pools(ConfigSource.from_file(options.pools_file), strict=options.strict_config)
    own = {
        "--grpc-port": options.grpc_port,
        "--grpc-health-port": options.grpc_health_port,
        "--metrics-port": options.metrics_port,
    }
    problems = [
        f"{name} and grpcPort of the pool {pool.name} are both {port}; give each a port of its own"
        for pool in file.pools
        for name, port in own.items()
        if pool.grpc_port and pool.grpc_port == port
    ]
    if problems:
        raise UsageError(problems)
    return file


def pool_options(options: Options, pool: PoolEntry) -> Options:
    """The options of the process as they hold for one pool of the file."""
    return dataclasses.replace(
        options,
        pools_file="",
        config_file=pool.config_file,
        shadow_config_file=pool.shadow_config_file,
        shadow_share=pool.shadow_share,
        objects=pool.objects,
        endpoints=pool.endpoints,
        pool_name=pool.name,
        namespace=pool.namespace or options.namespace,
        pool_group=pool.group,
        endpoint_selector=pool.endpoint_selector,
        endpoint_target_ports=pool.target_ports,
        max_buffered_bytes=_own_limit(options, pool),
    )


def _own_limit(options: Options, pool: PoolEntry) -> int:
    """Of a port of its own; on the shared one the process's flag holds for all pools together."""
    if pool.grpc_port is None or pool.max_buffered_bytes is None:
        return options.max_buffered_bytes
    return pool.max_buffered_bytes


class Loader:
    """Loads the configuration file again, as often as it is asked; in any thread, one call at a time.

    Args:
        options: of the process.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._registry: Registry | None = None

    def __call__(self) -> LoadedConfig:
        """What the file says now.

        Raises:
            ConfigError: it cannot be used, or is empty.
        """
        if self._registry is None:
            self._registry, _ = build_registry()
        source = dataclasses.replace(config_source(self._options), may_be_empty=False)
        return load_config(source, self._registry, load_flags(self._options))


def check_discovery(options: Options, config: LoadedConfig) -> None:
    """There is a way to find endpoints.

    Raises:
        UsageError: there is none, or an ``--endpoint`` cannot be read.
    """
    parse_endpoints(options.endpoints)
    if not (options.endpoints or config.discovery is not None or options.needs_kubernetes):
        raise UsageError([NO_ENDPOINTS])


def metrics_flags(options: Options) -> MetricsFlags:
    """Defaults that flags give to data sources and extractors."""
    return MetricsFlags(
        scheme=options.model_server_metrics_scheme,
        path=options.model_server_metrics_path,
        # In a cluster it counts only for pools with one port, which is known later: endpoints carry it.
        port=0 if options.needs_kubernetes else options.model_server_metrics_port,
        insecure_skip_verify=options.model_server_metrics_https_insecure_skip_verify,
        refresh_interval_s=options.refresh_metrics_interval_s,
        refresh_interval_is_given=options.refresh_metrics_interval_is_given,
        specs=options.metric_specs,
    )


def pool_settings(options: Options) -> PoolSettings:
    """What the flags say about the pool that is served."""
    return PoolSettings(
        PoolIdentity(options.pool, options.namespace, options.pool_group),
        endpoints=options.endpoints,
        objects=options.objects,
        use_subset=not options.disable_endpoint_subset_filter,
        hold_back_unscraped=options.hold_back_unscraped,
        hold_back_stale=options.hold_back_stale,
        staleness_threshold_s=options.metrics_staleness_threshold_s,
        refresh_interval_s=options.refresh_metrics_interval_s,
        emit_scores=options.emit_endpoint_scores,
        max_body_bytes=options.max_request_body_bytes,
        max_decoded_bytes=options.max_buffered_bytes,
        decisions=decision_options(options),
        metrics_flags=metrics_flags(options),
        selector=options.endpoint_selector,
        target_ports=options.endpoint_target_ports,
        metrics_port=options.model_server_metrics_port,
    )


def decision_options(options: Options) -> DecisionOptions:
    """Which decisions are kept for explanations."""
    callers: dict[str, set[str]] = {}
    for name, value in options.explain_callers:
        callers.setdefault(name, set()).add(value)
    return DecisionOptions(
        share=options.explain_share,
        limit_bytes=options.explain_memory_bytes,
        callers={name: frozenset(values) for name, values in callers.items()} or None,
    )


def log_configuration(instances: Instances) -> None:
    """Tell what is about to be served: the completed document, what was found in it, every plugin."""
    config = instances.config
    _logger.info(
        "configuration", source=config.source.name, sha256=config.sha256, document=json.dumps(config.effective, default=str)
    )
    for finding in (*config.findings, *instances.findings):
        write = _logger.warning if finding.severity != "info" else _logger.info
        write("configuration finding", code=finding.code, path=finding.path, problem=finding.message, fix=finding.fix)
    for plugin in config.plugins:
        roles = ",".join(sorted(plugin.type.roles))
        _logger.info("plugin", name=plugin.name, type=plugin.type.type, roles=roles, declared=plugin.declared)
