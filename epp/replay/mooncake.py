"""Mooncake's traces: lengths, and which blocks of 512 tokens of the prompt were the same.

Equal ids become equal tokens, the same in each process, so that everybody who hashes prompts finds in them what was there to
be found. Source of the format: kvcache-ai/Mooncake: FAST25-release.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_128

import orjson

from epp.replay.fields import FieldError, Line, seconds, shown, tokens
from epp.replay.load import RecordedRequest

BLOCK_TOKENS = 512
PATH = "/v1/completions"
_TOKEN_BYTES = 4
_BLOCK_BYTES = BLOCK_TOKENS * _TOKEN_BYTES
_VOCABULARY = int.from_bytes(b"\xff\xff\x01\x00" * BLOCK_TOKENS)
"""Keeps each token below 131,072."""
_KEPT_BLOCKS = 4096
"""Blocks whose tokens are remembered: some 30 MB."""
_HEADERS = (("content-type", "application/json"),)


@dataclass(frozen=True, slots=True)
class TokenBlocks:
    """A prompt of blocks. Implements ``Content``."""

    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...]

    def body(self, model: str) -> bytes:
        """A completion that streams, with the tokens as its prompt."""
        *whole, last = self.hash_ids
        ids = [_block(hash_id)[1] for hash_id in whole]
        ids.append(_as_json(_block(last)[0][: self._last_bytes]))
        return b'{"model":%b,"prompt":[%b],"max_tokens":%d,"stream":true,"stream_options":{"include_usage":true}}' % (
            orjson.dumps(model),
            b",".join(ids),
            self.output_tokens,
        )

    def prompt(self) -> bytes:
        """Its tokens."""
        *whole, last = self.hash_ids
        return b"".join([*(_block(hash_id)[0] for hash_id in whole), _block(last)[0][: self._last_bytes]])

    @property
    def _last_bytes(self) -> int:
        return (self.input_tokens - BLOCK_TOKENS * (len(self.hash_ids) - 1)) * _TOKEN_BYTES


def read(line: Line, number: int) -> RecordedRequest:
    """One line; members that are not of the format are left alone, as its successors have more.

    Raises:
        FieldError: it cannot be used.
    """
    at_s = seconds(line, "timestamp", 1e-3)
    input_tokens = tokens(line, "input_length", 1)
    output_tokens = tokens(line, "output_length", 0)
    hash_ids = line.get("hash_ids")
    if not isinstance(hash_ids, list) or not all(type(hash_id) is int for hash_id in hash_ids):
        raise FieldError(f"hash_ids must be a list of whole numbers, is {shown(hash_ids)}")
    blocks = -(-input_tokens // BLOCK_TOKENS)
    if len(hash_ids) != blocks:
        raise FieldError(
            f"hash_ids has {len(hash_ids)} ids, but an input_length of {input_tokens} makes {blocks} blocks of {BLOCK_TOKENS}"
        )
    content = TokenBlocks(input_tokens, max(1, output_tokens), tuple(hash_ids))
    return RecordedRequest(number, at_s, PATH, _HEADERS, content.output_tokens, content)


@lru_cache(maxsize=_KEPT_BLOCKS)
def _block(hash_id: int) -> tuple[bytes, bytes]:
    """The tokens of an id: as little-endian numbers of four bytes, and in JSON."""
    drawn = int.from_bytes(shake_128(b"%d" % hash_id).digest(_BLOCK_BYTES))
    data = (drawn & _VOCABULARY).to_bytes(_BLOCK_BYTES)
    return data, _as_json(data)


def _as_json(data: bytes) -> bytes:
    numbers = array("I", data)
    return orjson.dumps(numbers.tolist())[1:-1]
