"""Keys as the index takes them, and both twins of what works on them."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from typing import Any

import pytest

from plugins.prefix import keys, lru_index

NATIVE: Any = None
"""The extension, if it has these twins."""
if find_spec("epp_native") is not None:
    import epp_native

    if hasattr(epp_native, "LruIndex"):
        NATIVE = epp_native


def _twins(name: str, reference: object) -> list[Any]:
    twins = [pytest.param(reference, id="python")]
    return twins if NATIVE is None else [*twins, pytest.param(getattr(NATIVE, name), id="native")]


INDEXES = _twins("LruIndex", lru_index.LruIndex)
CHAINS = _twins("chain", keys.chain)
CONTENT_HASHES = _twins("content_hashes", keys.content_hashes)


def pack(*numbers: int) -> bytes:
    """64 bits each, little endian."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def unpack(packed: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(packed) // 8}Q", packed))
