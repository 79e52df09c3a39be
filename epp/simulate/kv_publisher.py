"""The sockets of KV events: a publisher, and one that is asked for past batches. Frames as vLLM's.

The publisher is an XPUB: on the wire the same as a PUB, but it learns of its subscribers, so that a test can wait for one.
Source: vllm-project/vllm: vllm/distributed/kv_events.py, ZmqEventPublisher.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Coroutine
from itertools import islice

import zmq
import zmq.asyncio

from epp.simulate.options import KvEventOptions, ReplayLayout
from epp.simulate.ports import connect_host, join_address

HIGH_WATER_MARK = 100_000
"""Messages that wait for a slow subscriber before some are dropped; vLLM's default."""
END_SEQUENCE = b"\xff" * 8
"""Marks the end of an answer of the replay socket."""
_BIND_ATTEMPTS = 50
_BIND_PAUSE_S = 0.02
"""ZeroMQ closes sockets on a thread of its own; a server that restarts at once has to wait for that."""


class KvPublisher:
    """Sends batches and keeps the last of them.

    Args:
        options: endpoint, ports, layout.
        host: address of the server, bound unless the options name an endpoint to connect to.
        topic: first frame, with nothing left to fill in.
    """

    def __init__(self, options: KvEventOptions, host: str, topic: str) -> None:
        self.port = options.port
        self.replay_port = options.replay_port
        self._options = options
        self._host = host
        self._topic = topic.encode()
        self._sequence = 0
        self._kept: deque[tuple[bytes, bytes]] = deque(maxlen=options.buffer_steps)
        self._subscribers = 0
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: list[zmq.asyncio.Socket] = []
        self._publisher: zmq.asyncio.Socket | None = None

    @property
    def address(self) -> str:
        """Endpoint of the publisher: where to connect to it, or what it connects to."""
        return self._options.endpoint or f"tcp://{join_address(connect_host(self._host), self.port)}"

    @property
    def replay_address(self) -> str:
        """Endpoint where past batches can be asked for; "" if they cannot."""
        return f"tcp://{join_address(connect_host(self._host), self.replay_port)}" if self._options.has_replay else ""

    @property
    def published(self) -> int:
        """Batches so far; the sequence number of the next."""
        return self._sequence

    @property
    def subscribers(self) -> int:
        """Subscriptions that are in force."""
        return self._subscribers

    async def open(self) -> None:
        """Bind or connect.

        Raises:
            OSError: a port cannot be had.
        """
        try:
            publisher = self._socket(zmq.XPUB)
            publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
            publisher.set_hwm(HIGH_WATER_MARK)
            if self._options.endpoint:
                publisher.connect(self._options.endpoint)
            else:
                self.port = await self._bind(publisher, self.port)
            self._publisher = publisher
            self._start(self._count_subscribers(publisher), "kv-subscribers")
            if self._options.has_replay:
                replay = self._socket(zmq.ROUTER)
                replay.set_hwm(HIGH_WATER_MARK)
                self.replay_port = await self._bind(replay, self.replay_port)
                self._start(self._answer(replay), "kv-replay")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the sockets; what subscribers have not taken is lost."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._sockets:
            each.close(linger=0)
        self._tasks, self._sockets, self._publisher = [], [], None
        for end in ends:
            if isinstance(end, Exception):  # it ended before, by itself
                raise end

    def publish(self, payload: bytes) -> None:
        """Send a batch; without an open socket it is dropped, as by a process that has ended."""
        if self._publisher is None:
            return
        number = self._sequence.to_bytes(8, "big")
        self._sequence += 1
        self._kept.append((number, payload))
        # It never blocks: what a subscriber does not take in time is dropped for it.
        asyncio.ensure_future(self._publisher.send_multipart((self._topic, number, payload), zmq.NOBLOCK)).result()

    async def subscribed(self, count: int = 1) -> None:
        """Wait until so many subscriptions are in force."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._subscribers >= count)

    async def _count_subscribers(self, publisher: zmq.asyncio.Socket) -> None:
        while True:
            message, *_ = await publisher.recv_multipart()
            async with self._changed:  # what is neither of both is no subscription
                self._subscribers += {b"\x01": 1, b"\x00": -1}.get(message[:1], 0)
                self._changed.notify_all()

    async def _answer(self, replay: zmq.asyncio.Socket) -> None:
        head = [self._topic] if self._options.replay_layout is ReplayLayout.TOPIC else []
        while True:
            frames = await replay.recv_multipart()
            if len(frames) != 3:  # not a request; the real engine says so in its log and goes on
                continue
            asker, _, start = frames
            first = int.from_bytes(start, "big")
            oldest = self._sequence - len(self._kept)
            for number, payload in [*islice(self._kept, max(0, first - oldest), None)]:
                await replay.send_multipart([asker, b"", *head, number, payload])
            await replay.send_multipart([asker, b"", *head, END_SEQUENCE, b""])

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        made = zmq.asyncio.Context.instance().socket(kind)
        self._sockets.append(made)
        if _is_v6(self._host):
            made.setsockopt(zmq.IPV6, 1)
        return made

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _bind(self, bound: zmq.asyncio.Socket, port: int) -> int:
        """Bind and return the port that it has."""
        address = f"tcp://{join_address(self._host, port)}"
        for attempt in range(1, _BIND_ATTEMPTS + 1):
            try:
                bound.bind(address)
                break
            except zmq.ZMQError as error:
                if attempt == _BIND_ATTEMPTS or error.errno != zmq.EADDRINUSE:
                    raise OSError(error.errno, f"cannot bind {address} for KV events: {error.strerror}") from error
                await asyncio.sleep(_BIND_PAUSE_S)
        return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
