"""Protobuf messages and gRPC frames from a few words, however odd; no generated class would write them."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A base-128 number."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def field(number: int, value: int | bytes | str) -> bytes:
    """One field: a number as varint, bytes, text or a message by length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def packed(*numbers: int) -> bytes:
    """The content of a packed list."""
    return b"".join(map(varint, numbers))


def frame(message: bytes, *, flag: int = 0) -> bytes:
    """A length-prefixed message."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def tokenized(*ids: int) -> bytes:
    """vLLM's TokenizedInput."""
    return field(2, packed(*ids))


def chunk(prompt: int = 0, completion: int = 0, cached: int = 0, token_ids: bytes = b"\x01") -> bytes:
    """vLLM's GenerateResponse with a chunk."""
    counts = [field(number, count) for number, count in ((2, prompt), (3, completion), (4, cached)) if count]
    return field(1, field(1, token_ids) + b"".join(counts))


def complete(prompt: int, completion: int, cached: int = 0) -> bytes:
    """vLLM's GenerateResponse at the end."""
    counts = [field(number, count) for number, count in ((3, prompt), (4, completion), (5, cached)) if count]
    return field(2, field(1, packed(1, 2)) + field(2, "stop") + b"".join(counts))


def http_body(data: bytes) -> bytes:
    """google.api.HttpBody."""
    return field(1, "application/json") + field(2, data)
