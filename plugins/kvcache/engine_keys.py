"""What an engine's keys of blocks stand for: the index's keys, and where a chain goes on behind them.

One table for each base model: an engine's keys include the adapter but not the model. Bounded; what was learned longest ago
goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from plugins.kvcache.events import Features


class Tail(NamedTuple):
    """Where the blocks behind an engine's block go on."""

    key: int
    """The last key of the index in front, or the seed."""
    rest: bytes = b""
    """Tokens behind it that fill no whole block of the index yet."""
    features: Features = ()
    """Of the rest."""


class _Known:
    """An engine's key that is more than one key of the base model, or that several identities share."""

    __slots__ = ("keys", "other", "seed", "tail")

    def __init__(self, seed: int, keys: tuple[int, ...], tail: Tail, other: _Known | None) -> None:
        self.seed = seed
        self.keys = keys
        self.tail = tail
        self.other = other


class EngineKeys:
    """The engine's keys of one base model.

    Args:
        base_seed: of blocks without an adapter; their keys take the least memory.
        limit: most engine keys.
    """

    def __init__(self, base_seed: int, limit: int) -> None:
        self._base_seed = base_seed
        self._limit = limit
        self._known: OrderedDict[int, int | _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def put(self, engine_key: int, seed: int, keys: tuple[int, ...], tail: Tail) -> None:
        """Learn what an engine's key stands for, in the cache of one identity."""
        known = self._known
        old = known.get(engine_key)
        if len(keys) == 1 and seed == self._base_seed and not tail.rest and (old is None or type(old) is int):
            known[engine_key] = keys[0]
        else:
            known[engine_key] = _Known(seed, keys, tail, _without(self._as_known(old), seed))
        if old is not None:
            known.move_to_end(engine_key)
        elif len(known) > self._limit:
            known.popitem(last=False)

    def tail(self, engine_key: int, seed: int) -> Tail | None:
        """Where the blocks behind this one go on; None if it is unknown in the cache of this identity."""
        found = self._known.get(engine_key)
        if type(found) is int:
            return Tail(found) if seed == self._base_seed else None
        assert not isinstance(found, int)
        return next((known.tail for known in _all(found) if known.seed == seed), None)

    def keys(self, engine_key: int) -> tuple[int, ...]:
        """What it stands for, whatever the identity; empty if it is unknown."""
        found = self._known.get(engine_key)
        if found is None:
            return ()
        if isinstance(found, int):
            return (found,)
        return tuple([key for known in _all(found) for key in known.keys])

    def _as_known(self, found: int | _Known | None) -> _Known | None:
        return _Known(self._base_seed, (found,), Tail(found), None) if isinstance(found, int) else found


def _all(known: _Known | None) -> Iterator[_Known]:
    while known is not None:
        yield known
        known = known.other


def _without(known: _Known | None, seed: int) -> _Known | None:
    """The others of a chain."""
    kept = None
    for entry in _all(known):
        if entry.seed != seed:
            kept = _Known(entry.seed, entry.keys, entry.tail, kept)
    return kept
