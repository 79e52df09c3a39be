"""Running the picker as a process of its own, as an operator would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from watchfiles import awatch

from epp.demo.lifeline import tied
from epp.errors import EppError

STOP_TIMEOUT_S = 15.0
"""Time between SIGINT and SIGKILL: streams that run get their grace."""
_LOG_CHUNKS_BYTES = 64 * 1024


class PickerError(EppError):
    """The picker did not start; the message holds what it logged."""


class PickerProcess:
    """``epp serve`` with these flags, as an async context manager; entering returns once it serves.

    All ports are chosen by the system unless the flags say otherwise. Leaving ends it with SIGINT, so that it skips the
    drain window, and leaves no file.

    Args:
        flags: of ``epp serve``; ports and ready file are added.
        start_timeout_s: how long it may take until it serves.

    Raises:
        PickerError: on entering.
    """

    def __init__(self, flags: Sequence[str], *, start_timeout_s: float = 30.0) -> None:
        self._flags = flags
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log = bytearray()
        self.grpc_port = 0
        self.grpc_health_port = 0
        self.metrics_port = 0

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The running process."""
        if self._process is None:
            raise PickerError("the picker is not running")
        return self._process

    @property
    def log(self) -> str:
        """The last 64 KiB that it logged."""
        return self._log.decode(errors="replace")

    async def __aenter__(self) -> Self:
        with tempfile.TemporaryDirectory(prefix="epp-picker-") as folder:
            ready = Path(folder, "ready.json")
            ports = ["--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]
            command = [sys.executable, "-m", "epp", "serve", *ports, f"--ready-file={ready}", *self._flags]
            self._process = await asyncio.create_subprocess_exec(
                *tied(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            self._reader = asyncio.create_task(self._read_log(), name="picker-log")
            try:
                await self._wait_until_ready(ready)
            except BaseException:
                await self.stop()
                raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> int:
        """End it; returns its exit status."""
        process = self.process
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(2)
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
        status = await process.wait()
        if self._reader is not None:
            await self._reader
        return status

    async def _wait_until_ready(self, ready: Path) -> None:
        waiting = [
            asyncio.create_task(_appears(ready), name="picker-ready"),
            asyncio.create_task(self.process.wait(), name="picker-ended"),
        ]
        try:
            await asyncio.wait(waiting, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        ports = _read(ready)
        if ports is None:
            ended = self.process.returncode
            what = f"ended with status {ended}" if ended is not None else f"is not ready after {self._start_timeout_s:g} s"
            if ended is not None and self._reader is not None:
                await self._reader
            raise PickerError(f"the picker {what}:\n{self.log.strip()}")
        self.grpc_port, self.grpc_health_port = ports["grpc_port"], ports["grpc_health_port"]
        self.metrics_port = ports["metrics_port"]

    async def _read_log(self) -> None:
        stream = self.process.stderr
        if stream is None:
            return
        while chunk := await stream.read(65536):
            self._log += chunk
            del self._log[:-_LOG_CHUNKS_BYTES]


async def _appears(path: Path) -> None:
    """Wait for a file that is renamed into place."""
    stop = asyncio.Event()
    async for _ in awatch(path.parent, stop_event=stop, step=20, debounce=50, rust_timeout=200, yield_on_timeout=True):
        if _read(path) is not None:
            return


def _read(path: Path) -> dict[str, int] | None:
    """The ready file, or None while it is not there."""
    try:
        ports: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return ports
