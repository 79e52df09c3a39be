"""Simulated model servers on real ports: one of them, and a pool of them that can change while it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from epp.simulate.disaggregation import Disaggregation
from epp.simulate.driver import EngineDriver, EngineStoppedError
from epp.simulate.engine import Engine
from epp.simulate.exchange import ApiError, ApiFamily, Exchange, reset_connection
from epp.simulate.faults import Fault, FaultPlan
from epp.simulate.metrics import CONTENT_TYPE, MetricsRenderer
from epp.simulate.observer import CacheObserver
from epp.simulate.options import ServerOptions, require_kv_events
from epp.simulate.ports import WILDCARDS, bound_socket, connect_host, join_address, rebound_socket
from epp.simulate.routes import APIS, INFERENCE, PAGES, STAGED
from epp.simulate.service import Service
from epp.simulate.sidecar import RefusedError
from epp.simulate.state import ServerState
from epp.version import VERSION

if TYPE_CHECKING:
    from epp.simulate.kv_publisher import KvPublisher

SERVED_BY = "x-served-by"
"""Response header: ``host:port`` of the server that answered; where it listens everywhere, the address that the client used."""
SERVED_BY_NAME = "x-served-by-name"
_BACKLOG = 1024


class SimulatedServer:
    """One model server with its own engine and port.

    Args:
        name: of the endpoint.
        options: what it serves and how fast.
        host: address to bind.
        port: 0 lets the system choose; once chosen it stays.
    """

    def __init__(self, name: str, options: ServerOptions, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.options = options
        self.host = host
        self.port = port
        self.served = 0
        self._faults = FaultPlan(options.faults, options.engine.seed)
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._driver: EngineDriver | None = None
        self._open = AsyncExitStack()
        self._kv_options = options.kv_events
        self.kv_events: KvPublisher | None = None
        """Where it tells what its prefix cache holds; None without `ServerOptions.kv_events` or while it is down."""

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return join_address(self.connect_host, self.port)

    @property
    def connect_host(self) -> str:
        """Where to reach it: loopback if it listens everywhere."""
        return connect_host(self.host)

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the endpoint."""
        return self.options.labels

    @property
    def is_up(self) -> bool:
        """Accepts connections."""
        return self._listener is not None

    def state(self) -> ServerState:
        """How it is right now."""
        if self._driver is None:
            return ServerState(self.name, self.address, False, 0, 0, 0.0, 0.0, 0, 0.0, self.served)
        self._driver.settle()
        engine = self._driver.engine
        return ServerState(
            name=self.name,
            address=self.address,
            is_up=self.is_up,
            waiting=engine.waiting,
            running=engine.running,
            kv_usage_ratio=engine.kv_usage_ratio,
            prefix_hit_ratio=engine.statistics.prefix_hit_ratio,
            prompt_tokens=engine.statistics.prompt_tokens,
            ttft_s=engine.statistics.mean_ttft_s,
            served=self.served,
        )

    async def start(self) -> None:
        """Begin to serve, with an empty cache.

        Raises:
            OSError: a port cannot be had.
            UsageError: it is to publish KV events, and the extra for that is not installed.
        """
        self._socket = bound_socket(self.host, self.port)
        self.port = self._socket.getsockname()[1]
        try:
            await self._start_on_port()
        except BaseException:
            self._close_listener()
            await self._close()
            raise

    async def _start_on_port(self) -> None:
        self._driver = EngineDriver(Engine(self.options.engine, await self._open_kv_events()))
        self._service = Service(self.options, self._driver, self.connect_host, self.port)
        self._renderer = MetricsRenderer(self.options, self._driver.engine)
        self._http = web.Server(self._handle, request_factory=self._request, handler_cancellation=True, access_log=None)
        self._disaggregation = await self._open.enter_async_context(Disaggregation(self.options, self.address))
        self._headers = {SERVED_BY: self.address, SERVED_BY_NAME: self.name}
        if not self._faults.refuses:
            await self._listen()

    async def stop(self, drain_s: float = 5.0) -> None:
        """Accept no more, let requests end, close.

        Args:
            drain_s: how long running requests may take; afterwards they are cut.
        """
        self._close_listener()
        if self._http is not None:
            self._http.pre_shutdown()
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            await self._close()

    async def kill(self) -> None:
        """Die: the port is closed, every connection reset, the cache lost. `start` revives it on the same port."""
        self._close_listener()
        self._reset_connections()
        await self._close()

    async def set_faults(self, faults: Iterable[Fault]) -> None:
        """Commit these faults from now on, instead of all earlier ones.

        Raises:
            OSError: the port cannot be had again.
        """
        self._faults.replace(faults)
        if self._driver is None:
            return
        if self._faults.refuses and self._listener is not None:
            self._close_listener()
            self._reset_connections()
            self._socket = await rebound_socket(self.host, self.port)
        elif not self._faults.refuses and self._listener is None:
            await self._listen()

    async def _open_kv_events(self) -> CacheObserver | None:
        options = self._kv_options
        if options is None:
            return None
        require_kv_events()
        from epp.simulate.kv_events import KvEventLog
        from epp.simulate.kv_publisher import KvPublisher

        topic = options.topic_for(self.connect_host, self.port, self.options.models[0])
        publisher = KvPublisher(options, self.host, topic)
        await publisher.open()
        self._open.push_async_callback(publisher.close)
        self.kv_events = publisher
        self._kv_options = replace(options, port=publisher.port, replay_port=publisher.replay_port)
        return KvEventLog(options, self.options.engine.block_size, publisher.publish)

    async def _listen(self) -> None:
        if self._http is None or self._socket is None:
            raise RuntimeError("the server has not been started")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._http, sock=self._socket, backlog=_BACKLOG)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
        elif self._socket is not None:
            self._socket.close()
        self._listener = self._socket = None

    def _reset_connections(self) -> None:
        for connection in self._http.connections if self._http else ():
            reset_connection(connection.transport)

    async def _close(self) -> None:
        # First of all the events: a process that has ended does not tell that its cache is empty.
        await self._open.aclose()
        self.kv_events = None
        if self._driver is not None:
            self._service.offers.close()
            self._driver.stop()
        if self._http is not None:
            await self._http.shutdown(0)
        self._driver = self._http = None

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=self.options.max_body_bytes)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        family = ApiFamily.ANTHROPIC if path.startswith("/v1/messages") else ApiFamily.OPENAI
        api = APIS.get(path)
        fault = self._faults.draw(metrics=path == "/metrics")
        on_answered = self._count if path in INFERENCE else _ignore
        exchange = Exchange(request, self._headers_for(request), fault, family, on_answered)
        self._active += 1
        self._idle.clear()
        try:
            await exchange.begin(self._faults.error_status)
            if api is not None and request.method == "POST":
                if path in STAGED:
                    await self._disaggregation.prepare(exchange)
                return await api(self._service, exchange)
            return await self._page(exchange, path, known=api is not None or path in PAGES)
        except ApiError as error:
            return await exchange.reply_error(error)
        except RefusedError as refused:
            return await exchange.relay(refused.status, refused.headers, refused.body)
        except EngineStoppedError:
            exchange.reset()
            raise asyncio.CancelledError from None
        except ConnectionError:
            # The client has gone or was thrown out. A cancelled handler is the one that aiohttp drops without a word.
            raise asyncio.CancelledError from None
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _page(self, exchange: Exchange, path: str, known: bool) -> web.StreamResponse:
        if not known:
            raise ApiError(HTTPStatus.NOT_FOUND, f"There is no {path} here.")
        if exchange.request.method not in ("GET", "HEAD") or path in APIS:
            raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} does not support {exchange.request.method}.")
        match path:
            case "/metrics":
                if self._driver is not None:
                    self._driver.settle()
                return await exchange.reply_bytes(self._renderer.page(), CONTENT_TYPE)
            case "/v1/models":
                return await exchange.reply(self._service.models())
            case "/version":
                return await exchange.reply({"version": f"simulated-{VERSION}"})
            case _:
                return await exchange.reply_bytes(b"", "text/plain")

    def _headers_for(self, request: web.BaseRequest) -> Mapping[str, str]:
        headers = self._headers
        if self.host in WILDCARDS and request.transport is not None:
            host, port = request.transport.get_extra_info("sockname")[:2]
            headers = {**headers, SERVED_BY: join_address(host, port)}
        request_id = request.headers.get("x-request-id")
        return {**headers, "x-request-id": request_id} if request_id else headers

    def _count(self) -> None:
        self.served += 1


