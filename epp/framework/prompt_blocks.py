"""The hashes of the blocks of a request's prompts.

A block is hashed by itself, while nobody knows the model yet; model and chain are applied once that is decided, where the
blocks of a prompt become the keys of its prefixes.

Packed form, little endian: ``u64`` hash of the template's members, ``u32`` number of prompts; then for each prompt ``u8``
basis (0 text, 1 token ids), ``u32`` length of the whole prompt in bytes or tokens, ``u32`` number of blocks, as many ``u64``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson
from xxhash import xxh3_64_intdigest

from epp.framework.canonical_prompt import Prompt, prompts_of, template_of
from epp.framework.types import Json

Buffer = bytes | bytearray | memoryview

_HEAD = struct.Struct("<QI")
_PROMPT = struct.Struct("<BII")


class HashedPrompt(NamedTuple):
    """What is known of a prompt once its blocks are hashed."""

    is_tokens: bool
    length: int
    """Of the whole prompt, in bytes of text or in tokens."""
    contents: memoryview | bytes
    """Hashes of its first blocks, eight bytes each."""


class PromptBlocks(NamedTuple):
    """The packed form, read."""

    template_hash: int
    """0 = the request says nothing of its template."""
    prompts: tuple[HashedPrompt, ...]


NO_BLOCKS = PromptBlocks(0, ())


def prompt_blocks(document: Mapping[str, Json], block_bytes: int, max_blocks: int = 0) -> bytes:
    """The prompts of a document, hashed and packed.

    Args:
        document: a parsed request body.
        block_bytes: size of a block; token ids take four each.
        max_blocks: blocks of each prompt that are hashed; 0 = all.

    Returns:
        b"" if the document holds what no JSON text can hold.
    """
    try:
        prompts = list(prompts_of(document))
        template = hash_template(template_of(document))
    except (TypeError, UnicodeEncodeError):  # of orjson.dumps: too deep, or a lone surrogate; of str.encode: the latter
        return b""
    return pack(template, prompts, block_bytes, max_blocks)


def body_blocks(body: Buffer, block_bytes: int, max_blocks: int = 0) -> bytes:
    """``prompt_blocks`` of a request body; b"" if it is no JSON object, or no valid Unicode."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return b""
    return prompt_blocks(document, block_bytes, max_blocks) if isinstance(document, dict) else b""


def hash_template(members: bytes) -> int:
    """The hash of what ``template_of`` gives; 0 for nothing."""
    return xxh3_64_intdigest(members) if members else 0


def pack(template_hash: int, prompts: Sequence[Prompt], block_bytes: int, max_blocks: int = 0) -> bytes:
    """The packed form of prompts, as ``prompt_blocks`` gives it."""
    parts = [_HEAD.pack(template_hash, len(prompts))]
    for prompt in prompts:
        contents = content_hashes(prompt.data, block_bytes, max_blocks)
        parts += (_PROMPT.pack(prompt.is_tokens, prompt.length, len(contents) // 8), contents)
    return b"".join(parts)


def unpack(packed: Buffer) -> PromptBlocks:
    """Read the packed form; b"" holds no prompt.

    Raises:
        ValueError: it is cut off.
    """
    if not packed:
        return NO_BLOCKS
    view = memoryview(packed)
    try:
        template_hash, count = _HEAD.unpack_from(view)
        at = _HEAD.size
        prompts = []
        for _ in range(count):
            basis, length, blocks = _PROMPT.unpack_from(view, at)
            at += _PROMPT.size
            prompts.append(HashedPrompt(bool(basis), length, view[at : at + 8 * blocks]))
            at += 8 * blocks
    except struct.error as error:
        raise ValueError(f"packed prompt blocks are cut off: {error}") from error
    if at != len(view):
        raise ValueError(f"packed prompt blocks have {len(view)} bytes, {at} are expected")
    return PromptBlocks(template_hash, tuple(prompts))


def content_hashes(data: Buffer, block_bytes: int, max_blocks: int = 0) -> bytes:
    """xxh3_64 of each whole block of ``data``, as 64 bits little endian.

    Args:
        max_blocks: blocks that are hashed; 0 = all.
    """
    view = memoryview(data).cast("B")
    count = len(view) // block_bytes
    if max_blocks:
        count = min(count, max_blocks)
    starts = range(0, count * block_bytes, block_bytes)
    return struct.pack(f"<{count}Q", *[xxh3_64_intdigest(view[start : start + block_bytes]) for start in starts])
