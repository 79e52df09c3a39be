"""The reference transport: ext_proc and health over ``grpc.aio``.

What grpc does not allow: a minimum of TLS 1.3 (its own minimum is 1.2, so lower ones are met by it), and to choose cipher
suites once it is imported: ``grpc_environment.prepare`` does that before.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import grpc
from grpc import aio

from epp.errors import UsageError
from epp.extproc.answers import Rules
from epp.extproc.body import Budget
from epp.extproc.machine import Machine
from epp.extproc.messages import Close, Status
from epp.seam import HealthTable, Port, RequestHandler, Settings, Tls, TlsVersion, TransportStats
from epp.telemetry.catalogue import STREAM_S
from epp.transport import grpc_health
from epp.transport.grpc_codec import Encoder
from epp.transport.grpc_environment import CIPHERS_VARIABLE, cipher_list
from epp.transport.grpc_stream import Context, GrpcStream

HOLD_BOUNDS_S = STREAM_S
"""Upper bounds of the buckets for how long streams lasted: from a rejected request to a long generation."""

EXTPROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_CODES = {status: grpc.StatusCode[status.name] for status in Status}

_ABORT_S = 1.0
"""How long an aborted stream may take to send its status before its connection is cut."""

_FOR_EVER_S = 365 * 24 * 3600.0

_SWEEPS_PER_DEADLINE = 10
"""Deadlines are looked after in a sweep over all streams, so that a stream pays nothing; one is late by a tenth at most."""

_MIN_SWEEP_S = 0.01


class GrpcTransport:
    """Implements ``handler.Transport``."""

    def __init__(self) -> None:
        self._servers: list[aio.Server] = []
        self._streams: set[GrpcStream] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._health = grpc_health.HealthService()
        self._budget = Budget(0)
        self._settings = Settings()
        self._rules = Rules(self._settings)
        self._encoder = Encoder(self._rules)
        self._handler: RequestHandler | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._ended: Counter[str] = Counter()
        self._hold_counts = [0] * (len(HOLD_BOUNDS_S) + 1)
        self._hold_sum_s = 0.0

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        """Listen on all ports and serve.

        Returns:
            The port numbers bound, in the order of ``ports``.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings are not usable.
        """
        self._handler = handler
        self.configure(settings)
        bound: list[int] = []
        try:
            for port in ports:
                server = self._server(port)
                self._servers.append(server)
                bound.append(self._listen(server, port))
            for server in self._servers:
                await server.start()
        except UsageError:
            await self.stop(0)
            raise
        self._schedule_sweep()
        return bound

    def configure(self, settings: Settings) -> None:
        """Use these settings for new streams and new connections.

        Raises:
            UsageError: grpc cannot do what the TLS settings ask for; nothing has changed.
        """
        if settings.tls is not None:
            _check_tls(settings.tls)
        self._settings = settings
        self._rules = Rules(settings)
        self._encoder = Encoder(self._rules)
        self._budget.limit_bytes = settings.max_buffered_bytes

    def set_health(self, table: HealthTable) -> None:
        """Answer Check, List and Watch from this table."""
        self._health.set(table)

    def stats(self) -> TransportStats:
        """Counts since the start."""
        return TransportStats(
            open_streams=len(self._streams),
            ended=dict(self._ended),
            hold_counts=tuple(self._hold_counts),
            hold_sum_s=self._hold_sum_s,
            buffered_bytes=self._budget.used_bytes,
        )

    async def stop(self, grace_s: float | None) -> None:
        """GOAWAY, wait up to ``grace_s`` (None = for ever), then UNAVAILABLE. No call comes after it returns."""
        self._health.stop()
        limit_s = _FOR_EVER_S if grace_s is None else grace_s
        stopping = [asyncio.create_task(server.stop(limit_s + _ABORT_S)) for server in self._servers]
        if not await _within(self._idle, limit_s):
            for stream in tuple(self._streams):
                stream.abort(Status.UNAVAILABLE, "server is stopping")
        await asyncio.gather(*stopping)
        await self._idle.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._servers.clear()

    # ── ports ──

    def _server(self, port: Port) -> aio.Server:
        settings = self._settings
        server = aio.server(
            options=(
                ("grpc.max_receive_message_length", settings.max_receive_bytes),
                ("grpc.max_send_message_length", settings.max_send_bytes),
                # One stream per request in flight, all over few connections.
                ("grpc.max_concurrent_streams", 2**31 - 1),
                # New streams of a burst wait; by default some of them are refused above 1000, at random.
                ("grpc.server.max_pending_requests", 2**31 - 1),
                ("grpc.server.max_pending_requests_hard_limit", 2**31 - 1),
                # The data plane's keepalive pings are welcome, also between requests.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
                ("grpc.http2.max_ping_strikes", 0),
                # A port in use is an error, not something to share silently.
                ("grpc.so_reuseport", 0),
            )
        )
        handlers = []
        if port.extproc:
            process: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._process)
            handlers.append(grpc.method_handlers_generic_handler(EXTPROC_SERVICE, {"Process": process}))
        if port.health:
            handlers.append(grpc.method_handlers_generic_handler(grpc_health.SERVICE, self._health.handlers()))
        server.add_generic_rpc_handlers(tuple(handlers))
        return server

    def _listen(self, server: aio.Server, port: Port) -> int:
        address = f"[{port.host}]:{port.port}" if ":" in port.host else f"{port.host}:{port.port}"
        if port.secure and self._settings.tls is None:
            raise UsageError([f"port {address} shall be secure, but there is no key pair"])
        try:
            if port.secure:
                return server.add_secure_port(address, self._credentials())
            return server.add_insecure_port(address)
        except RuntimeError as error:
            raise UsageError([f"cannot listen on {address}: {error}"]) from error

    def _credentials(self) -> grpc.ServerCredentials:
        """Credentials that take the key pair of the current settings at each handshake."""
        served = self._settings.tls

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            tls = self._settings.tls
            if tls is None or tls == served:
                return None
            served = tls
            return _certificate(tls)

        assert served is not None
        # None keeps the pair; the stubs do not know that.
        return grpc.dynamic_ssl_server_credentials(_certificate(served), fetch)  # type: ignore[arg-type]

    # ── streams ──

    async def _process(self, _requests: object, context: Context) -> None:
        """The method ExternalProcessor.Process; gets and gives serialized messages."""
        assert self._handler is not None
        machine = Machine(self._rules, self._budget)
        stream = GrpcStream(machine, self._handler, self._encoder, context)
        self._streams.add(stream)
        self._idle.clear()
        close: Close | None = None
        try:
            close = await stream.serve()
        finally:
            self._count(stream, Status.CANCELLED if close is None else close.status)
        if close is None:
            raise asyncio.CancelledError
        if close.status is not Status.OK:
            await context.abort(_CODES[close.status], close.details)

    def _count(self, stream: GrpcStream, status: Status) -> None:
        self._streams.discard(stream)
        if not self._streams:
            self._idle.set()
        held_s = time.monotonic() - stream.began_s
        self._ended[status.name] += 1
        self._hold_counts[bisect_left(HOLD_BOUNDS_S, held_s)] += 1
        self._hold_sum_s += held_s

    def _schedule_sweep(self) -> None:
        interval_s = max(self._settings.body_idle_s / _SWEEPS_PER_DEADLINE, _MIN_SWEEP_S)
        self._sweeper = asyncio.get_running_loop().call_later(interval_s, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for stream in tuple(self._streams):
            stream.tick(now)
        self._schedule_sweep()


def _check_tls(tls: Tls) -> None:
    if tls.min_version is TlsVersion.TLS13:
        why = "a minimum of VersionTLS13 cannot be enforced by the grpcio transport, which also accepts TLS 1.2"
        raise UsageError([f"{why}; use VersionTLS12, or the native transport"])
    wanted = cipher_list(tls.cipher_suites)
    if wanted and os.environ.get(CIPHERS_VARIABLE) != wanted:
        why = "grpc reads cipher suites while it is imported, and these were not set before"
        raise UsageError([f"{why}: set {CIPHERS_VARIABLE}={wanted} in the environment"])


def _certificate(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)])


async def _within(event: asyncio.Event, limit_s: float) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
