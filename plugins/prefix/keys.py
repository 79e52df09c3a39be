"""Keys of prefixes: equal key, equal model, salt and beginning of the prompt.

``seed = xxh3_64(frames)``; ``key_i = xxh3_64(LE64(content_i), seed=key_{i-1})`` with ``key_{-1} = seed``. A frame is the length
of a value as 32 bits and the value, so that no two sets of values give the same bytes. The same in every process and version.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from epp.framework.prompt_blocks import Buffer, content_hashes

__all__ = ["KEY_BYTES", "Buffer", "chain", "content_hashes", "seed"]

KEY_BYTES = 8
_TOKENS = b"tokens"


def seed(model: str, salt: str = "", *, is_tokens: bool = False, template_hash: int = 0) -> int:
    """Where the chain of a prompt begins.

    Args:
        model: name that is sent to the model server: an adapter has a cache of its own.
        salt: ``cache_salt`` of the request.
        is_tokens: the blocks are of token ids; their keys never meet those of text.
        template_hash: of what changes a prompt as a whole; 0 = nothing.
    """
    frames = _frame(_utf8(model)) + _frame(_utf8(salt))
    if is_tokens:
        frames += _frame(_TOKENS)
    if template_hash:
        frames += _frame(template_hash.to_bytes(8, "little"))
    return xxh3_64_intdigest(frames)


def chain(seed: int, contents: Buffer) -> bytes:
    """The keys of a prompt's prefixes, the shortest first, as 64 bits little endian.

    Args:
        seed: of the prompt.
        contents: hashes of its blocks, eight bytes each.
    """
    view = memoryview(contents).cast("B")
    keys = []
    key = seed
    for start in range(0, len(view), KEY_BYTES):
        key = xxh3_64_intdigest(view[start : start + KEY_BYTES], key)
        keys.append(key)
    return struct.pack(f"<{len(keys)}Q", *keys)


def _frame(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
