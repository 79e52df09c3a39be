"""The functions and the index of this package: native where the extension has them, chosen once."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from plugins.prefix import keys, lru_index
from plugins.prefix.keys import Buffer


class PrefixIndex(Protocol):
    """As ``lru_index.LruIndex``."""

    def add(self, slot: int, keys: Buffer, capacity: int) -> None: ...
    def match(self, keys: Buffer) -> list[tuple[int, int]]: ...
    def clear(self, slot: int) -> None: ...
    def size(self, slot: int) -> int: ...
    def keys(self) -> int: ...
    def __len__(self) -> int: ...


class ContentHashes(Protocol):
    """As ``keys.content_hashes``."""

    def __call__(self, data: Buffer, block_bytes: int, max_blocks: int) -> bytes: ...


class Chain(Protocol):
    """As ``keys.chain``."""

    def __call__(self, seed: int, contents: Buffer, stride: int = 1) -> bytes: ...


class PackedKeys(Protocol):
    """As ``keys.packed_keys``."""

    def __call__(
        self, packed: bytes, model: bytes, salt: bytes, unit_bytes: int, stride: int, max_blocks: int
    ) -> tuple[bytes, ...] | None: ...


def _extension() -> Any:
    try:
        return import_module("epp_native")
    except ImportError:
        return None


_native = _extension()
_HAS_TWINS = all(hasattr(_native, name) for name in ("LruIndex", "chain", "content_hashes", "packed_keys"))

content_hashes: ContentHashes = _native.content_hashes if _HAS_TWINS else keys.content_hashes
chain: Chain = _native.chain if _HAS_TWINS else keys.chain
packed_keys: PackedKeys = _native.packed_keys if _HAS_TWINS else keys.packed_keys

SLICE_BLOCKS: int | None = None if _HAS_TWINS else 1024
"""Blocks that are hashed or chained in one go, some 0.4 ms in Python; None = all of them."""

READS_BODIES = hasattr(_native, "prompt_blocks")
"""Bodies are read by the transport, off the event loop. Without the extension that would decode them a second time there."""


def make_index() -> PrefixIndex:
    """An empty index."""
    made: PrefixIndex = _native.LruIndex() if _HAS_TWINS else lru_index.LruIndex()
    return made
