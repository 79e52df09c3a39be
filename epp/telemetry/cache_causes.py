"""The likely cause of a mismatch between predicted and reported cached prefixes, in words.

What only the producer can know, such as events that were lost, it says itself (``ExplainsMismatch``).
"""

from __future__ import annotations

from typing import NamedTuple

from epp.framework.interfaces import CacheMismatch


class Facts(NamedTuple):
    """What is known beside the mismatch."""

    index_block_tokens: int = 0
    """Tokens per block of the index; 0 = it never had a match here."""
    engine_block_tokens: int = 0
    """What the server tells; 0 = it does not."""
    only_chats: bool = False
    """Prompts that no template renders are predicted rightly."""
    only_here: bool = False
    """Other endpoints are predicted rightly."""


def likely_cause(mismatch: CacheMismatch, facts: Facts) -> str:
    """One sentence, the most likely cause first."""
    if facts.only_chats:
        return "chat template: chats are rendered otherwise by the server than by the picker; other prompts agree"
    if facts.index_block_tokens and facts.engine_block_tokens % (facts.index_block_tokens or 1):
        return (
            f"block size: the index has blocks of {facts.index_block_tokens} tokens, the server of "
            f"{facts.engine_block_tokens}; make them equal"
        )
    return _HERE[mismatch] if facts.only_here else _EVERYWHERE[mismatch]


_OTHERS_SEND = "or others than this picker send requests there"
_HERE = {
    CacheMismatch.NO_HITS: "cache disabled: this server reports no hit where others do; see its prefix caching flags",
    CacheMismatch.UNFORESEEN: f"wrong topic or lost events: only of this server nothing is known; {_OTHERS_SEND}",
    CacheMismatch.TOO_MANY: "lost events, or a smaller cache: this server has forgotten what is still held to be cached",
    CacheMismatch.TOO_FEW: f"lost events: a part of what this server has cached is not known; {_OTHERS_SEND}",
}
_EVERYWHERE = {
    CacheMismatch.NO_HITS: "cache disabled: no server reports a hit; see their prefix caching flags",
    CacheMismatch.UNFORESEEN: f"hash seed or algorithm, block size or topic: nothing cached is recognized; {_OTHERS_SEND}",
    CacheMismatch.TOO_MANY: "lost events, or smaller caches: servers have forgotten what is still held to be cached",
    CacheMismatch.TOO_FEW: f"block size or lost events: a part of what servers have cached is not known; {_OTHERS_SEND}",
}
