"""Keys of prefixes: equal key, equal model, salt and beginning of the prompt.

``seed = xxh3_64(frames)``; ``key_i = xxh3_64(LE64(content_i), seed=key_{i-1})`` with ``key_{-1} = seed``. A frame is the length
of a value as 32 bits and the value, so that no two sets of values give the same bytes. The same in every process and version.

What is hashed by itself is a unit of 16 tokens, where the size of blocks is a multiple of that, and the key of a block is that
of its last unit: so that bodies can be hashed before anybody knows the size of the engines' blocks.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from epp.framework.prompt_blocks import Buffer, content_hashes, unpack

__all__ = ["KEY_BYTES", "Buffer", "chain", "content_hashes", "packed_keys", "seed", "utf8"]

KEY_BYTES = 8
TOKEN_BYTES = 4
_TOKENS = b"tokens"


def seed(model: str, salt: str = "", *, is_tokens: bool = False, template_hash: int = 0) -> int:
    """Where the chain of a prompt begins.

    Args:
        model: name that is sent to the model server: an adapter has a cache of its own.
        salt: ``cache_salt`` of the request.
        is_tokens: the blocks are of token ids; their keys never meet those of text.
        template_hash: of what changes a prompt as a whole; 0 = nothing.
    """
    return _seed(utf8(model), utf8(salt), is_tokens, template_hash)


def utf8(text: str) -> bytes:
    """As names are hashed: half a surrogate pair, which a client may send, counts too."""
    return text.encode("utf-8", "surrogatepass")


def _seed(model: bytes, salt: bytes, is_tokens: bool, template_hash: int) -> int:
    frames = _frame(model) + _frame(salt)
    if is_tokens:
        frames += _frame(_TOKENS)
    if template_hash:
        frames += _frame(template_hash.to_bytes(8, "little"))
    return xxh3_64_intdigest(frames)


def chain(seed: int, contents: Buffer, stride: int = 1) -> bytes:
    """The keys of a prompt's prefixes, the shortest first, as 64 bits little endian.

    Args:
        seed: of the prompt.
        contents: hashes of its units, eight bytes each.
        stride: units of a block, which has one key; what is less than a block has none.
    """
    view = memoryview(contents).cast("B")
    keys = []
    key = seed
    for number in range(1, len(view) // KEY_BYTES // stride * stride + 1):
        key = xxh3_64_intdigest(view[(number - 1) * KEY_BYTES : number * KEY_BYTES], key)
        if not number % stride:
            keys.append(key)
    return struct.pack(f"<{len(keys)}Q", *keys)


def packed_keys(
    packed: bytes, model: bytes, salt: bytes, unit_bytes: int, stride: int, max_blocks: int
) -> tuple[bytes, ...] | None:
    """The keys of packed prompts (``framework.prompt_blocks``), of each that has a whole block.

    Args:
        model: as for ``seed``, UTF-8.
        salt: the same.
        unit_bytes: of what each hash is of.
        stride: units of a block.
        max_blocks: of each prompt; 0 = all.

    Returns:
        None if fewer units were hashed than that takes.

    Raises:
        ValueError: ``packed`` is cut off or goes on behind its end.
    """
    blocks, found = unpack(packed), []
    for prompt in blocks.prompts:
        wanted = prompt.length * (TOKEN_BYTES if prompt.is_tokens else 1) // unit_bytes // stride
        wanted = (min(wanted, max_blocks) if max_blocks else wanted) * stride
        if len(prompt.contents) < wanted * KEY_BYTES:
            return None
        if wanted:
            start = _seed(model, salt, prompt.is_tokens, blocks.template_hash)
            found.append(chain(start, prompt.contents[: wanted * KEY_BYTES], stride))
    return tuple(found)


def _frame(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value
