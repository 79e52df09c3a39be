"""The process: listeners, log and signals, in the order of start and stop; what belongs to pools is theirs.

Start: log, metrics, store, plugins, discovery → first endpoints → servers → ready. Stop: not ready → (window) → queued
requests refused → GOAWAY → running streams → abort → plugins → log.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import platform
import resource
import signal
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import uvloop

from epp.cluster.connection import ClusterConnection
from epp.cluster.election import LeaseLostError
from epp.config.loaded import LoadedConfig
from epp.framework import log
from epp.framework.interfaces import EndpointDiscovery
from epp.pools.load import PoolsFile
from epp.process.certificates import Certificates
from epp.process.cluster import Cluster, authorize_by, is_in_cluster
from epp.process.health import Health
from epp.process.many_pools import COMPONENT, ManyPools, Parts
from epp.process.one_pool import OnePool
from epp.process.options import Options
from epp.process.ready_file import remove_ready_file, write_ready_file
from epp.process.runtime import TaskRuntime
from epp.process.served_pool import COMPONENTS, ServedPool, stop_all
from epp.process.startup import check_discovery
from epp.seam import Port, Transport
from epp.telemetry.log import LogOptions, setup
from epp.telemetry.tracing import make_tracing
from epp.transport.choose import make_transport
from epp.transport.grpc_environment import prepare as prepare_grpc
from epp.transport.http_server import Access, AccessRequest, Authorize, HttpOptions, HttpServer, refuse_all
from epp.transport.tls_settings import parse_cipher_suites
from epp.version import VERSION, commit

_logger = log.get("epp.process")

READINESS_EVERY_S = 0.5
"""How often plugins with a readiness of their own are asked; probes come every few seconds."""


def run(options: Options, config: LoadedConfig | PoolsFile, given: Mapping[str, str], warnings: Sequence[str]) -> int:
    """Serve until a signal comes.

    Raises:
        UsageError, ConfigError, OSError: the service cannot start.
    """
    if not isinstance(config, PoolsFile):
        check_discovery(options, config)
    _raise_open_files_limit()
    sink = setup(
        LogOptions(
            verbosity=options.verbosity,
            encoder="console" if options.zap_encoder == "console" else "json",
            time_encoding=options.zap_time_encoding,  # type: ignore[arg-type]  # checked by the flag
            stacktrace_level=options.zap_stacktrace_level,  # type: ignore[arg-type]
        )
    )
    prepare_grpc(parse_cipher_suites(options.tls_cipher_suites))
    try:
        _logger.info(
            "starting",
            version=VERSION,
            commit=commit(),
            python=platform.python_version(),
            pid=os.getpid(),
            pod=options.pod_name,
            node=options.node_name,
        )
        _logger.info("flags", details=dict(given))
        for warning in warnings:
            _logger.warning("flag", problem=warning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Process(options, config).serve())
    finally:
        sink.close()


class Process:
    """Listeners, log, signals, and the pools that are served.

    Args:
        options: process flags.
        config: the loaded configuration of the one pool, or the file of several.
        transport: moves the bytes, in place of the one that the options name.
        discovery: finds the endpoints of the one pool, in place of what options and configuration name.
    """

    def __init__(
        self,
        options: Options,
        config: LoadedConfig | PoolsFile,
        *,
        transport: Transport | None = None,
        discovery: EndpointDiscovery | None = None,
    ) -> None:
        self.options = options
        self.runtime = TaskRuntime()
        self.tracing = make_tracing(os.environ, _warn_of_tracing) if options.tracing else None
        self.transport_name, transport = ("given", transport) if transport else make_transport(options.transport)
        self.cluster: Cluster | None = None
        self._connecting = asyncio.Lock()
        self.pools: OnePool | ManyPools
        many = isinstance(config, PoolsFile)
        components = (COMPONENT,) if many else COMPONENTS
        self.health = Health(components, leader_election=options.ha_enable_leader_election, on_change=transport.set_health)
        transport.set_health(self.health.table())
        if isinstance(config, PoolsFile):
            # the lease is one, whatever the pools; it is called by the first
            self._cluster_options = dataclasses.replace(options, pool_name=config.pools[0].name)
            if options.ha_enable_leader_election:
                self.cluster = Cluster(self._cluster_options, self._on_lead)
            parts = Parts(options, transport, self.health, self.runtime, self._another, self.tracing, self._connected)
            self.pools = ManyPools(config, parts)
        else:
            if is_in_cluster(options, config):
                self.cluster = Cluster(options, self._on_lead)
            connection = self.cluster.connection if self.cluster is not None else None
            self.pools = OnePool(
                options, config, transport, self.health, tracing=self.tracing, cluster=connection, discovery=discovery
            )
        self._http_options = self._how_to_show(is_dynamic=many)
        self.http = HttpServer(self.pools.sources, self._http_options)
        self._certificates = Certificates(options, self.pools.reload_certificate, self.http.reload_tls)
        self.ports: dict[str, int] = {}
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stopping = False
        self._stopped = asyncio.Event()

    @property
    def served(self) -> list[ServedPool]:
        """The pools that are loaded."""
        return self.pools.served

    # ── run ──

    async def serve(self) -> int:
        """Start, serve until SIGTERM or SIGINT, stop.

        Raises:
            UsageError, ConfigError, OSError: the service cannot start, or cannot go on.
        """
        self._install_signals()
        try:
            early = await self._until_signal(self._start())
            received = early or await self._until_signal(self._watch())
        except LeaseLostError as error:
            _logger.error("stopping", reason=str(error))
            self.pools.step_down()
            await self._stop(skip_window=True)
            raise
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
        """While the process serves: notice plugins that are not ready, discovery that ends, and leadership that is lost.

        Raises:
            LeaseLostError: another picker may lead now.
            OSError: discovery has ended; the endpoints would be frozen for ever.
        """
        lost = asyncio.create_task(self.pools.lost())
        election = self.cluster.elect() if self.cluster is not None else None
        ends = [lost] if election is None else [election, lost]
        try:
            while not any(end.done() for end in ends):
                timeout_s = READINESS_EVERY_S if self.pools.may_wait else None
                await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                self.pools.look()
            for end in ends:
                if end.done():
                    await end
        finally:
            lost.cancel()

    async def _start(self) -> None:
        _logger.info("transport", name=self.transport_name)
        if self.cluster is not None:
            await self.cluster.start()
        await self.pools.start()
        await self._listen()
        self.pools.look()
        gc.collect()
        gc.freeze()
        if self.options.ready_file:
            write_ready_file(self.options.ready_file, {"pid": os.getpid(), **self.ports})
        _logger.info("ready")

    async def _listen(self) -> None:
        options = self.options
        host = options.bind_address
        ports = [
            Port(host, options.grpc_port, secure=options.secure_serving),
            Port(host, options.grpc_health_port, secure=False, extproc=False),
        ]
        grpc_port, health_port = await self.pools.listen(ports)
        self.pools.show(self.http)
        metrics_port = await self.http.start()
        self.ports = {"grpc_port": grpc_port, "grpc_health_port": health_port, "metrics_port": metrics_port}
        self.ports |= {f"grpc_port/{name}": port for name, port in self.pools.ports.items()}
        for name, port in self.ports.items():
            _logger.info("listening", server=name, address=host, port=port)
        self._certificates.follow(self.runtime.spawn, self._stopped)
        self.pools.follow()

    async def _stop(self, *, skip_window: bool) -> None:
        self.pools.drain()
        if self.cluster is not None:
            await self.cluster.resign()
        options, transports = self.options, self.pools.transports
        if not skip_window and options.drain_timeout_s > 0:
            _logger.info("draining", window_s=options.drain_timeout_s, open_streams=_open_streams(transports))
            await asyncio.sleep(options.drain_timeout_s)
        self.pools.refuse_queued()
        grace = options.graceful_shutdown_timeout_s
        if grace is None:
            grace = options.drain_timeout_s
        _logger.info("stopping", grace_s=grace, open_streams=_open_streams(transports))
        await asyncio.gather(*(transport.stop(None if grace < 0 else grace) for transport in transports))
        await self._teardown()
        _logger.info("stopped")

    async def _teardown(self) -> None:
        """Stop every part, whatever becomes of the others.

        Raises:
            Exception: the first failure, when all parts have been stopped.
        """
        self._stopped.set()
        self.pools.close_pages()
        cluster = [self.cluster.stop] if self.cluster is not None else []
        try:
            await stop_all(
                [
                    *(partial(transport.stop, 0) for transport in self.pools.transports),
                    self.http.stop,
                    self.pools.stop,
                    self.runtime.stop,
                    self._stop_tracing,
                    *cluster,
                ]
            )
        finally:
            if self.options.ready_file:
                remove_ready_file(self.options.ready_file)

    # ── signals ──

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_on, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, lambda: _logger.info("verbosity", v=log.raise_verbosity()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: _logger.info("verbosity", v=log.lower_verbosity()))

    def stop_on(self, number: signal.Signals) -> None:
        """A signal says to stop; the second one ends the process at once."""
        if self._stopping:
            if self.options.ready_file:
                remove_ready_file(self.options.ready_file)
            os._exit(128 + number)
        self._stopping = True
        self._signals.put_nowait(number)

    def reload(self) -> None:
        """Look again at what can be reloaded, and name what cannot."""
        _logger.info("reloading", what="configuration, certificates, endpoints, objects")
        self._certificates.reload()
        self.pools.reload()

    # ── parts ──

    def _how_to_show(self, *, is_dynamic: bool) -> HttpOptions:
        options = self.options
        return HttpOptions(
            host=options.bind_address,
            port=options.metrics_port,
            authorize=self._authorizer(is_dynamic=is_dynamic),
            cert_dir=Path(options.metrics_cert_dir) if options.metrics_cert_dir else None,
            client_ca_file=Path(options.metrics_client_ca_file) if options.metrics_client_ca_file else None,
            pprof=options.enable_pprof,
        )

    def _authorizer(self, *, is_dynamic: bool) -> Authorize | None:
        """Who asks the API server about tokens; None = anyone may read.

        Args:
            is_dynamic: a pool may need a cluster later; tokens are then demanded from that moment on.
        """
        options = self.options
        if options.metrics_client_ca_file:
            return None
        if self.cluster is not None and options.metrics_endpoint_auth is not False:
            return authorize_by(self.cluster.connection)
        if is_dynamic and options.metrics_endpoint_auth is not False:
            return self._authorize
        if options.metrics_endpoint_auth:
            _logger.warning("metrics port answers 401", reason="--metrics-endpoint-auth is given and there is no API server")
            return refuse_all
        return None

    async def _authorize(self, request: AccessRequest) -> Access:
        if self.cluster is not None:
            return await authorize_by(self.cluster.connection)(request)
        return await refuse_all(request) if self.options.metrics_endpoint_auth else Access()

    async def _connected(self) -> ClusterConnection:
        """The API server, for a pool that needs it.

        Raises:
            UsageError: there are no credentials that can be used.
        """
        async with self._connecting:  # several pools may ask at once
            if self.cluster is None:
                cluster = Cluster(self._cluster_options, self._on_lead)
                await cluster.start()
                self.cluster = cluster
        return self.cluster.connection

    def _on_lead(self, leads: bool) -> None:
        self.pools.set_leading(leads)

    def _another(self) -> Transport:
        """A transport for a port of its own."""
        return make_transport(self.options.transport)[1]

    async def _stop_tracing(self) -> None:
        """Send the last spans, for as long as their exporter may take."""
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.stop)


def _open_streams(transports: Sequence[Transport]) -> int:
    return sum(transport.stats().open_streams for transport in transports)


def _warn_of_tracing(problem: str) -> None:
    _logger.warning("tracing", problem=problem)


def _raise_open_files_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
