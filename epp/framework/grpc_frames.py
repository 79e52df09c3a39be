"""The frames of gRPC messages in bodies: what is in a message is read by the classes of ``epp.framework.protos``.

Source: gRPC over HTTP/2 (grpc/grpc: doc/PROTOCOL-HTTP2.md), Length-Prefixed-Message.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_MESSAGE_BYTES = 1024 * 1024
"""Longest message of a response that is kept whole; a longer one is passed over."""
_PREFIX_BYTES = 5
_NOTHING: Sequence[bytes] = ()


class FrameError(ValueError):
    """Bytes that are no frame."""


def single_message(body: memoryview) -> memoryview:
    """The message of a body that holds exactly one, not compressed.

    Raises:
        FrameError: anything else.
    """
    if len(body) < _PREFIX_BYTES:
        raise FrameError("the frame is cut off")
    if body[0] != 0:
        raise FrameError("the message is compressed")
    length = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if len(body) != _PREFIX_BYTES + length:
        raise FrameError(f"the frame announces {length} bytes and has {len(body) - _PREFIX_BYTES}")
    return body[_PREFIX_BYTES:]


class FrameReader:
    """Finds the messages of a body that comes in pieces, however they are cut.

    Compressed messages, and those longer than ``max_message_bytes``, are passed over.
    """

    __slots__ = ("_buffer", "_limit", "_skip")

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = max_message_bytes
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take the next bytes; returns the messages that end in them."""
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            data = data[passed:]
        if not data:
            return _NOTHING
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        position = 0
        while len(buffer) - position >= _PREFIX_BYTES:
            begin = position + _PREFIX_BYTES
            length = int.from_bytes(buffer[position + 1 : begin], "big")
            end = begin + length
            if length > self._limit:
                self._skip = max(end - len(buffer), 0)
            elif end > len(buffer):
                break
            elif buffer[position] == 0:
                found.append(bytes(buffer[begin:end]))
            position = min(end, len(buffer))
        del buffer[:position]
        return found
