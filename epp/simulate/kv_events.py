"""What the prefix cache of a simulated engine holds, as vLLM tells it: block hashes, events, batches. No sockets.

Source: vllm-project/vllm: vllm/distributed/kv_events.py, vllm/v1/core/kv_cache_utils.py, vllm/utils/hashing.py.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import cbor2
import msgspec

from epp.simulate.blocks import BYTES_PER_TOKEN
from epp.simulate.options import EventLayout, KvEventOptions
from epp.simulate.sequence import Sequence

Extra = tuple[str, ...] | None

_MEDIUM = "GPU"
_GROUP = 0
_KIND = "full_attention"


def none_hash(seed: str) -> bytes:
    """The parent of first blocks, for a ``PYTHONHASHSEED``; algorithm ``sha256_cbor``."""
    return _digest(seed)


def block_digest(parent: bytes, token_ids: list[int], extra: Extra) -> bytes:
    """Hash of a full block; algorithm ``sha256_cbor``.

    Args:
        parent: digest of the block before, or `none_hash`.
        token_ids: of the block.
        extra: what else tells prompts apart: adapter, then the salt in the first block; None for neither.
    """
    return _digest((parent, tuple(token_ids), extra))


def _digest(value: object) -> bytes:
    return sha256(cbor2.dumps(value, canonical=True)).digest()


class KvEventLog:
    """Turns changes of a prefix cache into batches of events; an `epp.simulate.engine.CacheObserver`.

    The blocks of a prompt are announced together, in the step that computes its first chunk; the real engine announces each
    chunk with its own step. A cleared cache is told at once, where the real engine waits for its next step.

    Args:
        options: layout, hashes, rank.
        block_size: tokens in one block.
        publish: takes the MessagePack of each batch.
        wall_clock: unix time, seconds.
    """

    def __init__(
        self,
        options: KvEventOptions,
        block_size: int,
        publish: Callable[[bytes], object],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._block_size = block_size
        self._publish = publish
        self._wall_clock = wall_clock
        self._rank = options.rank
        self._is_map = options.layout is EventLayout.MAP
        self._raw_hashes = options.raw_hashes
        self._root = none_hash(options.hash_seed)
        self._digests: dict[int, bytes] = {}
        """vLLM's hash of each block that is cached, by the engine's own."""
        self._events: list[Any] = []
        self._encode = msgspec.msgpack.Encoder().encode

    def stored(self, sequence: Sequence, new: list[int]) -> None:
        """Announce blocks; neighbours share an event."""
        index = {block: position for position, block in enumerate(sequence.blocks)}
        for first, blocks in _runs([index[block] for block in new], new):
            self._events.append(self._stored_event(sequence, first, blocks))

    def removed(self, block: int) -> None:
        """Announce the loss of a block."""
        hashes = [self._hash(self._digests.pop(block))]
        tail = (hashes, _MEDIUM, _GROUP)
        self._events.append(self._event("BlockRemoved", ("block_hashes", "medium", "group_idx"), tail))

    def cleared(self) -> None:
        """Announce the loss of all blocks."""
        self._digests.clear()
        self._events.append(self._event("AllBlocksCleared", (), ()))
        self.step_ended()

    def step_ended(self) -> None:
        """Publish what has gathered; nothing if nothing has."""
        if not self._events:
            return
        events, self._events = self._events, []
        now_s = self._wall_clock()
        batch = {"ts": now_s, "events": events, "data_parallel_rank": self._rank}
        self._publish(self._encode(batch if self._is_map else list(batch.values())))

    def _stored_event(self, sequence: Sequence, first: int, blocks: list[int]) -> object:
        size = self._block_size
        start = first * size * BYTES_PER_TOKEN
        tokens = array("I", sequence.data(start)[: len(blocks) * size * BYTES_PER_TOKEN]).tolist()
        before = self._digests[sequence.blocks[first - 1]] if first else None
        digest = before or self._root
        hashes, extras = [], []
        for position, block in enumerate(blocks):
            extra = _extra(sequence, is_first=first + position == 0)
            digest = block_digest(digest, tokens[position * size : (position + 1) * size], extra)
            self._digests[block] = digest
            hashes.append(self._hash(digest))
            extras.append(extra)
        names = (
            "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys",
            "group_idx", "kv_cache_spec_kind",
        )  # fmt: skip
        parent = self._hash(before) if before else None
        extra_keys = extras if any(extras) else None
        values = (hashes, parent, tokens, size, None, _MEDIUM, sequence.adapter, extra_keys, _GROUP, _KIND)
        return self._event("BlockStored", names, values)

    def _event(self, tag: str, names: tuple[str, ...], values: tuple[object, ...]) -> object:
        if not self._is_map:
            return [tag, *values]
        # Only what has a default is left out of a map: of these members, the extra keys.
        members = {name: value for name, value in zip(names, values, strict=True) if name != "extra_keys" or value is not None}
        return {"type": tag, **members}

    def _hash(self, digest: bytes) -> int | bytes:
        return digest if self._raw_hashes else int.from_bytes(digest[-8:], "big")


def _extra(sequence: Sequence, *, is_first: bool) -> Extra:
    salt = (sequence.salt,) if is_first and sequence.salt else ()
    return ((sequence.adapter,) if sequence.adapter else ()) + salt or None


def _runs(positions: list[int], blocks: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Split into runs of neighbours: where each begins, and its blocks."""
    begin = 0
    for end in range(1, len(positions) + 1):
        if end == len(positions) or positions[end] != positions[end - 1] + 1:
            yield positions[begin], blocks[begin:end]
            begin = end
