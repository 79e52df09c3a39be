"""KV events as engines publish them: from a message's payload to events, in every layout of vLLM and SGLang.

A payload is a batch ``[time, [event, ...], rank?]`` in MessagePack, rarely a map of the same. An event is an array with its tag
in front, or, since vLLM 0.24, a map with its tag under ``type``. Fields were only ever appended, so that what is too short is
wrong and what is too long is newer than this module.
Source: vllm-project/vllm: vllm/distributed/kv_events.py; sglang: python/sglang/srt/disaggregation/kv_events.py
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

GPU = "gpu"
"""The tier of events that name no medium, and the one that engines compute in."""
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""Larger payloads are not decoded; sockets are told the same limit."""
_CPU = frozenset({"cpu_pinned", "cpu_tier1", "cpu_tier2"})
"""SGLang's names of host memory."""
_WORD = (1 << 64) - 1
_KEY_BYTES = 8
_LAST_SGLANG_FIELD = 6
"""Later positions mean something else there."""

Dialect = Literal["vllm", "sglang"]
Features = tuple[str, ...]
"""What sets a block apart from others of the same tokens: media in it, the salt of its cache; in the engine's order."""


class EventError(ValueError):
    """A payload or an event cannot be used; ``reason`` is a label of metrics."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BlockStored(NamedTuple):
    """Blocks that follow each other are in a cache now."""

    hashes: Sequence[int]
    """The engine's keys."""
    parent: int | None
    """The engine's key of the block in front; None = they begin a prompt."""
    tokens: bytes
    """Four bytes each, little-endian; empty where only the tier of known blocks changes."""
    block_size: int
    """Tokens of each block."""
    tier: str = GPU
    lora_id: int | None = None
    lora_name: str = ""
    features: Sequence[Features | None] = ()
    """Of each block, in order; None = it cannot be told apart, nor can those behind it. Empty = none has any."""
    group: int | None = None
    """Group of layers in engines that treat them differently."""
    kind: str = ""
    """How the layers of the group attend."""


class BlockRemoved(NamedTuple):
    """Blocks left a cache."""

    hashes: Sequence[int]
    tier: str = GPU
    group: int | None = None


class AllBlocksCleared(NamedTuple):
    """A cache was emptied."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(slots=True)
class Batch:
    """The events of a payload."""

    events: list[Event] = field(default_factory=list)
    rank: int | None = None
    """Data-parallel rank of the engine that published; None = it did not say."""
    errors: list[EventError] = field(default_factory=list)
    """One for each event that cannot be used; the others are."""


def decode(payload: bytes | memoryview, dialect: Dialect = "vllm") -> Batch:
    """The events of a payload. Events of unknown kinds are left out.

    Args:
        payload: the last frame of a message.
        dialect: ``sglang`` leaves out what only vLLM's fields can mean.

    Raises:
        EventError: it is no batch.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise EventError("payload", f"a payload of {len(payload)} bytes is larger than {MAX_PAYLOAD_BYTES}")
    unpack, errors = _msgpack()
    try:
        document = unpack(payload)
    except errors as error:
        raise EventError("payload", f"the payload is no MessagePack: {error}") from error
    raw_events, rank = _parts(document)
    batch = Batch(rank=rank if type(rank) is int and rank >= 0 else None)
    for raw in raw_events:
        try:
            event = _event(raw, dialect)
        except EventError as error:
            batch.errors.append(error)
        else:
            if event is not None:
                batch.events.append(event)
    return batch


def block_key(value: object) -> int:
    """An engine's hash of a block as an unsigned 64-bit number: whole digests by their last eight bytes.

    Raises:
        EventError: it is neither a number nor bytes.
    """
    if type(value) is int:
        return value & _WORD
    if isinstance(value, bytes) and value:
        return int.from_bytes(value[-_KEY_BYTES:], "big")
    raise EventError("event", f"a block hash of type {type(value).__name__}")


def tier_of(medium: object) -> str:
    """The tier that a medium is, in lower case; what is no text counts as not given."""
    if not isinstance(medium, str) or not medium:
        return GPU
    name = medium.lower()
    return "cpu" if name in _CPU else name


@cache
def _msgpack() -> tuple[Callable[[bytes | memoryview], Any], tuple[type[Exception], ...]]:
    """The decoder, and what it raises for what cannot be decoded: loaded when it is needed, as it is an extra."""
    import msgspec

    return msgspec.msgpack.decode, (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError)


