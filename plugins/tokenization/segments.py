"""Tokens of conversations, remembered turn by turn: a new turn costs its own tokenization, not that of all before it.

A tokenizer cuts a text at its special tokens before anything else, and treats what lies between two of them by itself. So a
text that is cut in front of special tokens gives, piece by piece, exactly the tokens of the whole. Only special tokens are used
that no other added token overlaps, as only these are found by looking for their text.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xxhash import xxh3_128_digest

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

NO_IDS: Sequence[int] = array("I")


class SegmentStore:
    """Tokens of pieces of texts, those that were used longest ago leaving first. For several threads.

    Args:
        most_blocks: of text.
        block_bytes: of a block; a piece takes whole ones.
    """

    def __init__(self, most_blocks: int, block_bytes: int) -> None:
        self._most = most_blocks
        self._block_bytes = block_bytes
        self._used = 0
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, tuple[int, array[int]]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    @property
    def blocks(self) -> int:
        """Of all texts."""
        return self._used

    def get(self, key: bytes) -> array[int] | None:
        """The tokens of a piece."""
        with self._lock:
            found = self._tokens.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._tokens.move_to_end(key)
            return found[1]

    def put(self, key: bytes, size_bytes: int, ids: array[int]) -> None:
        """Remember a piece, unless it is larger than all."""
        blocks = -(-size_bytes // self._block_bytes)
        if blocks > self._most:
            return
        with self._lock:
            old = self._tokens.pop(key, None)
            self._used += blocks - (old[0] if old is not None else 0)
            self._tokens[key] = blocks, ids
            while self._used > self._most:
                _, (freed, _) = self._tokens.popitem(last=False)
                self._used -= freed


class SegmentedTokenizer:
    """Tokenizes with a store.

    Args:
        tokenizer: of the model.
        store: of this tokenizer alone.
        least_known: share of a text, from its beginning, that must be known for the store to be used.
    """

    def __init__(self, tokenizer: Tokenizer, store: SegmentStore, least_known: float) -> None:
        self._tokenizer = tokenizer
        self._store = store
        self._least_known = least_known
        marks = sorted(cut_marks(list(tokenizer.get_added_tokens_decoder().values())), key=len, reverse=True)
        self._cut = re.compile(f"(?={'|'.join(map(re.escape, marks))})") if marks else None

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a text without special tokens around it, equal to those of the whole."""
        pieces = [piece for piece in self._cut.split(text) if piece] if self._cut is not None else [text]
        encoded = [piece.encode("utf-8", "surrogatepass") for piece in pieces]
        # The first piece stands at the beginning, which some tokenizers treat otherwise.
        keys = [xxh3_128_digest(data, seed=index == 0) for index, data in enumerate(encoded)]
        known = [self._store.get(key) for key in keys]
        if self._known_bytes(encoded, known) < self._least_known * sum(map(len, encoded)):
            known = [None] * len(pieces)
        missing = [index for index, ids in enumerate(known) if ids is None]
        made = self._tokenizer.encode_batch([pieces[index] for index in missing], add_special_tokens=False)
        for index, encoding in zip(missing, made, strict=True):
            known[index] = fresh = array("I", encoding.ids)
            self._store.put(keys[index], len(encoded[index]), fresh)
        whole = array("I")
        for ids in known:
            assert ids is not None
            whole += ids
        return whole

    @staticmethod
    def _known_bytes(encoded: Sequence[bytes], known: Sequence[Sequence[int] | None]) -> int:
        total = 0
        for data, ids in zip(encoded, known, strict=True):
            if ids is None:
                break
            total += len(data)
        return total


def cut_marks(added: Sequence[AddedToken]) -> list[str]:
    """The special tokens in front of which a text may be cut."""
    contents = [token.content for token in added]
    return [
        token.content
        for token in added
        if token.special
        and not token.normalized
        and not token.lstrip
        and not token.single_word
        and token.content
        and not token.content[0].isalnum()
        and not any(_hides(other, token.content) for other in contents if other != token.content)
    ]


def _hides(other: str, mark: str) -> bool:
    """A match of ``other`` can begin in front of ``mark`` and cover some of it, or begin with it and be longer."""
    return mark in other or any(other.endswith(mark[:length]) for length in range(1, min(len(mark) + 1, len(other))))