class SimulatedPool:
    """Several servers in this process; an async context manager.

    Args:
        count: servers at the start.
        options: of each server; the seed grows by one from server to server. A function is asked for each index.
        host: address to bind.
        ports: of the first servers; 0 or missing lets the system choose.
        hosts: addresses of the first servers; missing ones have ``host``.
    """

    def __init__(
        self,
        count: int,
        options: ServerOptions | Callable[[int], ServerOptions] | None = None,
        host: str = "127.0.0.1",
        ports: Sequence[int] = (),
        hosts: Sequence[str] = (),
    ) -> None:
        self.host = host
        self._hosts = hosts
        self._count = count
        self._ports = ports
        self._options = options or ServerOptions()
        self._made = 0
        self._servers: dict[str, SimulatedServer] = {}

    async def __aenter__(self) -> Self:
        try:
            for index in range(self._count):
                await self.add(port=self._ports[index] if index < len(self._ports) else 0)
        except BaseException:
            await self.close(drain_s=0.0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(drain_s=0.0)

    @property
    def servers(self) -> list[SimulatedServer]:
        """All that belong to the pool, in order; killed ones too."""
        return list(self._servers.values())

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each."""
        return [server.address for server in self._servers.values()]

    def __getitem__(self, name: str) -> SimulatedServer:
        return self._servers[name]

    def states(self) -> list[ServerState]:
        """How all are right now."""
        return [server.state() for server in self._servers.values()]

    async def add(self, options: ServerOptions | None = None, name: str | None = None, port: int = 0) -> SimulatedServer:
        """Start one more.

        Args:
            options: those of the pool by default.
            name: ``sim-N`` by default.
            port: 0 lets the system choose.

        Raises:
            OSError: the port cannot be had.
            ValueError: the name is taken.
        """
        index = self._made
        name = name or f"sim-{index}"
        if name in self._servers:
            raise ValueError(f"there is a server {name} already")
        self._made += 1
        host = self._hosts[index] if index < len(self._hosts) else self.host
        server = SimulatedServer(name, options or self._options_for(index), host, port)
        await server.start()
        self._servers[name] = server
        return server

    async def remove(self, name: str, drain_s: float = 5.0) -> None:
        """Stop one in good order and forget it."""
        await self._servers.pop(name).stop(drain_s)

    async def kill(self, name: str) -> None:
        """Let one die at once. It stays in the pool; `restart` revives it."""
        await self._servers[name].kill()

    async def restart(self, name: str) -> None:
        """Revive a killed one on its port, with an empty cache."""
        await self._servers[name].start()

    async def close(self, drain_s: float = 5.0) -> None:
        """Stop all."""
        try:
            await asyncio.gather(*(server.stop(drain_s) for server in self.servers))
        finally:
            self._servers.clear()

    def _options_for(self, index: int) -> ServerOptions:
        if callable(self._options):
            return self._options(index)
        return self._options.with_seed(self._options.engine.seed + index)


def _ignore() -> None:
    """Pages are not counted as served requests."""
