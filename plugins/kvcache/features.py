"""Features of blocks, where an engine's blocks and the index's differ in size.

An engine says of each of its blocks what is in it: media that overlap it, and in the first one the salt. A block of the index
has the features of all the engine's blocks that it overlaps, in order, each once. Both sides are computed here: what events
say, and what a prompt will have in the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from epp.framework.keys import MediaFeature
from plugins.kvcache.events import Features

NONE: Features = ()


def spread(
    of_engine: Sequence[Features], engine_block: int, block: int, blocks: int, head_tokens: int = 0, head: Features = NONE
) -> list[Features]:
    """The features of the index's blocks.

    Args:
        of_engine: of each of the engine's blocks, in order; those behind the last entry have none.
        engine_block, block: tokens of a block there and here.
        blocks: how many of ours there are.
        head_tokens: tokens in front of the engine's first block that belong to our first one.
        head: their features.
    """
    if not head and not any(of_engine):
        return []
    if engine_block == block and not head_tokens:
        return list(of_engine[:blocks])
    found = []
    for index in range(blocks):
        start, end = index * block - head_tokens, (index + 1) * block - head_tokens
        overlapped = of_engine[max(0, start // engine_block) : -(-end // engine_block)] if end > 0 else ()
        found.append(united(head if start < 0 else NONE, *overlapped))
    return found


def of_prompt(media: Sequence[MediaFeature], salt: str, engine_block: int, block: int, blocks: int) -> list[Features]:
    """The features that the blocks of a prompt will have; empty if none has any.

    Args:
        media: in it.
        salt: of its cache; "" = none.
        engine_block: tokens of the engine's blocks.
        block: tokens of ours.
        blocks: how many of ours there are.
    """
    if not blocks or (not media and not salt):
        return []
    of_engine: list[list[str]] = [[] for _ in range(-(-blocks * block // engine_block))]
    for item in sorted(media, key=lambda item: item.offset_tokens):
        first, last = item.offset_tokens // engine_block, (item.offset_tokens + item.length_tokens - 1) // engine_block
        for index in range(max(0, first), min(last + 1, len(of_engine))):
            of_engine[index].append(item.hash)
    if salt:
        of_engine[0].append(salt)
    return spread([tuple(features) for features in of_engine], engine_block, block, blocks)


def united(*parts: Features) -> Features:
    """All features in order, each once where it occurs in several parts."""
    filled = [part for part in parts if part]
    if len(filled) < 2:
        return filled[0] if filled else NONE
    return tuple(dict.fromkeys(feature for part in filled for feature in part))
