"""What the parameters of every generation come down to."""

from __future__ import annotations

from dataclasses import dataclass

from epp.framework.prompt import BYTES_PER_TOKEN

DEFAULT_BLOCK_TOKENS = 16
UNIT_TOKENS = 16
"""What is hashed by itself; blocks of other sizes than multiples of it are hashed as a whole."""
DEFAULT_CAPACITY = 31250
"""500,000 tokens in blocks of 16."""
DEFAULT_TOTAL_ENTRIES = 5_000_000


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How an index of prefixes is kept."""

    block_tokens: int = DEFAULT_BLOCK_TOKENS
    """Tokens per block where the engines do not say."""
    max_blocks: int = 256
    """Blocks of a prompt that are looked at; 0 = all."""
    max_tokens: int = 0
    """The same in tokens; wins unless it is 0."""
    capacity: int = DEFAULT_CAPACITY
    """Blocks of an endpoint where its engine does not say."""
    auto_tune: bool = True
    """Block size and capacity are those of the engines."""
    total_entries: int = DEFAULT_TOTAL_ENTRIES
    """Blocks of all endpoints together; 0 = no such bound."""

    def unit_tokens(self, block_tokens: int) -> int:
        """What is hashed by itself if blocks have so many tokens."""
        return block_tokens if block_tokens % UNIT_TOKENS else UNIT_TOKENS

    def cap(self, block_tokens: int) -> int:
        """Blocks of a prompt that are looked at if each has ``block_tokens``; 0 = all."""
        return max(1, self.max_tokens // block_tokens) if self.max_tokens else self.max_blocks

    def enough_for_tokens(self, block_tokens: int) -> int | None:
        """The longest prompt for whose blocks, if each has so many tokens, the reader hashes enough; None = any."""
        if self.unit_tokens(block_tokens) != self.unit_tokens(self.block_tokens):
            return 0
        read, wanted = self.cap(self.block_tokens) * self.block_tokens, self.cap(block_tokens) * block_tokens
        return read if read < wanted else None

    @property
    def reader(self) -> str:
        """The request reader that hashes what the blocks of these settings consist of."""
        unit = self.unit_tokens(self.block_tokens)
        return f"prompt-blocks/{unit * BYTES_PER_TOKEN}/{self.cap(self.block_tokens) * self.block_tokens // unit}"
