"""What a simulated model says: Latin-like words, four bytes to a token, the same for the same seed and prompt."""

from __future__ import annotations

import random
import zlib
from functools import cache

from epp.simulate.blocks import BYTES_PER_TOKEN

_LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua "
    "enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute irure in "
    "reprehenderit voluptate velit esse cillum eu fugiat nulla pariatur excepteur sint occaecat cupidatat non proident sunt "
    "culpa qui officia deserunt mollit anim id est laborum"
)
_SENTENCES = 2000
_MIX = 0x9E3779B1
"""Knuth's multiplier: spreads checksums that differ in few bits over the whole range."""


class Speaker:
    """Produces answers.

    Args:
        seed: another seed says other things.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._text, self._starts = _corpus()

    def answer(self, prompt: bytes, tokens: int, variant: int = 0) -> bytes:
        """Text of exactly ``tokens`` tokens: letters, spaces and full stops, so it needs no escaping in JSON.

        Args:
            prompt: decides what is said.
            tokens: length of the answer.
            variant: tells several answers to one prompt apart.
        """
        mixed = (zlib.crc32(prompt, self._seed & 0xFFFFFFFF) + variant) * _MIX & 0xFFFFFFFF
        start = self._starts[mixed * len(self._starts) >> 32]
        size = tokens * BYTES_PER_TOKEN
        text = self._text[start : start + size]
        while len(text) < size:
            text += self._text[: size - len(text)]
        return text


@cache
def _corpus() -> tuple[bytes, tuple[int, ...]]:
    """Some 120 KB of sentences, the same in each process, and where each of them begins."""
    rng = random.Random(0)
    words = _LOREM.split()
    sentences: list[str] = []
    starts: list[int] = []
    size = 0
    for _ in range(_SENTENCES):
        sentence = " ".join(rng.choices(words, k=rng.randint(5, 14))).capitalize() + ". "
        starts.append(size)
        size += len(sentence)
        sentences.append(sentence)
    return "".join(sentences).encode(), tuple(starts)
