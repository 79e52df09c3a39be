"""Model servers, picker and Envoy together on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from epp.demo.data_files import DEFAULT_PRESET, data_path
from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import ServerOptions
from epp.simulate.server import SimulatedPool, SimulatedServer

SAFE_FLAGS = ("--hold-back-unscraped", "--hold-back-stale", "--drain-timeout=5s")
"""Servers that are not up yet, or no longer, get no requests."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to start."""

    servers: int = 4
    server: ServerOptions | Callable[[int], ServerOptions] = field(default_factory=ServerOptions)
    """Of each server, or of each by its index; their labels are those of the endpoints."""
    config: str = ""
    """EndpointPickerConfig file; the demo's preset if empty."""
    envoy: str = "full-duplex"
    """Name of a bootstrap file."""
    port: int = 0
    """Of Envoy; 0 lets the system choose."""
    picker_flags: Sequence[str] = ()


class Stack:
    """Everything between a client and a model server, as an async context manager.

    Raises:
        PickerError, EnvoyError, OSError: on entering; nothing stays behind.
    """

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._exits = AsyncExitStack()
        self.pool = SimulatedPool(options.servers, options.server)
        self.picker: PickerProcess
        self.envoy: EnvoyProcess

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return self.envoy.url

    async def __aenter__(self) -> Self:
        options = self._options
        async with AsyncExitStack() as exits:
            await exits.enter_async_context(self.pool)
            config = options.config or str(data_path("presets", f"{DEFAULT_PRESET}.yaml"))
            endpoints = [_endpoint_flag(server) for server in self.pool.servers]
            flags = [
                f"--config-file={config}",
                "--hold-back-unscraped",
                "--drain-timeout=5s",
                *endpoints,
                *options.picker_flags,
            ]
            self.picker = await exits.enter_async_context(PickerProcess(flags))
            document = render(
                options.envoy,
                listener_port=options.port,
                epp_port=self.picker.grpc_port,
                endpoints=self.pool.addresses,
                secure="--secure-serving=false" not in flags,
            )
            self.envoy = await exits.enter_async_context(EnvoyProcess(document))
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exits.aclose()


def _endpoint_flag(server: SimulatedServer) -> str:
    labels = [f"{name}={value}" for name, value in server.labels.items()]
    return f"--endpoint={','.join([server.address, *labels])}"
