"""gRPC frames and protobuf fields, read without generated classes: a few fields of a few messages are all that is needed.

Source: gRPC over HTTP/2 (grpc/grpc: doc/PROTOCOL-HTTP2.md), Length-Prefixed-Message; protobuf.dev, Encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MAX_MESSAGE_BYTES = 1024 * 1024
"""Longest message of a response that is kept whole; a longer one is passed over."""
_PREFIX_BYTES = 5
_MAX_VARINT_BYTES = 10
_LAST_SHIFT = 7 * (_MAX_VARINT_BYTES - 1)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_UINT32 = 0xFFFFFFFF
_NOTHING: Sequence[bytes] = ()


class WireError(ValueError):
    """Bytes that are no frame, or no protobuf message."""


def single_message(body: memoryview) -> memoryview:
    """The message of a body that holds exactly one, not compressed.

    Raises:
        WireError: anything else.
    """
    if len(body) < _PREFIX_BYTES:
        raise WireError("the frame is cut off")
    if body[0] != 0:
        raise WireError("the message is compressed")
    length = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if len(body) != _PREFIX_BYTES + length:
        raise WireError(f"the frame announces {length} bytes and has {len(body) - _PREFIX_BYTES}")
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


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a protobuf message in wire order: number and value.

    The value of a varint or fixed field is a non-negative int, that of strings, bytes, messages and packed lists a memoryview.

    Raises:
        WireError: it is cut off, or no protobuf message.
    """
    position, size = 0, len(message)
    while position < size:
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError("a field has the number 0")
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _LENGTH:
            length, position = _varint(message, position)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise WireError(f"field {number} has the wire type {kind}")
        end = position + length
        if end > size:
            raise WireError(f"field {number} is cut off")
        content = message[position:end]
        yield number, content if kind == _LENGTH else int.from_bytes(content, "little")
        position = end


def packed_uint32(data: memoryview) -> list[int]:
    """The numbers of a packed ``repeated uint32``.

    Raises:
        WireError: one is too long, or the last one is cut off.
    """
    raw = bytes(data)
    if raw.isascii():
        return list(raw)
    if raw[-1] & 0x80:
        raise WireError("a packed list is cut off")
    numbers: list[int] = []
    add = numbers.append
    following = iter(raw)
    for first in following:  # prompts have up to some 100,000 ids, and vocabularies fit three bytes: one turn for each id
        if first < 0x80:
            add(first)
            continue
        second = next(following)
        if second < 0x80:
            add(first & 0x7F | second << 7)
            continue
        third = next(following)
        value = first & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14
        shift = 21
        while third >= 0x80:
            if shift > _LAST_SHIFT:
                raise WireError("a number of a packed list is too long")
            third = next(following)
            value |= (third & 0x7F) << shift
            shift += 7
        add(value & _UINT32)
    return numbers


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number that begins at ``position``, and where it ends."""
    value = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise WireError("a number is cut off or too long")
