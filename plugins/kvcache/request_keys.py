"""Keys of a prompt's blocks: a chain of hashes, so that equal keys mean equal prefixes.

The same function makes them from the tokens of a prompt and from those of an engine's events, whatever the engine's own hashes
are. ``FastChain`` is for indexes of this process; the other two are llm-d's, for an index in Redis that Go pickers share.
Source of these: llm-d-router: pkg/kvcache/kvblock/token_processor.go, extra_keys.go.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from xxhash import xxh3_64_intdigest, xxh64_intdigest

from plugins.kvcache.events import Features

TOKEN_BYTES = 4
_FNV_OFFSET, _FNV_PRIME, _WORD = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


class KeyChain(Protocol):
    """Makes keys, each from the key in front of it, the tokens of its block, and the block's features."""

    def seed(self, identity: str) -> int:
        """What stands in front of the first block.

        Args:
            identity: of the model or adapter whose cache it is.
        """
        ...

    def extend(self, parent: int, tokens: bytes, block_size: int, features: Sequence[Features] = ()) -> list[int]:
        """The keys of all whole blocks.

        Args:
            parent: key of the block in front, or a seed.
            tokens: as ``token_bytes`` gives them.
            block_size: tokens of a block.
            features: of each block; those behind the last entry have none.
        """
        ...


class FastChain:
    """``key = xxh3(tokens ‖ framed features, seed = key in front)``.

    Args:
        hash_seed: keys of different seeds differ.
    """

    def __init__(self, hash_seed: str = "") -> None:
        self._hash_seed = hash_seed

    def seed(self, identity: str) -> int:
        """Framed, so that no seed and identity run into each other."""
        return xxh3_64_intdigest(_framed(self._hash_seed) + _framed(identity))

    def extend(self, parent: int, tokens: bytes, block_size: int, features: Sequence[Features] = ()) -> list[int]:
        """The keys of all whole blocks."""
        width = block_size * TOKEN_BYTES
        keys = []
        key = parent
        for index, start in enumerate(range(0, len(tokens) - width + 1, width)):
            block = tokens[start : start + width]
            if index < len(features) and features[index]:
                block += b"".join(map(_framed, features[index]))
            key = xxh3_64_intdigest(block, key)
            keys.append(key)
        return keys


class Xxh64Chain:
    """llm-d's ``xxh64``: ``key = xxh64(LE64(key in front) ‖ tokens ‖ framed features)``."""

    def __init__(self, hash_seed: str = "") -> None:
        self._init = xxh64_intdigest(hash_seed.encode())

    def seed(self, identity: str) -> int:
        """Of the seed's hash and the framed name."""
        return xxh64_intdigest(_le64(self._init) + _framed64(identity))

    def extend(self, parent: int, tokens: bytes, block_size: int, features: Sequence[Features] = ()) -> list[int]:
        """The keys of all whole blocks."""

        def step(key: int, block: bytes, extras: Features) -> int:
            return xxh64_intdigest(_le64(key) + block + b"".join(map(_framed64, extras)))

        return _chained(step, parent, tokens, block_size, features)


class CborFnvChain:
    """llm-d's default, ``cbor-fnv``: ``key = FNV-1a(CBOR([key in front, tokens, features]))``.

    Takes some 7 us a block.

    Raises:
        ImportError: the extra kv-events is not installed.
    """

    def __init__(self, hash_seed: str = "") -> None:
        from cbor2 import dumps

        self._dumps: Callable[..., bytes] = dumps
        self._init = _fnv1a(hash_seed.encode())

    def seed(self, identity: str) -> int:
        """A block without tokens, whose feature is the name."""
        return _fnv1a(self._dumps([self._init, None, identity], canonical=True))

    def extend(self, parent: int, tokens: bytes, block_size: int, features: Sequence[Features] = ()) -> list[int]:
        """The keys of all whole blocks."""

        def step(key: int, block: bytes, extras: Features) -> int:
            marks = [{"Hash": feature} for feature in extras] or None
            return _fnv1a(self._dumps([key, _ids(block), marks], canonical=True))

        return _chained(step, parent, tokens, block_size, features)


def token_bytes(ids: Sequence[int]) -> bytes:
    """Tokens as four bytes each, little-endian.

    Raises:
        OverflowError: one does not fit.
    """
    words = ids if isinstance(ids, array) and ids.typecode == "I" else array("I", ids)
    if sys.byteorder == "big":
        words = array("I", words)
        words.byteswap()
    return words.tobytes()


def _chained(
    step: Callable[[int, bytes, Features], int], parent: int, tokens: bytes, block_size: int, features: Sequence[Features]
) -> list[int]:
    width = block_size * TOKEN_BYTES
    keys = []
    key = parent
    for index, start in enumerate(range(0, len(tokens) - width + 1, width)):
        key = step(key, tokens[start : start + width], features[index] if index < len(features) else ())
        keys.append(key)
    return keys


def _ids(block: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(block) // TOKEN_BYTES}I", block))


def _fnv1a(data: bytes) -> int:
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _WORD
    return value


def _framed(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(4, "little") + encoded


def _framed64(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return _le64(len(encoded)) + encoded


def _le64(value: int) -> bytes:
    return value.to_bytes(8, "little")
