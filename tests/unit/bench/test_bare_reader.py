"""The reader that idle pickers are measured against reads all pages, wholly, and no more than it says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.load.process import free_port

REQUEST = b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 300000\r\n\r\n"
PIECES = (HEAD, b"x" * 100_000, b"x" * 199_999, b"x")


class Endpoint:
    """Serves pages longer than the reader's buffer, in pieces."""

    def __init__(self, pieces: Sequence[bytes] = PIECES) -> None:
        self._pieces = pieces
        self.connections = 0
        self.asked_early = False
        """Before the last page was sent wholly."""
        self.asked = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        asking = asyncio.create_task(reader.readuntil(REQUEST))
        try:
            while await asking == REQUEST:
                asking = asyncio.create_task(reader.readuntil(REQUEST))
                for piece in self._pieces:
                    self.asked_early |= asking.done()
                    writer.write(piece)
                    await writer.drain()
                self.asked.release()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def reading(*endpoints: Endpoint) -> AsyncIterator[asyncio.subprocess.Process]:
    """The reader, asking these every 5 ms."""
    servers = [await asyncio.start_server(endpoint.serve, "127.0.0.1", 0) for endpoint in endpoints]
    names = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
    args = ["--port", str(free_port()), "--endpoints", names, "--interval-ms", "5"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bare_reader", *args, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        for server in servers:
            server.close()


async def test_every_page_is_read_wholly_over_one_connection() -> None:
    endpoints = [Endpoint() for _ in range(3)]
    async with reading(*endpoints):
        for endpoint in endpoints:
            for _ in range(10):
                await endpoint.asked.acquire()
    assert [endpoint.connections for endpoint in endpoints] == [1, 1, 1]
    assert not any(endpoint.asked_early for endpoint in endpoints)


async def test_a_page_of_unknown_length_ends_it() -> None:
    async with reading(Endpoint([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])) as process:
        assert process.stderr is not None
        assert "does not say how long" in (await process.stderr.read()).decode()
        assert await process.wait() == 1