def _parts(document: Any) -> tuple[list[Any], Any]:
    """The events and the rank of a batch."""
    if isinstance(document, list) and len(document) >= 2 and isinstance(document[1], list):
        return document[1], document[2] if len(document) > 2 else None
    if isinstance(document, dict) and isinstance(events := document.get("events"), list):
        return events, document.get("data_parallel_rank")
    raise EventError("payload", "the payload is no batch of events")


_STORED = (
    *("type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys"),
    *("group_idx", "kv_cache_spec_kind"),
)
_REMOVED = ("type", "block_hashes", "medium", "group_idx")
_CLEARED = ("type",)
_LAYOUTS: Mapping[object, tuple[Sequence[str], int]] = {
    "BlockStored": (_STORED, 5),
    "BlockRemoved": (_REMOVED, 2),
    "AllBlocksCleared": (_CLEARED, 1),
}
"""Tag → names of the fields, of which the first so many are required."""


def _event(raw: Any, dialect: Dialect) -> Event | None:
    """One event; None for a kind that nobody here knows."""
    if isinstance(raw, list) and raw:
        tag = raw[0]
        layout = _LAYOUTS.get(tag) if isinstance(tag, str) else None
        if layout is None:
            _check_tag(tag)
            return None
        names, required = layout
        if len(raw) < required:
            raise EventError("event", f"{tag} has {len(raw)} fields, it must have {required}")
        fields = raw[: min(len(names), _LAST_SGLANG_FIELD + 1) if dialect == "sglang" else len(names)]
    elif isinstance(raw, dict):
        tag = raw.get("type")
        layout = _LAYOUTS.get(tag) if isinstance(tag, str) else None
        if layout is None:
            _check_tag(tag)
            return None
        names, required = layout
        if missing := [name for name in names[:required] if name not in raw]:
            raise EventError("event", f"{tag} has no {', '.join(missing)}")
        fields = [raw.get(name) for name in names]
    else:
        raise EventError("event", "an event is neither an array nor a map")
    if tag == "BlockStored":
        return _stored(fields)
    if tag == "BlockRemoved":
        return _removed(fields)
    return AllBlocksCleared()


def _check_tag(tag: object) -> None:
    if not isinstance(tag, str):
        raise EventError("event", "an event has no tag")


def _stored(fields: list[Any]) -> BlockStored:
    fields += [None] * (len(_STORED) - len(fields))
    _, hashes, parent, tokens, block_size, lora_id, medium, lora_name, extra_keys, group, kind = fields
    if type(block_size) is not int or block_size < 0:
        raise EventError("event", "BlockStored.block_size is not a size")
    name = lora_name if isinstance(lora_name, str) else ""
    return BlockStored(
        _keys(hashes),
        None if parent is None or (type(parent) is int and not parent) else block_key(parent),
        _tokens(tokens),
        block_size,
        tier_of(medium),
        lora_id if type(lora_id) is int else None,
        name,
        _features(extra_keys, name) if extra_keys is not None else (),
        _group(group),
        kind if isinstance(kind, str) else "",
    )


def _removed(fields: list[Any]) -> BlockRemoved:
    fields += [None] * (len(_REMOVED) - len(fields))
    _, hashes, medium, group = fields
    return BlockRemoved(_keys(hashes), tier_of(medium), _group(group))


def _keys(hashes: object) -> list[int]:
    if not isinstance(hashes, list):
        raise EventError("event", "block_hashes is not a list")
    return [value if type(value) is int and 0 <= value <= _WORD else block_key(value) for value in hashes]


def _tokens(ids: object) -> bytes:
    if not isinstance(ids, list):
        raise EventError("event", "token_ids is not a list")
    try:
        words = array("I", ids)
    except (TypeError, OverflowError) as error:
        raise EventError("event", f"token_ids are not numbers of 32 bits: {error}") from error
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _group(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise EventError("event", "group_idx is not a number of a group")
    return value


def _features(extra_keys: object, lora_name: str) -> list[Features | None]:
    if not isinstance(extra_keys, list):
        raise EventError("event", "extra_keys is not a list")
    return [_of_block(keys, lora_name) for keys in extra_keys]


def _of_block(keys: object, lora_name: str) -> Features | None:
    """The features of a block.

    An adapter's name is among an engine's, in front; here it is in the seed of the keys, as no prompt names it otherwise.
    Digests of embeddings cannot be compared with anything that a prompt has.
    """
    if keys is None:
        return ()
    if not isinstance(keys, list):
        raise EventError("event", "extra_keys of a block are not a list")
    found: list[str] = []
    for key in keys:
        if isinstance(key, bytes):
            return None
        name = key[0] if isinstance(key, list) and key else key
        if isinstance(name, str):
            found.append(name)
    if lora_name and lora_name in found:
        found.remove(lora_name)
    return tuple(found)
