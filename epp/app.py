"""The composition root: builds and wires every object once, and owns the order of start and stop.

Start: log, metrics, store, plugins, discovery → first endpoints → servers → ready. Stop: not ready → (window) → GOAWAY →
running streams → abort → plugins → log.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import cast

import uvloop

from epp import debug_pages
from epp.build import PipelineBuilder, PluginDefects, data_sources, followers
from epp.candidates import CandidateFinder
from epp.config.instantiate import instantiate
from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin
from epp.datalayer.collector import TIMEOUT_S, Collector
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.objects import ObjectStore, PoolIdentity
from epp.datalayer.page_rounds import make_page_reader
from epp.datalayer.store import EndpointStore
from epp.director import Director, DirectorOptions
from epp.discovery.objects_file import ObjectsFiles
from epp.discovery.static import StaticDiscovery, parse_endpoints
from epp.errors import UsageError
from epp.extproc.handler import Port, total
from epp.framework.file_watch import watch_files
from epp.framework.handle import PluginContext
from epp.framework.interfaces import EndpointDiscovery, HasLifecycle, HasReadiness
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.health import Health
from epp.options import Options
from epp.pool_state import PoolNumbers
from epp.ready_file import remove_ready_file, write_ready_file
from epp.response import ResponseSide
from epp.runtime import TaskRuntime
from epp.scheduling.decision_log import LoggedDecisions
from epp.startup import check_discovery, log_configuration, metrics_flags
from epp.telemetry import log
from epp.telemetry.metrics import Build, Metrics, MetricsOptions
from epp.transport.choose import make_transport
from epp.transport.grpc_environment import prepare as prepare_grpc
from epp.transport.http_server import HttpOptions, HttpServer, HttpSources, refuse_all
from epp.transport.tls_settings import parse_cipher_suites
from epp.transport_settings import transport_settings
from epp.version import VERSION, commit

_logger = log.get("epp.app")

READINESS_EVERY_S = 0.5
"""How often plugins with a readiness of their own are asked; probes come every few seconds."""


def run(options: Options, config: LoadedConfig, given: Mapping[str, str], warnings: Sequence[str]) -> int:
    """Serve until a signal comes.

    Raises:
        UsageError, ConfigError, OSError: the service cannot start.
    """
    check_discovery(options, config)
    _raise_open_files_limit()
    sink = log.setup(
        log.LogOptions(
            verbosity=options.verbosity,
            encoder="console" if options.zap_encoder == "console" else "json",
            time_encoding=options.zap_time_encoding,  # type: ignore[arg-type]  # checked by the flag
            stacktrace_level=options.zap_stacktrace_level,  # type: ignore[arg-type]
        )
    )
    prepare_grpc(parse_cipher_suites(options.tls_cipher_suites))
    try:
        _logger.info("starting", version=VERSION, commit=commit(), python=platform.python_version(), pid=os.getpid())
        _logger.info("flags", **dict(given))
        for warning in warnings:
            _logger.warning("flag", problem=warning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(App(options, config).serve())
    finally:
        sink.close()


class App:
    """One picker.

    Args:
        options: process flags.
        config: the loaded configuration.
    """

    def __init__(self, options: Options, config: LoadedConfig) -> None:
        self.options = options
        self.config = config
        self.metrics = Metrics(
            MetricsOptions(
                build=Build(VERSION, commit(), os.environ.get("EPP_BUILD_REF", "")),
                legacy=options.legacy_metrics,
                stream_metrics=options.enable_grpc_stream_metrics,
                fairness_id_limit=options.fairness_id_metric_label_limit,
            )
        )
        self.runtime = TaskRuntime()
        self.defects = PluginDefects(self.metrics)
        self.store = EndpointStore()
        self.pool = PoolNumbers(self.metrics, self.store, options.metrics_staleness_threshold_s)
        self.objects = ObjectStore(PoolIdentity(options.pool_name or "epp", options.namespace, options.pool_group))
        self.transport_name, self.transport = make_transport(options.transport)
        self.health = Health(
            ("pool", "plugins"), leader_election=options.ha_enable_leader_election, on_change=self.transport.set_health
        )
        self._seeds = random.Random()
        self.instances: Instances = instantiate(config, self._context)
        self.discovery = self._discovery()
        self.collector = Collector(
            self.store,
            data_sources(self.instances),
            self.metrics,
            refresh_interval_s=options.refresh_metrics_interval_s,
            pages=make_page_reader(MAX_PAGE_BYTES, TIMEOUT_S),
        )
        self.director = self._director()
        self.http = self._http()
        self.ports: dict[str, int] = {}
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stopping = False
        self._stopped = asyncio.Event()
        self._discovering: asyncio.Task[None] | None = None
        self._gates = {name: p for name, p in self.instances.by_name.items() if isinstance(p, HasReadiness)}
        self._object_files: ObjectsFiles | None = None

    # ── run ──

    async def serve(self) -> int:
        """Start, serve until SIGTERM or SIGINT, stop.

        Raises:
            UsageError, ConfigError, OSError: the service cannot start.
        """
        self._install_signals()
        try:
            early = await self._until_signal(self._start())
            received = early or await self._until_signal(self._watch())
        except BaseException:
            await self._teardown()
            raise
        await self._stop(skip_window=early is not None or received is signal.SIGINT)
        return 0

    async def _until_signal(self, work: Coroutine[object, object, None]) -> signal.Signals | None:
        """Run ``work``; a signal to stop cancels it and is returned.

        Raises:
            Exception: what ``work`` raises.
        """
        running = asyncio.create_task(work)
        signalled = asyncio.create_task(self._signals.get())
        await asyncio.wait([running, signalled], return_when=asyncio.FIRST_COMPLETED)
        if not signalled.done():
            signalled.cancel()
            await running
            return None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return signalled.result()

    async def _watch(self) -> None:
        """While the process serves: notice plugins that are not ready, and discovery that ends.

        Raises:
            OSError: discovery has ended; the endpoints would be frozen for ever.
        """
        discovering = self._discovering
        assert discovering is not None
        while True:
            done, _ = await asyncio.wait([discovering], timeout=READINESS_EVERY_S if self._gates else None)
            self._look_at_plugins()
            if done:
                await discovering
                msg = "discovery has ended"
                raise OSError(msg)

    def _look_at_plugins(self) -> None:
        waiting = [name for name, plugin in self._gates.items() if not plugin.is_ready()]
        if waiting:
            self.health.set_not_ready("plugins", f"{', '.join(waiting)} not ready")
        else:
            self.health.set_ready("plugins")

    async def _start(self) -> None:
        _logger.info("transport", name=self.transport_name)
        log_configuration(self.instances)
        self.store.subscribe(PluginFollowers(followers(self.instances), self.defects))
        self._start_objects()
        for plugin in self.instances.by_name.values():
            if isinstance(plugin, HasLifecycle):
                await plugin.start()
        _logger.info("metrics pages", reader="native" if self.collector.has_reader else "event loop")
        await self.collector.start()
        await self._discover()
        self.health.set_ready("pool")
        _logger.info("pool synced", endpoints=len(self.store))
        await self._listen()
        self._look_at_plugins()
        gc.collect()
        gc.freeze()
        if self.options.ready_file:
            write_ready_file(self.options.ready_file, {"pid": os.getpid(), **self.ports})
        _logger.info("ready")

    async def _discover(self) -> None:
        """Wait for the first complete pass."""
        task = self._discovering = self.runtime.spawn(self.discovery.run(self.store), "discovery")
        ready = asyncio.create_task(self.discovery.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not self.discovery.ready.is_set():
            ready.cancel()
            await task
            msg = "discovery ended before it found endpoints"
            raise OSError(msg)

    async def _listen(self) -> None:
        options = self.options
        host = options.bind_address
        handler = total(self.director, self._on_defect)
        ports = [
            Port(host, options.grpc_port, secure=options.secure_serving),
            Port(host, options.grpc_health_port, secure=False, extproc=False),
        ]
        self.transport.set_health(self.health.table())
        grpc_port, health_port = await self.transport.start(handler, transport_settings(options, self.config), ports)
        metrics_port = await self.http.start()
        self.ports = {"grpc_port": grpc_port, "grpc_health_port": health_port, "metrics_port": metrics_port}
        for name, port in self.ports.items():
            _logger.info("listening", server=name, address=host, port=port)
        if options.cert_path and options.enable_cert_reload:
            self._watch_certificate(options.cert_path, self._reload_certificate)
        if options.metrics_cert_dir:
            self._watch_certificate(options.metrics_cert_dir, self._reload_metrics_certificate)

    async def _stop(self, *, skip_window: bool) -> None:
        self.health.drain()
        options = self.options
        if not skip_window and options.drain_timeout_s > 0:
            _logger.info("draining", window_s=options.drain_timeout_s, open_streams=self.transport.stats().open_streams)
            await asyncio.sleep(options.drain_timeout_s)
        grace = options.graceful_shutdown_timeout_s
        if grace is None:
            grace = options.drain_timeout_s
        _logger.info("stopping", grace_s=grace, open_streams=self.transport.stats().open_streams)
        await self.transport.stop(None if grace < 0 else grace)
        await self._teardown()
        _logger.info("stopped")

    async def _teardown(self) -> None:
        self._stopped.set()
        await self.transport.stop(0)
        await self.http.stop()
        await self.collector.stop()
        await self.runtime.stop()
        for plugin in reversed(list(self.instances.by_name.values())):
            if isinstance(plugin, HasLifecycle):
                await plugin.stop()
        if self.options.ready_file:
            remove_ready_file(self.options.ready_file)

    # ── signals ──

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGUSR1, lambda: _logger.info("verbosity", v=log.raise_verbosity()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: _logger.info("verbosity", v=log.lower_verbosity()))

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            if self.options.ready_file:
                remove_ready_file(self.options.ready_file)
            os._exit(128 + number)
        self._stopping = True
        self._signals.put_nowait(number)

    def _on_hangup(self) -> None:
        """Look again at what can be reloaded, and name what cannot."""
        _logger.info("reloading", what="certificates, endpoints, objects")
        if self.options.cert_path and self.options.secure_serving:
            self._reload_certificate()
        if self.options.metrics_cert_dir:
            self._reload_metrics_certificate()
        self.discovery.reload()
        if self._object_files is not None:
            self._object_files.reload()
        if self.options.config_file:
            _logger.warning("restart required", what=self.options.config_file)

    # ── parts ──

    def _context(self, plugin: LoadedPlugin, references: Mapping[str, object]) -> PluginContext:
        return PluginContext(
            name=plugin.name,
            type=plugin.type.type,
            rng=random.Random(self._seeds.getrandbits(64)),
            plugins=references,
            profiles=tuple(profile.name for profile in self.config.profiles),
            metrics_flags=metrics_flags(self.options),
            metrics=self.metrics,
            runtime=self.runtime,
            pool=self.pool,
        )

    def _discovery(self) -> EndpointDiscovery:
        if self.options.endpoints:
            static: EndpointDiscovery = StaticDiscovery(parse_endpoints(self.options.endpoints))
            return static
        return cast("EndpointDiscovery", self.instances.by_name[self.config.discovery or ""])

    def _director(self) -> Director:
        options = self.options
        finder = CandidateFinder(
            self.store,
            use_subset=not options.disable_endpoint_subset_filter,
            hold_back_unscraped=options.hold_back_unscraped,
            hold_back_stale_s=options.metrics_staleness_threshold_s if options.hold_back_stale else None,
        )
        return Director(
            PipelineBuilder(self.instances, self.metrics, self.defects, self.runtime.spawn).build(),
            finder,
            self.objects,
            self.metrics,
            ResponseSide(self.store, self.metrics, self._on_defect),
            LoggedDecisions(),
            DirectorOptions(emit_scores=options.emit_endpoint_scores),
            choose=self._seeds.choice,
            spawn=self.runtime.spawn,
        )

    def _http(self) -> HttpServer:
        options = self.options
        self.metrics.watch_pool(
            lambda: debug_pages.pool(self.objects.pool.name, self.store, self.collector, options.metrics_staleness_threshold_s)
        )
        self.metrics.watch_transport(self.transport.stats)
        self.metrics.config_loaded(self.config.sha256, time.time())
        sources = HttpSources(
            metrics=self.metrics,
            not_ready=self.health.why,
            endpoints=lambda: debug_pages.endpoints(self.store, self.collector),
            config=lambda: debug_pages.config(self.instances),
            plugins=lambda: debug_pages.plugins(self.instances),
        )
        authorize = None
        if options.metrics_endpoint_auth and not options.metrics_client_ca_file:
            _logger.warning("metrics port answers 401", reason="--metrics-endpoint-auth is given and there is no API server")
            authorize = refuse_all
        return HttpServer(
            sources,
            HttpOptions(
                host=options.bind_address,
                port=options.metrics_port,
                authorize=authorize,
                cert_dir=Path(options.metrics_cert_dir) if options.metrics_cert_dir else None,
                client_ca_file=Path(options.metrics_client_ca_file) if options.metrics_client_ca_file else None,
                pprof=options.enable_pprof,
            ),
        )

    def _start_objects(self) -> None:
        if self.options.objects:
            self.objects.on_change(lambda: self.metrics.admit_model_names(self.objects.rewrite_models))
            self._object_files = ObjectsFiles(self.options.objects, self.objects)
            self._object_files.load()
            _ = self.runtime.spawn(self._object_files.run(self._stopped), "objects")

    def _reload_certificate(self) -> None:
        """New handshakes on the ext_proc port get what is in the directory now."""
        path = self.options.cert_path
        try:
            self.transport.configure(transport_settings(self.options, self.config))
        except (UsageError, OSError) as error:
            _logger.error("certificate not reloaded, the one in use stays", path=path, problem=str(error))
            return
        _logger.info("certificate reloaded", path=path)

    def _reload_metrics_certificate(self) -> None:
        """The same for the metrics port."""
        path = self.options.metrics_cert_dir
        try:
            self.http.reload_tls()
        except UsageError as error:
            _logger.error("certificate not reloaded, the one in use stays", path=path, problem=str(error))
            return
        _logger.info("certificate reloaded", path=path)

    def _watch_certificate(self, directory: str, reload: Callable[[], None]) -> None:
        files = [Path(directory) / "tls.crt", Path(directory) / "tls.key"]
        _ = self.runtime.spawn(watch_files(files, reload, self._stopped), "certificates")

    def _on_defect(self, place: str, error: Exception) -> None:
        _logger.error("internal error", exc=error, place=place)


def _raise_open_files_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
