"""Engines as far as their KV events go: a PUB socket, and a ROUTER socket that replays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import zmq

from plugins.kvcache.sequence import END

WAIT_S = 20.0


class Publisher:
    """Publishes numbered messages once somebody has subscribed.

    Args:
        address: bound if it ends with ``:0``, else connected to.
        topic: of its messages.
    """

    def __init__(self, address: str = "tcp://127.0.0.1:0", topic: str = "") -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, 100_000)  # as engines have it
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
        self._socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # one that subscribes before another has left is told of, too
        self._topic = topic.encode()
        self.number = 0
        if address.endswith(":0"):
            self._socket.bind(address)
            self.port = int(self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").rpartition(b":")[2])
        else:
            self._socket.connect(address)
            self.port = 0

    def subscribed(self) -> bytes:
        """Wait for a subscription, whoever left before; its prefix."""
        message: bytes = self._socket.recv()
        while message[0] != 1:
            message = self._socket.recv()
        return message[1:]

    def send(self, *payloads: bytes) -> None:
        """Publish."""
        for payload in payloads:
            self.send_frames([self._topic, self.number.to_bytes(8, "big"), payload])
            self.number += 1

    def send_frames(self, frames: Sequence[bytes]) -> None:
        """Publish whatever it is."""
        self._socket.send_multipart(list(frames))

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)


class Replayer:
    """Answers replay requests from a list of payloads, in a thread.

    Args:
        ring: payloads by number.
        layout: ``old`` sends number and payload, ``new`` the topic in front.
    """

    def __init__(self, ring: dict[int, bytes], layout: str = "old") -> None:
        self.ring = ring
        self.asked: list[int] = []
        self._layout = layout
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("tcp://127.0.0.1:0")
        self.port = int(self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").rpartition(b":")[2])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                identity, empty, start = self._socket.recv_multipart()
                first = int.from_bytes(start, "big")
                self.asked.append(first)
                topic = [b"kv@p@m"] if self._layout == "new" else []
                for number, payload in sorted(self.ring.items()):
                    if number >= first:
                        self._socket.send_multipart([identity, empty, *topic, number.to_bytes(8, "big"), payload])
                self._socket.send_multipart([identity, empty, *topic, END.to_bytes(8, "big"), b""])
        except zmq.ZMQError:
            pass
        finally:
            self._socket.close(linger=0)

    def close(self) -> None:
        """Leave."""
        threading.Thread(target=self._context.term, daemon=True).start()
        self._thread.join(WAIT_S)


@contextmanager
def publisher(*args: Any, **options: Any) -> Iterator[Publisher]:
    """A publisher that is closed."""
    found = Publisher(*args, **options)
    try:
        yield found
    finally:
        found.close()
