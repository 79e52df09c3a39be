"""A subscriber of KV events that the tests read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq
import zmq.asyncio

WAIT_S = 10.0


@dataclass(frozen=True)
class Message:
    """Three frames, the last one decoded."""

    topic: str
    sequence: int
    batch: Any

    @property
    def events(self) -> list[Any]:
        """Of a batch that is a map."""
        events: list[Any] = self.batch["events"]
        return events


def message(frames: list[bytes]) -> Message:
    topic, sequence, payload = frames
    assert len(sequence) == 8
    return Message(topic.decode(), int.from_bytes(sequence, "big"), msgspec.msgpack.decode(payload))


class Subscriber:
    """A SUB socket."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket

    async def next(self) -> Message:
        """The next message; fails after a while."""
        return message(await asyncio.wait_for(self._socket.recv_multipart(), WAIT_S))

    def bind(self) -> str:
        """Let publishers connect; returns where."""
        self._socket.bind("tcp://127.0.0.1:*")
        return str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))


@asynccontextmanager
async def subscriber(endpoint: str | None = None, topic: str = "") -> AsyncIterator[Subscriber]:
    """Subscribe at a publisher, or to what will connect if ``endpoint`` is None and `Subscriber.bind` is called."""
    socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
    try:
        socket.subscribe(topic)
        if endpoint is not None:
            socket.connect(endpoint)
        yield Subscriber(socket)
    finally:
        socket.close(linger=0)


async def replay(endpoint: str, start: int) -> list[list[bytes]]:
    """Ask for past batches; the frames of each part of the answer after the empty one."""
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    try:
        socket.connect(endpoint)
        await socket.send_multipart([b"", start.to_bytes(8, "big")])
        answers = []
        while True:
            empty, *frames = await asyncio.wait_for(socket.recv_multipart(), WAIT_S)
            assert empty == b""
            answers.append(frames)
            if not frames[-1]:
                return answers
    finally:
        socket.close(linger=0)
