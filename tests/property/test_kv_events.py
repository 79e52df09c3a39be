"""The index of KV events against a model that is as plain as can be, for any sequence of events of any pods."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from plugins.kvcache.block_index import Bounds
from tests.unit.plugins.kvcache.indexes import MAKERS, Harness
from tests.unit.plugins.kvcache.payloads import CLEARED, payload, removed, stored

PODS = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
TIERS = ("GPU", "CPU")
MOST = 8
"""Announcements of a block that are counted."""
each_index = pytest.mark.parametrize("maker", [name for name in MAKERS if name != "cbor-fnv"])

Prefix = tuple[int, ...]
"""Blocks from the beginning of a prompt; a block is four times the same token."""


def engine_key(prefix: Prefix) -> int:
    return xxhash.xxh3_64_intdigest(bytes(prefix)) | 1


def tokens(prefix: Prefix) -> list[int]:
    return [token for block in prefix for token in [block] * 4]


@dataclass
class Waiting:
    """Blocks without a known parent."""

    pod: str
    tier: str
    start: Prefix
    blocks: list[Prefix]
    removed: set[Prefix] = field(default_factory=set)


class Model:
    """What pods hold, by whole prefixes."""

    def __init__(self) -> None:
        self.known: set[Prefix] = set()
        self.held: dict[str, Counter[tuple[str, Prefix]]] = {pod: Counter() for pod in PODS}
        self.waiting: list[Waiting] = []

    def store(self, pod: str, tier: str, start: Prefix, blocks: list[Prefix]) -> None:
        if start and start not in self.known:
            self.waiting.append(Waiting(pod, tier, start, blocks))
            return
        self._hold(pod, tier, blocks, set())
        queue = list(blocks)
        while queue:
            parent = queue.pop(0)
            found = [each for each in self.waiting if each.start == parent]
            self.waiting = [each for each in self.waiting if each.start != parent]
            for each in found:
                self._hold(each.pod, each.tier, each.blocks, each.removed)
                queue += each.blocks

    def _hold(self, pod: str, tier: str, blocks: list[Prefix], removed: set[Prefix]) -> None:
        self.known.update(blocks)
        for block in blocks:
            if block not in removed:
                self.held[pod][tier, block] = min(self.held[pod][tier, block] + 1, MOST)

    def tier_store(self, pod: str, tier: str, block: Prefix) -> None:
        if block in self.known:
            self.held[pod][tier, block] = min(self.held[pod][tier, block] + 1, MOST)

    def remove(self, pod: str, tier: str, block: Prefix) -> None:
        for each in self.waiting:
            if each.pod == pod and block in each.blocks:
                each.removed.add(block)
        if self.held[pod][tier, block]:
            self.held[pod][tier, block] -= 1

    def clear(self, pod: str) -> None:
        self.held[pod].clear()
        self.waiting = [each for each in self.waiting if each.pod != pod]

    def run(self, pod: str, prompt: Prefix) -> int:
        for count in range(1, len(prompt) + 1):
            if not any(self.held[pod][tier, prompt[:count]] for tier in TIERS):
                return count - 1
        return len(prompt)

    def weighted(self, pod: str, prompt: Prefix) -> float:
        in_gpu = [bool(self.held[pod]["GPU", prompt[: n + 1]]) for n in range(self.run(pod, prompt))]
        return sum(1.0 if gpu else 0.8 for gpu in in_gpu)


prefixes = st.lists(st.integers(1, 2), min_size=1, max_size=6).map(tuple)
pods, tiers = st.sampled_from(PODS), st.sampled_from(TIERS)
steps = st.one_of(
    st.tuples(st.just("store"), pods, tiers, prefixes, st.integers(0, 5)),
    st.tuples(st.just("store"), pods, st.just("GPU"), prefixes, st.just(0)),
    st.tuples(st.just("tier"), pods, tiers, prefixes),
    st.tuples(st.just("remove"), pods, tiers, prefixes),
    st.tuples(st.just("clear"), pods),
    st.tuples(st.just("forget"), pods),
)


def take(step: tuple[Any, ...], index: Harness, model: Model) -> None:
    """One step of both."""
    match step:
        case "store", pod, tier, prefix, skipped:
            start = prefix[: min(skipped, len(prefix) - 1)]
            blocks = [prefix[: n + 1] for n in range(len(start), len(prefix))]
            parent = engine_key(start) if start else None
            event = stored([engine_key(b) for b in blocks], tokens(prefix[len(start) :]), parent=parent, medium=tier)
            index.feed(payload(event), pod=pod)
            model.store(pod, tier, start, blocks)
        case "tier", pod, tier, prefix:
            index.feed(payload(stored([engine_key(prefix)], [], block=0, medium=tier)), pod=pod)
            model.tier_store(pod, tier, prefix)
        case "remove", pod, tier, prefix:
            index.feed(payload(removed([engine_key(prefix)], tier)), pod=pod)
            model.remove(pod, tier, prefix)
        case "clear", pod:
            index.feed(payload(CLEARED), pod=pod)
            model.clear(pod)
        case "forget", pod:
            index.index.forget(pod)
            model.clear(pod)


@each_index
@given(st.lists(steps, max_size=60), st.lists(prefixes, min_size=1, max_size=5))
def test_any_sequence_of_events_means_what_the_plain_model_says(
    maker: str, sequence: list[tuple[Any, ...]], prompts: list[Prefix]
) -> None:
    index, model = Harness(maker), Model()
    for step in sequence:
        take(step, index, model)
    for prompt in prompts:
        found = index.found(tokens(prompt))
        expected = {pod: model.run(pod, prompt) for pod in PODS if model.run(pod, prompt)}
        assert {pod: match.blocks for pod, match in found.items()} == expected
        for pod, match in found.items():
            assert match.weighted == pytest.approx(model.weighted(pod, prompt))
    assert index.index.counts().orphans == len(model.waiting)


@each_index
@given(st.lists(steps, max_size=60), st.integers(1, 6), prefixes)
def test_a_bound_only_forgets(maker: str, sequence: list[tuple[Any, ...]], bound: int, prompt: Prefix) -> None:
    """Whatever is bounded, there are never more keys, and nobody is credited for what it does not hold."""
    index, model = Harness(maker, bounds=Bounds(max_keys=bound)), Model()
    for step in sequence:
        take(step, index, model)
        counts = index.index.counts()
        assert counts.keys <= bound
        assert counts.engine_keys <= bound
        assert all(blocks <= 2 * bound for blocks in counts.pods.values())
    for pod, match in index.found(tokens(prompt)).items():
        assert match.blocks <= model.run(pod, prompt)


@each_index
@given(st.lists(steps, max_size=40))
def test_clearing_forgets_everything(maker: str, sequence: list[tuple[Any, ...]]) -> None:
    index, model = Harness(maker), Model()
    for step in sequence:
        take(step, index, model)
    for pod in PODS:
        index.index.clear(pod)
    counts = index.index.counts()
    assert (counts.keys, counts.orphans, sum(counts.pods.values())) == (0, 0, 0)


@each_index
@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(steps, max_size=5))
def test_garbage_raises_nothing(maker: str, garbage: list[bytes], sequence: list[tuple[Any, ...]]) -> None:
    index, model = Harness(maker), Model()
    for step in sequence:
        take(step, index, model)
    for data in garbage:
        index.feed(data)
        index.feed(b"\x93\xcb" + bytes(8) + b"\x91" + data)
