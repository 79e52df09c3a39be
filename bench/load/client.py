"""A cheap HTTP/1.1 load generator in its own process: prepared requests, keep-alive, no parsing beyond the end of a response.

Started by `bench.load.worker.Worker`. Each command is one segment: ``{"port", "seconds", "connections", "rate", "seed"}``.
A rate makes it an open loop: arrivals are fixed beforehand (Poisson) and a response's time counts from its arrival, whether
or not a connection was free, so a slow server cannot hide behind requests that were sent late. How late they were sent is told,
too: where that is much, the generator itself is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from array import array
from collections import deque
from typing import Any, cast

import uvloop

from bench.load.payload import requests
from bench.load.timer import PreciseTimer
from bench.load.worker import serve_commands

_CHUNKED_END = b"\r\n0\r\n\r\n"
_MAX_CONNECTIONS = 1024
"""Of an open loop; arrivals beyond wait, and their waiting counts."""
_DRAIN_S = 30.0
"""How long the last responses of a segment may take; what is missing then is an error."""


class Segment:
    """Counters and samples of one segment, and what the next request is."""

    def __init__(self, payloads: list[bytes], port: int, seed: int) -> None:
        self.port = port
        self.latencies_s = array("d")
        self.firsts_s = array("d")
        self.lates_s = array("d")
        """Between a request's arrival and its sending."""
        self.errors = 0
        self.finished_s = 0.0
        self._payloads = itertools.cycle(payloads[seed % len(payloads) :] + payloads[: seed % len(payloads)])

    def payload(self) -> bytes:
        """The next request."""
        return next(self._payloads)

    def record(self, due_s: float, first_s: float, *, ok: bool) -> None:
        """Count one response that is complete now."""
        self.finished_s = now = time.monotonic()
        if not ok:
            self.errors += 1
            return
        self.latencies_s.append(now - due_s)
        self.firsts_s.append(first_s - due_s)

    def result(self, start_s: float) -> dict[str, object]:
        """What the command is answered with."""
        return {
            "elapsed_s": max(self.finished_s - start_s, 1e-9),
            "errors": self.errors,
            "latencies_us": [round(value * 1e6) for value in self.latencies_s],
            "firsts_us": [round(value * 1e6) for value in self.firsts_s],
            "lates_us": [round(value * 1e6) for value in self.lates_s],
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, loop: ClosedLoop | OpenLoop) -> None:
        self._owner = loop
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._ok = False
        self._head = b""
        self._tail = b""
        self._left = 0
        self._in_body = False
        self._due_s = self._first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not instances of it

    def send(self, payload: bytes, due_s: float) -> None:
        """Send a request that was due at that time."""
        assert self._transport is not None
        self._busy, self._in_body, self._head = True, False, b""
        self._due_s, self._first_s = due_s, 0.0
        self._transport.write(payload)
        self._owner.segment.lates_s.append(time.monotonic() - due_s)

    def close(self) -> None:
        """Close without reporting a failure."""
        self._busy = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Find the end of the response."""
        if not self._in_body:
            self._first_s = self._first_s or time.monotonic()
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end], self._head[end + 4 :]
            self._ok = head.startswith(b"HTTP/1.1 200")
            start = head.find(b"\r\ncontent-length:")
            self._left = -1 if start < 0 else int(head[start + 17 :].split(b"\r\n", 1)[0])
            self._in_body, self._tail = True, b"\r\n"
        if self._left < 0:
            self._tail = (self._tail + data)[-len(_CHUNKED_END) :]
            complete = self._tail == _CHUNKED_END
        else:
            self._left -= len(data)
            complete = self._left <= 0
        if complete:
            self._busy = False
            self._owner.segment.record(self._due_s, self._first_s, ok=self._ok)
            self._owner.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """A connection that breaks under a request is an error."""
        if self._busy:
            self._owner.segment.record(self._due_s, self._first_s, ok=False)
            self._owner.lost(self)


class ClosedLoop:
    """A fixed number of connections, each sending its next request as soon as the last was answered."""

    def __init__(self, segment: Segment, *, connections: int, seconds: float) -> None:
        self.segment = segment
        self._count = connections
        self._seconds = seconds
        self._end_s = 0.0
        self._left = connections
        self._done = asyncio.Event()

    async def run(self) -> float:
        """Run to the end; returns when it started."""
        loop = asyncio.get_running_loop()
        links = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.segment.port))[1]
            for _ in range(self._count)
        ]
        start = time.monotonic()
        self._end_s = start + self._seconds
        for link in links:
            link.send(self.segment.payload(), time.monotonic())
        try:
            await asyncio.wait_for(self._done.wait(), self._seconds + _DRAIN_S)
        except TimeoutError:
            self.segment.errors += self._left
            self.segment.finished_s = time.monotonic()
        for link in links:
            link.close()
        return start

    def free(self, link: Connection) -> None:
        """Called when a response is complete."""
        now = time.monotonic()
        if now < self._end_s:
            link.send(self.segment.payload(), now)
        else:
            self._stop_one()

    def lost(self, link: Connection) -> None:  # noqa: ARG002
        """Called when a connection broke; the others go on."""
        self._stop_one()

    def _stop_one(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()


class OpenLoop:
    """Arrivals at fixed times, however long the responses take.

    Args:
        connections: opened before the first arrival; more follow as they are needed.
    """

    def __init__(self, segment: Segment, *, rate: float, seconds: float, seed: int, connections: int = 0) -> None:
        self.segment = segment
        self._connections = min(connections, _MAX_CONNECTIONS)
        self._arrivals = _poisson(rate, seconds, seed)
        self._left = len(self._arrivals)
        self._idle: list[Connection] = []
        self._links: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[float] = deque()
        self._done = asyncio.Event()

    async def run(self) -> float:
        """Run to the end; returns when it started."""
        for _ in range(self._connections):
            await self._open()
        start = time.monotonic() + 0.01
        due = deque(start + offset for offset in self._arrivals)

        def arrive() -> None:
            now = time.monotonic()
            while due and due[0] <= now:
                self._dispatch(due.popleft())
            if due:
                timer.set(due[0])

        timer = PreciseTimer(arrive)
        timer.set(due[0])
        try:
            await asyncio.wait_for(self._done.wait(), self._arrivals[-1] + _DRAIN_S)
        except TimeoutError:
            self.segment.errors += self._left
            self.segment.finished_s = time.monotonic()
        timer.close()
        for link in self._links:
            link.close()
        return start

    def free(self, link: Connection) -> None:
        """Called when a response is complete."""
        self._count_down()
        self._serve(link)

    def lost(self, link: Connection) -> None:
        """Called when a connection broke under a request."""
        self._links.discard(link)
        self._count_down()

    def _dispatch(self, due_s: float) -> None:
        if self._idle:
            self._idle.pop().send(self.segment.payload(), due_s)
            return
        self._waiting.append(due_s)
        if len(self._links) + len(self._opening) < _MAX_CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.segment.port)
        except OSError:
            if self._waiting:
                self.segment.record(self._waiting.popleft(), 0.0, ok=False)
                self._count_down()
            return
        self._links.add(link)
        self._serve(link)

    def _serve(self, link: Connection) -> None:
        if self._waiting:
            link.send(self.segment.payload(), self._waiting.popleft())
        else:
            self._idle.append(link)

    def _count_down(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()


def _poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrival times from 0, at least one."""
    rng = random.Random(seed)
    times = [rng.expovariate(rate)]
    while times[-1] < seconds:
        times.append(times[-1] + rng.expovariate(rate))
    return times[:-1] or [0.0]


async def serve(args: argparse.Namespace) -> None:
    """Answer commands until the parent is gone."""
    payloads = requests(args.prompt_bytes, args.response)

    async def run(command: dict[str, Any]) -> dict[str, object]:
        segment = Segment(payloads, command["port"], command["seed"])
        seconds, rate = command["seconds"], command["rate"]
        loop: ClosedLoop | OpenLoop
        if rate:
            loop = OpenLoop(segment, rate=rate, seconds=seconds, seed=command["seed"], connections=command["connections"])
        else:
            loop = ClosedLoop(segment, connections=command["connections"], seconds=seconds)
        return segment.result(await loop.run())

    await serve_commands({}, run)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.load.client", description=__doc__)
    parser.add_argument("--prompt-bytes", type=int, default=200, help="length of a prompt")
    parser.add_argument("--response", choices=("json", "sse"), default="json", help="what is asked for")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
