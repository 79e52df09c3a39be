"""The index of engines' blocks behind one small interface, which the Python reference and its native twin implement.

``apply_all``, ``admit``, ``forget``, ``rename`` and ``clear`` are called by the thread that receives events; ``lookup`` and
``assume`` by the event loop, which never waits for the other for longer than one message takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plugins.kvcache.assumed import Assumed
from plugins.kvcache.block_index import BlockIndex, Bounds, Match, PodTable, bits
from plugins.kvcache.event_processor import EventProcessor, Source, Store
from plugins.kvcache.events import Dialect
from plugins.kvcache.identities import Identities
from plugins.kvcache.request_keys import FastChain, KeyChain
from plugins.kvcache.tiers import Tiers

BYTES_PER_ENGINE_KEY = 128
"""What a key of an engine takes at least, where the bound is in bytes."""
MAX_ASSUMED = 2_000_000
"""Keys that are assumed to be cached at one time, of all prompts of the last seconds together."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What an index depends on."""

    block_size: int = 16
    """Tokens of a block."""
    hash_seed: str = ""
    dialect: Dialect = "vllm"
    bounds: Bounds = field(default_factory=Bounds)
    tier_weights: Mapping[str, float] = field(default_factory=dict)
    """By name; empty = the defaults."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """As for ``Identities``."""

    @property
    def max_engine_keys(self) -> int:
        """Most keys of engines that are remembered."""
        limit = self.bounds.max_keys
        return min(limit, self.bounds.max_bytes // BYTES_PER_ENGINE_KEY) if self.bounds.max_bytes is not None else limit


@dataclass(slots=True)
class IndexCounts:
    """What happened since the start, and how much there is now."""

    totals: Mapping[str, int]
    """admissions, evictions, unknown_parent, clears, removals_suppressed, removals_forwarded, duplicate_stores, unsupported."""
    decode_errors: Mapping[str, int]
    """By reason."""
    skipped: Mapping[tuple[str, str, str], int]
    """(stores or removals, kind of the group, reason) → events."""
    keys: int
    engine_keys: int
    orphans: int
    pods: Mapping[str, int]
    """Blocks of each pod."""


class EventIndex(Protocol):
    """Knows which pods hold a prompt's blocks."""

    def apply(self, source: Source, payload: bytes) -> None:
        """Apply a message of an engine."""
        ...

    def apply_all(self, messages: Sequence[tuple[Source, bytes]]) -> None:
        """Apply messages in their order."""
        ...

    def admit(self, pod: str) -> None:
        """There is such a pod, which holds nothing yet; nothing happens if it was known."""
        ...

    def forget(self, pod: str) -> None:
        """A pod left, with all that is known of it."""
        ...

    def rename(self, old: str, new: str) -> None:
        """What published under one name is known by another now."""
        ...

    def clear(self, pod: str) -> None:
        """Nothing is known of what a pod holds."""
        ...

    def keys(self, target_model: str, tokens: bytes, features: Sequence[tuple[str, ...]], *, is_adapter: bool) -> list[int]:
        """The keys of a prompt's blocks."""
        ...

    def lookup(self, keys: Sequence[int], now_s: float) -> Mapping[str, Match]:
        """What each pod holds of a prompt."""
        ...

    def assume(self, keys: Sequence[int], pod: str, until_s: float) -> None:
        """Assume that a pod holds these until then; nothing happens if it is unknown."""
        ...

    @property
    def engine_block_size(self) -> int:
        """Tokens of an engine's block."""
        ...

    def counts(self) -> IndexCounts:
        """For metrics and pages."""
        ...


def make_index(
    settings: IndexSettings, clock: Callable[[], float] = time.monotonic, implementation: str = "auto"
) -> EventIndex:
    """An index in this process.

    Args:
        settings: of the index.
        clock: seconds.
        implementation: ``native``, ``python``, or ``auto`` for the first of them that there is.

    Raises:
        ImportError: the extension is asked for and not installed, or was built from other sources.
    """
    if implementation != "python":
        try:
            from plugins.kvcache.native_index import NativeEventIndex

            return NativeEventIndex(settings, clock)
        except ImportError:
            if implementation == "native":
                raise
    return PythonEventIndex(settings, clock)


class PythonEventIndex:
    """The reference.

    Args:
        settings: of the index.
        clock: seconds.
        chain: makes keys; default: the fast one.
        make_store: keeps the index elsewhere too, given what keeps it in this process.
    """

    def __init__(
        self,
        settings: IndexSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        chain: KeyChain | None = None,
        make_store: Callable[[BlockIndex, Tiers], Store] | None = None,
    ) -> None:
        self._block_size = settings.block_size
        self._chain = chain or FastChain(settings.hash_seed)
        self._identities = Identities(settings.aliases)
        self.tiers = Tiers(settings.tier_weights)
        self.pods = PodTable()
        self.blocks = BlockIndex(self.pods, self.tiers, settings.bounds)
        self.assumed = Assumed(min(MAX_ASSUMED, settings.max_engine_keys))
        self._processor = EventProcessor(
            self._chain,
            settings.block_size,
            self._identities,
            self.pods,
            self.tiers,
            make_store(self.blocks, self.tiers) if make_store is not None else self.blocks,
            max_keys=settings.max_engine_keys,
            dialect=settings.dialect,
            clock=clock,
        )
        self.apply = self._processor.apply
        self.apply_all = self._processor.apply_all
        self.admit = self._processor.admit
        self.forget = self._processor.forget
        self.rename = self._processor.rename
        self.clear = self._processor.clear

    @property
    def engine_block_size(self) -> int:
        """Tokens of an engine's block, as the last one said; the index's own before that."""
        return self._processor.engine_block_size

    def keys(
        self, target_model: str, tokens: bytes, features: Sequence[tuple[str, ...]] = (), *, is_adapter: bool = False
    ) -> list[int]:
        """The keys of a prompt's whole blocks.

        Args:
            target_model: name that is sent to the model server.
            tokens: as ``token_bytes`` gives them.
            features: of each block.
            is_adapter: the name is known to be an adapter's.
        """
        seed = self._chain.seed(self._identities.of_request(target_model, is_adapter=is_adapter))
        return self._chain.extend(seed, tokens, self._block_size, features)

    def lookup(self, keys: Sequence[int], now_s: float) -> dict[str, Match]:
        """What each pod holds of a prompt, by its name; pods that hold nothing are left out."""
        self.assumed.sweep(now_s)
        return self.blocks.lookup(keys, self.assumed, now_s)

    def assume(self, keys: Sequence[int], pod: str, until_s: float) -> None:
        """Assume that a pod holds these until then."""
        known = self.pods.by_name.get(pod)
        if known is not None and keys:
            self.assumed.add(keys, known, until_s)

    def assumed_at(self, key: int, now_s: float) -> list[str]:
        """Names of the pods that are assumed to hold this block."""
        names = self.pods.names
        return [names[slot] for slot in bits(self.assumed.mask(key, now_s)) if slot < len(names)]

    def counts(self) -> IndexCounts:
        """A copy, as another thread counts on."""
        processor = self._processor
        totals = {**processor.counts, "admissions": self.blocks.admissions, "evictions": self.blocks.evictions}
        return IndexCounts(
            totals=totals,
            decode_errors=dict(processor.decode_errors),
            skipped=dict(processor.skipped),
            keys=len(self.blocks),
            engine_keys=processor.engine_keys,
            orphans=processor.orphans,
            pods={name: pod.blocks for name, pod in list(self.pods.by_name.items())},
        )
