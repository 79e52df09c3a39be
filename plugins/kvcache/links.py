"""ZMQ sockets of the receiver's thread: one to each pod, one for all that push, and the short-lived ones of replays.

A socket is waited for by its file descriptor, which tells of changes only: it is read until it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from plugins.kvcache.events import MAX_PAYLOAD_BYTES
from plugins.kvcache.sequence import END

HIGH_WATER = 100_000
"""Messages that libzmq keeps of each publisher; its own 1,000 is less than an engine says in a second."""
RECONNECT_MS, MAX_RECONNECT_MS = 100, 5_000
_NUMBER_BYTES = 8

Frames = Sequence[bytes]


class Link:
    """A socket that is read.

    Args:
        raw: the socket.
        name: for counts; a pod, or "" for the central socket.
        read: takes a message's frames.
    """

    def __init__(self, raw: zmq.Socket[bytes], name: str, read: Callable[[Frames], None]) -> None:
        self.socket = raw
        self.name = name
        self.read = read
        self.fd = int(raw.getsockopt(zmq.FD))
        self._monitor: zmq.Socket[bytes] | None = None
        self.connections = 0
        """Times that a connection was made."""
        self.is_connected = False

    def drain(self, most: int) -> bool:
        """Read up to ``most`` messages; False if none is left.

        Raises:
            zmq.ZMQError: the socket failed.
        """
        for _ in range(most):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self.read(frames)
            if self.socket.closed:
                return False
        return True

    def watch(self) -> Link:
        """A link that tells of this one's connections."""
        monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._monitor = monitor
        return Link(monitor, self.name, self._connection_changed)

    def close(self) -> None:
        """Close the socket at once."""
        if self._monitor is not None:
            self.socket.disable_monitor()
        self.socket.close(linger=0)

    def _connection_changed(self, frames: Frames) -> None:
        event = int(parse_monitor_message(list(frames))["event"])
        self.is_connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        self.connections += self.is_connected


def subscriber(context: zmq.Context[Any], topic_filter: str) -> zmq.Socket[bytes]:
    """A socket for messages whose topic begins so."""
    raw: zmq.Socket[bytes] = context.socket(zmq.SUB)
    _bound(raw)
    raw.setsockopt(zmq.SUBSCRIBE, topic_filter.encode())
    return raw


def replay_request(context: zmq.Context[Any], address: str, start: int) -> zmq.Socket[bytes]:
    """A socket that has asked a publisher for its messages from ``start`` on."""
    raw: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    _bound(raw)
    raw.connect(address)
    raw.send_multipart([b"", start.to_bytes(_NUMBER_BYTES, "big")], zmq.NOBLOCK)
    return raw


def published(frames: Frames) -> tuple[bytes, int, bytes] | None:
    """Topic, number and payload of a message; None if it is none."""
    if len(frames) != 3 or len(frames[1]) != _NUMBER_BYTES:
        return None
    return frames[0], int.from_bytes(frames[1], "big"), frames[2]


def replayed(frames: Frames) -> tuple[int, bytes] | None:
    """Number and payload of a message that is sent again, ``END`` behind the last one; None if it is none.

    vLLM adds the topic since 0.26.
    """
    parts = frames[1:] if frames and not frames[0] else frames
    if not parts:
        return None
    if not parts[-1]:
        return END, b""
    number = parts[-2] if len(parts) in (2, 3) else b""
    return (int.from_bytes(number, "big"), parts[-1]) if len(number) == _NUMBER_BYTES else None


def _bound(raw: zmq.Socket[bytes]) -> None:
    """What every socket has: bounds, and no work when it is closed."""
    raw.setsockopt(zmq.RCVHWM, HIGH_WATER)
    raw.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)
    raw.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    raw.setsockopt(zmq.RECONNECT_IVL_MAX, MAX_RECONNECT_MS)
    raw.setsockopt(zmq.LINGER, 0)
    raw.setsockopt(zmq.IPV6, 1)
    raw.setsockopt(zmq.TCP_KEEPALIVE, 1)
    raw.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
