"""Runs a pool of simulated servers as a process of its own: announces it, waits for a signal, ends it in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from epp.simulate.options import ServerOptions
from epp.simulate.server import SimulatedPool, SimulatedServer

_DRAIN_S = 5.0
"""Running requests get so long after the first signal; a second signal cuts them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    count: int
    options: Callable[[int], ServerOptions]
    """Options of each server by index."""
    host: str
    ports: Sequence[int]
    hosts: Sequence[str] = ()
    """Addresses of the first servers; missing ones have ``host``."""
    ready_file: Path | None = None
    """Receives JSON with pid and endpoints once all serve."""
    endpoints_file: Path | None = None
    """Receives the endpoints in the form that file discovery reads."""


async def run_until_signal(plan: Plan, on_ready: Callable[[SimulatedPool], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        plan: what to run.
        on_ready: called once all servers listen and the files are written.

    Raises:
        OSError: a port cannot be had, or a file cannot be written.
    """
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, None)
    async with SimulatedPool(plan.count, plan.options, plan.host, plan.ports, plan.hosts) as pool:
        if plan.endpoints_file is not None:
            write_atomically(plan.endpoints_file, endpoints_yaml(pool.servers))
        if plan.ready_file is not None:
            write_atomically(plan.ready_file, _ready_json(pool.servers))
        on_ready(pool)
        await signals.get()
        closing = asyncio.ensure_future(pool.close(_DRAIN_S))
        second = asyncio.ensure_future(signals.get())
        await asyncio.wait((closing, second), return_when=asyncio.FIRST_COMPLETED)
        for task in (closing, second):
            task.cancel()
        await asyncio.gather(closing, second, return_exceptions=True)


def endpoints_yaml(servers: Sequence[SimulatedServer]) -> bytes:
    """A document for the ``file-discovery`` plugin."""
    entries = [
        {"name": server.name, "address": server.connect_host, "port": str(server.port), "labels": dict(server.labels)}
        for server in servers
    ]
    return yaml.safe_dump({"endpoints": entries}, sort_keys=False).encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the whole new one.

    Raises:
        OSError: the directory cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _ready_json(servers: Sequence[SimulatedServer]) -> bytes:
    document = {"pid": os.getpid(), "endpoints": [_announced(server) for server in servers]}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _announced(server: SimulatedServer) -> dict[str, object]:
    found: dict[str, object] = {
        "name": server.name, "address": server.connect_host, "port": server.port, "labels": dict(server.labels),
    }  # fmt: skip
    events = server.kv_events
    if events is not None:
        found["kv_events"] = {"endpoint": events.address, "replay_endpoint": events.replay_address or None}
    return found
