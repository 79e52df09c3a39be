"""Indexes to test, by implementation, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epp.framework.testing import FakeClock
from plugins.kvcache.block_index import Match
from plugins.kvcache.event_index import EventIndex, IndexSettings, PythonEventIndex, make_index
from plugins.kvcache.event_processor import Source
from plugins.kvcache.request_keys import CborFnvChain, Xxh64Chain, token_bytes
from tests.unit.plugins.kvcache.payloads import SAMPLES

Features = Sequence[tuple[str, ...]]
P, Q = "10.0.0.1:8000", "10.0.0.2:8000"
A, B, C = P, Q, "10.0.0.3:8000"
NAMES = {"m": "m", "m1": "m1", "m2": "m2"}
"""Topics name models here, so that keys are those of the specification."""

MAKERS: dict[str, Callable[[IndexSettings, FakeClock], EventIndex]] = {
    "fast": PythonEventIndex,
    "cbor-fnv": lambda settings, clock: PythonEventIndex(settings, clock, chain=CborFnvChain(settings.hash_seed)),
    "xxh64": lambda settings, clock: PythonEventIndex(settings, clock, chain=Xxh64Chain(settings.hash_seed)),
}

try:
    make_index(IndexSettings(), implementation="native")
except ImportError:
    pass  # --require native says whether it must be there
else:
    MAKERS["native"] = lambda settings, clock: make_index(settings, clock, "native")


class Harness:
    """An index with a clock, fed by pods."""

    def __init__(self, maker: str, **settings: Any) -> None:
        self.clock = FakeClock()
        given = {"block_size": 4, "aliases": NAMES, **settings}
        self.index = MAKERS[maker](IndexSettings(**given), self.clock)

    def feed(self, *payloads: bytes | str, pod: str = P, model: str = "m") -> Harness:
        """Apply payloads, or samples by their letters."""
        for each in payloads:
            for data in [SAMPLES[letter] for letter in each] if isinstance(each, str) else [each]:
                self.index.apply(Source(pod, (), model), data)
        return self

    def keys(self, tokens: Sequence[int], features: Features = (), model: str = "m") -> list[int]:
        """Of a prompt's blocks."""
        return self.index.keys(model, token_bytes(tokens), features, is_adapter=model.startswith("adapter"))

    def found(self, tokens: Sequence[int], features: Features = (), model: str = "m") -> Mapping[str, Match]:
        """What the pods hold of a prompt."""
        return self.index.lookup(self.keys(tokens, features, model), self.clock())

    def blocks(self, tokens: Sequence[int], features: Features = (), model: str = "m") -> dict[str, int]:
        """Leading blocks of each pod."""
        return {pod: match.blocks for pod, match in self.found(tokens, features, model).items()}

    def tiers(self, key: int) -> dict[str, list[str]]:
        """Pod → tiers in which it has a block."""
        return {pod: sorted(match.by_tier) for pod, match in self.index.lookup([key], self.clock()).items()}

    def tally(self, name: str) -> int:
        """How often something happened."""
        return self.index.counts().totals.get(name, 0)
