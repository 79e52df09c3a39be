"""The least that reading metrics pages costs: what a picker's idle figure is measured against.

It asks every endpoint for `/metrics` once in each interval, over one keep-alive connection each, and throws the bytes away.
Plain sockets and epoll; all requests of an interval go out at once, so that it sleeps once in between; one buffer is used again
and again; of a response only the content length is looked at, to know where it ends.

It does not: read what the page says, keep or hand over anything, spread the requests over the interval, notice that an endpoint
comes, goes or is slow, connect again, use TLS, serve requests. A page that has not come wholly when the next interval begins is
not asked for again until the one after. What is left is the kernel's work, and some 10 us of Python for each page.
"""

from __future__ import annotations

import argparse
import select
import socket
import time

_REQUEST = b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n"
_BUFFER_BYTES = 1 << 18
_MARK = b"content-length:"


class Reader:
    """One connection; at most one page is under way."""

    def __init__(self, endpoint: str, buffer: bytearray) -> None:
        host, _, port = endpoint.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._endpoint = endpoint
        self._buffer = buffer
        self._left = 0
        """Bytes of the page to come; 0 when none is under way, -1 before its length is known."""

    def fileno(self) -> int:
        """For epoll."""
        return self._socket.fileno()

    def ask(self) -> None:
        """Ask for the next page, unless one is under way."""
        if not self._left:
            self._left = -1
            self._socket.send(_REQUEST)

    def read(self) -> None:
        """Throw away what has come.

        Raises:
            SystemExit: the endpoint closed the connection, or the head has no length.
        """
        count = self._socket.recv_into(self._buffer)
        if not count:
            raise SystemExit(f"{self._endpoint} closed the connection")
        if self._left < 0:
            self._left = self._length(count)
        self._left -= count

    def _length(self, count: int) -> int:
        """Length of head and body; a server sends the whole head at once."""
        end = self._buffer.find(b"\r\n\r\n", 0, count)
        start = self._buffer.find(_MARK, 0, end)
        if start < 0 or end < 0:
            raise SystemExit(f"{self._endpoint} does not say how long its page is")
        return end + 4 + int(self._buffer[start + len(_MARK) : self._buffer.index(b"\r", start)])


def read_forever(endpoints: list[str], interval_s: float) -> None:
    """Read all pages in every interval until the process is ended."""
    buffer = bytearray(_BUFFER_BYTES)
    readers = {reader.fileno(): reader for reader in (Reader(endpoint, buffer) for endpoint in endpoints)}
    poll = select.epoll()
    for number in readers:
        poll.register(number, select.EPOLLIN)
    due_s = time.monotonic()
    while True:
        left_s = due_s - time.monotonic()
        if left_s <= 0:
            for reader in readers.values():
                reader.ask()
            due_s = max(due_s, time.monotonic() - interval_s) + interval_s  # after a pause there is nothing to catch up with
            continue
        for number, _ in poll.poll(left_s):
            readers[number].read()


def main() -> None:
    """Parse the command line and read."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare_reader", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1 that tells the benchmark that this runs")
    parser.add_argument("--endpoints", required=True, help="comma-separated host:port")
    parser.add_argument("--interval-ms", type=float, default=50.0, help="time between two pages of an endpoint (default: 50)")
    args = parser.parse_args()
    with socket.create_server(("127.0.0.1", args.port)):  # nobody is accepted
        read_forever(args.endpoints.split(","), args.interval_ms / 1000)


if __name__ == "__main__":
    main()
