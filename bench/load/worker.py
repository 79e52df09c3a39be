"""A helper process that is told what to do by lines of JSON, one answer for each; it ends when its parent does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

_LIMIT_BYTES = 1 << 26
"""Longest line; an answer holds the latencies of a whole segment."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, object]]]


async def serve_commands(hello: dict[str, object], answer: Answer) -> None:
    """The helper's side: say hello, then answer each line until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LIMIT_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _print(hello)
    while line := await reader.readline():
        _print(await answer(json.loads(line)))


class Worker:
    """The parent's side, as an async context manager.

    Args:
        module: what to run with ``python -m``.
        args: its command line.
    """

    def __init__(self, module: str, *args: str) -> None:
        self.hello: dict[str, Any] = {}
        """What the helper said when it was ready."""
        self._command = (sys.executable, "-m", module, *args)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=pipe,
            stdout=pipe,
            limit=_LIMIT_BYTES,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the helper
        )
        try:
            self.hello = await self._read()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of the helper."""
        assert self._process is not None
        return self._process.pid

    async def call(self, command: dict[str, object]) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            RuntimeError: the helper ended instead.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._read()

    async def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended unexpectedly; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _print(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
