"""Starting a picker, or any other server, from a command line, and ending it for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from typing import Self

from epp.demo.lifeline import tied

_LOG_CHUNKS = 200
_RETRY_S = 0.02
"""A foreign command tells nobody when it listens, so its port is tried this often."""


class ProcessFailed(Exception):  # noqa: N818
    """A command ended before it served, or was not ready in time; the message holds what it printed."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def expand(command: str, values: Mapping[str, str]) -> list[str]:
    """Split a command line like a shell and fill in its placeholders.

    Only ``{name}`` of a known name is a placeholder, so that braces of JSON arguments survive. A first word ``python`` means
    this interpreter.
    """
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    for name, value in values.items():
        words = [word.replace("{" + name + "}", value) for word in words]
    return words


class ServerProcess:
    """A server in its own process group, as an async context manager; entering returns once its port accepts.

    Leaving sends SIGTERM to the group, then SIGKILL to whatever is left after ``stop_timeout_s``.

    Args:
        command: program and arguments.
        port: TCP port on 127.0.0.1 whose accepting means ready.
        start_timeout_s: how long the command may take to become ready.
        stop_timeout_s: how long it may take to end after SIGTERM.

    Raises:
        ProcessFailed: on entering.
    """

    def __init__(self, command: list[str], *, port: int, start_timeout_s: float = 30.0, stop_timeout_s: float = 2.0) -> None:
        self.command = command
        self.port = port
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._log: deque[bytes] = deque(maxlen=_LOG_CHUNKS)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the group."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What the process printed last, on both streams."""
        return b"".join(self._log).decode(errors="replace")

    def pause(self) -> None:
        """Freeze the whole group, so that it costs nothing while others are measured."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen group go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the whole group at once, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *tied(self.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read_log(self._process))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._wait_until_accepting()
        except TimeoutError as exc:
            await self._stop()
            raise ProcessFailed(
                f"{shlex.join(self.command)}: not ready after {self._start_timeout_s:g} s:\n{self.log}"
            ) from exc
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()

    def check(self) -> None:
        """Make sure that the process still runs.

        Raises:
            ProcessFailed: it has ended.
        """
        if self._running().returncode is not None:
            raise self._ended()

    async def wait(self) -> int:
        """Wait until the process has ended; returns its exit code."""
        return await self._running().wait()

    async def _wait_until_accepting(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(_RETRY_S)
            else:
                writer.close()
                return
            self.check()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while chunk := await process.stdout.read(65536):
            self._log.append(chunk)

    async def _stop(self) -> None:
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()  # also what the command started and left behind
        await process.wait()
        if self._reader is not None:
            await self._reader

    def _ended(self) -> ProcessFailed:
        return ProcessFailed(f"{shlex.join(self.command)}: ended with code {self._running().returncode}:\n{self.log}")

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("ServerProcess is used outside of its context")
        return self._process
