"""Fixtures for tests that run a real Envoy: the proxy itself, and pickers for it to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import grpc
import grpc.aio
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import (
    ExternalProcessorServicer,
    add_ExternalProcessorServicer_to_server,
)
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from bench.load.process import ServerProcess, expand, free_port
from epp.demo.envoy import Bootstrap, EnvoyError, EnvoyProcess, find_envoy, render

PICKER_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

StartPicker = Callable[..., Awaitable[ServerProcess]]
ServePicker = Callable[..., Awaitable[int]]


class StartEnvoy(Protocol):
    """Starts an Envoy that ends with the test."""

    async def __call__(self, config: str | Bootstrap, **addresses: Any) -> EnvoyProcess:
        """Args: a file name for `render` with its arguments, or a finished bootstrap document."""
        ...


@pytest.fixture(scope="session")
def envoy_binary(request: pytest.FixtureRequest) -> Path:
    """Path of Envoy; without one the test is skipped, or fails under ``--require=envoy``."""
    try:
        return find_envoy()
    except EnvoyError as exc:
        if "envoy" in request.config.getoption("--require").split(","):
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@pytest.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    """What the other fixtures start; ended in reverse order when the test is over."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def envoy(envoy_binary: Path, cleanup: AsyncExitStack) -> StartEnvoy:
    """Factory: ``await envoy("full-duplex", epp_port=..., secure=False, health_check=False)``."""

    async def start(config: str | Bootstrap, **addresses: Any) -> EnvoyProcess:
        document = render(config, **addresses) if isinstance(config, str) else config
        return await cleanup.enter_async_context(EnvoyProcess(document, binary=envoy_binary))

    return start


@pytest.fixture
def start_picker(cleanup: AsyncExitStack) -> StartPicker:
    """Factory: run a picker from a command line with ``{port}``, ``{health_port}``, ``{metrics_port}`` and keywords."""

    async def start(command: str, **values: str) -> ServerProcess:
        port = free_port()
        ports = {"port": port, "health_port": free_port(), "metrics_port": free_port()}
        words = expand(command, {name: str(value) for name, value in ports.items()} | values)
        return await cleanup.enter_async_context(ServerProcess(words, port=port))

    return start


@pytest.fixture
def serve_picker(cleanup: AsyncExitStack) -> ServePicker:
    """Factory: ``await serve_picker(servicer)`` serves a picker and gRPC health in this process; returns the port.

    Without TLS, unless ``credentials`` are given.
    """

    async def start(servicer: ExternalProcessorServicer, credentials: grpc.ServerCredentials | None = None) -> int:
        server = grpc.aio.server()
        add_ExternalProcessorServicer_to_server(servicer, server)
        checks = health.aio.HealthServicer()
        await checks.set(PICKER_SERVICE, HealthCheckResponse.SERVING)
        add_HealthServicer_to_server(checks, server)
        port: int = (
            server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
        )
        await server.start()
        cleanup.push_async_callback(server.stop, grace=None)
        return port

    return start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session
