"""Many model servers in one cheap process: they read requests without understanding them and answer with prepared bytes.

Started by `bench.load.worker.Worker`: prints its ports, then answers each line on standard input with its counters and ends
with the input.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

from bench.load.payload import json_response, metrics_responses, sse_response
from bench.load.worker import serve_commands

_CHUNKED_END = b"\r\n0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Streams:
    """All running streams, moved on together by one timer: cheaper than a timer for each.

    Args:
        interval_s: time between two chunks of a stream.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._head, self._chunks = sse_response()
        self._running: dict[asyncio.WriteTransport, Iterator[bytes]] = {}
        self._loop = asyncio.get_running_loop()

    def begin(self, transport: asyncio.WriteTransport) -> None:
        """Start a stream on a connection."""
        chunks = iter(self._chunks)
        transport.write(self._head + next(chunks))
        if not self._running:
            self._loop.call_later(self._interval_s, self._tick)
        self._running[transport] = chunks

    def drop(self, transport: asyncio.WriteTransport | None) -> None:
        """Forget the stream of a connection that is gone."""
        if transport is not None:
            self._running.pop(transport, None)

    def _tick(self) -> None:
        for transport, chunks in list(self._running.items()):
            chunk = next(chunks, None)
            if chunk is None:
                del self._running[transport]
            else:
                transport.write(chunk)
        if self._running:
            self._loop.call_later(self._interval_s, self._tick)


class Servers:
    """What all connections share: prepared responses and counters."""

    def __init__(self, *, page: str, response: str, interval_s: float) -> None:
        self.pages = itertools.cycle(metrics_responses("full" if page == "full" else "small"))
        self.json = json_response()
        self.streams = Streams(interval_s) if response == "sse" else None
        self.scrapes = 0
        self.requests = 0


class Connection(asyncio.Protocol):
    """One connection from Envoy or from a scraper; no pipelining."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._tail = b""
        self._left = 0
        """Bytes of the body to come; -1 for a chunked body."""
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not instances of it

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop a stream that nobody reads."""
        if self._servers.streams is not None:
            self._servers.streams.drop(self._transport)

    def data_received(self, data: bytes) -> None:
        """Find the end of the request and answer."""
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self._head = self._head[:end].lower(), self._head[end + 4 :], b""
            if head.startswith(b"get "):
                self._get(head)
                return
            self._in_body = True
            self._left = _content_length(head)
            self._tail = b"\r\n"  # an empty chunked body is the end mark without its first two bytes
        if self._left < 0:
            self._tail = (self._tail + data)[-len(_CHUNKED_END) :]
            complete = self._tail == _CHUNKED_END
        else:
            self._left -= len(data)
            complete = self._left <= 0
        if complete:
            self._in_body = False
            self._post()

    def _get(self, head: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"get /metrics"):
            self._servers.scrapes += 1
            self._transport.write(next(self._servers.pages))
        else:
            self._transport.write(_NOT_FOUND)

    def _post(self) -> None:
        assert self._transport is not None
        self._servers.requests += 1
        if self._servers.streams is not None:
            self._servers.streams.begin(self._transport)
        else:
            self._transport.write(self._servers.json)


def _content_length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    return -1 if start < 0 else int(head[start + 17 :].split(b"\r\n", 1)[0])


async def serve(args: argparse.Namespace) -> None:
    """Listen on as many ports as asked for and answer commands until the parent is gone."""
    loop = asyncio.get_running_loop()
    servers = Servers(page=args.page, response=args.response, interval_s=args.chunk_interval_ms / 1000)
    listening = [
        await loop.create_server(lambda: Connection(servers), "127.0.0.1", 0, backlog=1024) for _ in range(args.servers)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in listening]

    async def counters(_command: dict[str, object]) -> dict[str, object]:
        return {"scrapes": servers.scrapes, "requests": servers.requests}

    await serve_commands({"ports": ports}, counters)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.load.backend", description=__doc__)
    parser.add_argument("--servers", type=int, default=10, help="number of model servers")
    parser.add_argument("--page", choices=("small", "full"), default="small", help="size of the metrics page")
    parser.add_argument("--response", choices=("json", "sse"), default="json", help="what a request is answered with")
    parser.add_argument("--chunk-interval-ms", type=float, default=5.0, help="time between two chunks of a stream")
    uvloop.run(serve(parser.parse_args()))
    sys.exit(0)


if __name__ == "__main__":
    main()
