"""NativeEventIndex: the index in the extension, which decodes and applies events without holding the interpreter.

What it does is said by ``event_processor`` and ``block_index``, whose twin it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import epp_native

from plugins.kvcache.block_index import Match
from plugins.kvcache.event_index import MAX_ASSUMED, IndexCounts, IndexSettings
from plugins.kvcache.event_processor import Source, tell_mismatch
from plugins.kvcache.tiers import DEFAULT_WEIGHTS


class NativeEventIndex:
    """Implements ``EventIndex``.

    Args:
        settings: of the index.
        clock: seconds.

    Raises:
        ImportError: the extension was built from sources that had no such index.
    """

    def __init__(self, settings: IndexSettings, clock: Callable[[], float] = time.monotonic) -> None:
        if not hasattr(epp_native, "EventIndex"):
            raise ImportError("epp_native has no EventIndex: build it from these sources")
        bounds = settings.bounds
        weights = {name.lower(): weight for name, weight in (settings.tier_weights or DEFAULT_WEIGHTS).items()}
        self._clock = clock
        self._block_size = settings.block_size
        self._index = epp_native.EventIndex(
            block_size=settings.block_size,
            hash_seed=settings.hash_seed,
            sglang=settings.dialect == "sglang",
            aliases=dict(settings.aliases),
            tiers=list(weights.items()),
            max_keys=bounds.max_keys,
            max_bytes=bounds.max_bytes,
            max_pods_per_key=bounds.max_pods_per_key,
            max_engine_keys=settings.max_engine_keys,
            max_assumed=min(MAX_ASSUMED, settings.max_engine_keys),
        )
        self.admit = self._index.admit
        self.forget = self._index.forget
        self.rename = self._index.rename
        self.clear = self._index.clear
        self.assume = self._index.assume

    @property
    def engine_block_size(self) -> int:
        """Tokens of an engine's block, as the last one said; the index's own before that."""
        return self._index.engine_block_size

    def apply(self, source: Source, payload: bytes) -> None:
        """Apply a message of an engine."""
        self.apply_all([(source, payload)])

    def apply_all(self, messages: Sequence[tuple[Source, bytes]]) -> None:
        """Apply messages of engines, in one call that does not hold the interpreter."""
        self._index.apply([(*source, payload) for source, payload in messages], self._clock())
        for pod, engine_block in self._index.take_notices():
            tell_mismatch(pod, engine_block, self._block_size)

    def keys(
        self, target_model: str, tokens: bytes, features: Sequence[tuple[str, ...]] = (), *, is_adapter: bool = False
    ) -> list[int]:
        """The keys of a prompt's whole blocks."""
        return self._index.keys(target_model, tokens, features, is_adapter)

    def lookup(self, keys: Sequence[int], now_s: float) -> dict[str, Match]:
        """What each pod holds of a prompt, by its name; pods that hold nothing are left out."""
        return {pod: Match(blocks, weighted, tiers) for pod, blocks, weighted, tiers in self._index.lookup(keys, now_s)}

    def counts(self) -> IndexCounts:
        """What happened, and how much there is."""
        return IndexCounts(**self._index.counts())
