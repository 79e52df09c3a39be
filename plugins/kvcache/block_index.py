"""Which pods hold a block: a bit mask of pods for each key, bounded by keys or by bytes.

Written by the thread that applies events, read by the event loop without a lock: masks and tuples of masks are replaced, never
changed, and each look-up of a dict is one step of the interpreter. ``PodTable.names`` tells whether a slot changed hands
meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from plugins.kvcache.assumed import Assumed
from plugins.kvcache.pods import Pod
from plugins.kvcache.tiers import ASSUMED, ASSUMED_WEIGHT, Tiers

KEY_COST, ENTRY_COST = 84, 64
"""Bytes that count for a key of twenty digits, and for a pod at a key beyond its names. Source: llm-d-kv-cache:
pkg/kvcache/kvblock/cost_aware_memory.go."""
_RETRIES = 3
"""Look-ups that meet a change of pods are repeated this often; pods change rarely."""

Masks = int | tuple[int, ...]
"""Pods at a key: of the GPU alone, or of each tier by its number."""


class Match(NamedTuple):
    """What one pod holds of a prompt."""

    blocks: int
    """Leading blocks, whatever tier has them."""
    weighted: float
    """The same, each by the weight of its best tier."""
    by_tier: Mapping[str, int]
    """Leading blocks that one tier alone has."""


class Bounds(NamedTuple):
    """How much an index may hold."""

    max_keys: int = 100_000_000
    max_bytes: int | None = None
    """Counted by ``KEY_COST`` and ``ENTRY_COST``; None = unbounded."""
    max_pods_per_key: int | None = None
    """None = as many as there are."""


class PodTable:
    """Pods by name and by slot; slots of pods that left are used again."""

    def __init__(self) -> None:
        self.by_name: dict[str, Pod] = {}
        self.names: tuple[str, ...] = ()
        """By slot, "" where none is; replaced whole when a slot changes hands."""
        self._free: list[int] = []

    def admit(self, name: str) -> Pod:
        """The pod of this name, a new one if there is none."""
        pod = self.by_name.get(name)
        if pod is None:
            slot = self._free.pop() if self._free else len(self.names)
            pod = Pod(name, slot)
            self._name(slot, name)
            self.by_name[name] = pod
        return pod

    def rename(self, pod: Pod, name: str) -> None:
        """Another name for the same cache."""
        del self.by_name[pod.name]
        pod.name = name
        self.by_name[name] = pod
        self._name(pod.slot, name)

    def leave(self, pod: Pod) -> None:
        """The pod is gone, and holds nothing any longer."""
        del self.by_name[pod.name]
        slot, pod.slot = pod.slot, -1
        self._name(slot, "")
        self._free.append(slot)

    def _name(self, slot: int, name: str) -> None:
        names = list(self.names) + [""] * (slot + 1 - len(self.names))
        names[slot] = name
        self.names = tuple(names)


class BlockIndex:
    """The masks, and what is found in them.

    Args:
        pods: whose slots the bits are.
        tiers: names and weights.
        bounds: beyond which the keys that were added longest ago leave.
    """

    def __init__(self, pods: PodTable, tiers: Tiers, bounds: Bounds) -> None:
        self._pods = pods
        self._tiers = tiers
        self._bounds = bounds
        self._masks: OrderedDict[int, Masks] = OrderedDict()
        self._order: dict[int, dict[tuple[Pod, int], None]] = {}
        """Pods of each key in the order in which they were added, where their number is bounded."""
        self._bytes = 0
        self.admissions = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._masks)

    # ── written by the thread of the events ──

    def add(self, pod: Pod, tier: int, key: int) -> bool:
        """A pod holds a block; False if that was known."""
        bit = 1 << pod.slot
        if self._bounds.max_pods_per_key is not None:
            self._remember_order(pod, tier, key)
        masks = self._masks.get(key)
        if masks is None:
            self._masks[key] = bit if not tier else (*(0,) * tier, bit)
            self.admissions += 1
            self._bytes += KEY_COST + self._entry_cost(pod.name, tier)
            self._bound()
            return True
        self._masks.move_to_end(key)
        changed = _with(masks, tier, bit)
        if changed == masks:
            return False
        self._masks[key] = changed
        self._bytes += self._entry_cost(pod.name, tier)
        self._bound()
        return True

    def remove(self, pod: Pod, tier: int, key: int) -> None:
        """A pod holds a block no longer; nothing happens if it did not."""
        masks = self._masks.get(key)
        if masks is None:
            return
        changed = _without(masks, tier, 1 << pod.slot)
        if changed == masks:
            return
        self.evictions += 1
        self._bytes -= self._entry_cost(pod.name, tier)
        order = self._order.get(key)
        if order is not None:
            order.pop((pod, tier), None)
        if changed:
            self._masks[key] = changed
        else:
            self._drop(key)

    def renamed(self, old: str, new: str, entries: int) -> None:
        """A pod has another name, of another length, at this many entries."""
        self._bytes += (len(new) - len(old)) * entries

    def linked(self, engine_key: int, keys: Sequence[int]) -> None:
        """Nobody else has to know what an engine's keys stand for."""

    def find_parent(self, engine_key: int) -> int | None:
        """Nobody else knows more."""
        return None

    def cleared(self, pod_name: str) -> None:
        """Nobody else wrote anything about a pod."""

    def flush(self) -> None:
        """Nothing is held back."""

    def _bound(self) -> None:
        limits = self._bounds
        while len(self._masks) > limits.max_keys or (limits.max_bytes is not None and self._bytes > limits.max_bytes):
            key, masks = next(iter(self._masks.items()))
            names = self._pods.names
            entries = [(names[slot], tier) for tier, mask in enumerate(_tuple(masks)) for slot in bits(mask)]
            self._bytes -= sum(self._entry_cost(name, tier) for name, tier in entries)
            self.evictions += len(entries)
            self._drop(key)

    def _drop(self, key: int) -> None:
        del self._masks[key]
        self._order.pop(key, None)
        self._bytes -= KEY_COST

    def _entry_cost(self, pod_name: str, tier: int) -> int:
        return ENTRY_COST + len(pod_name) + len(self._tiers.names[tier])

    def _remember_order(self, pod: Pod, tier: int, key: int) -> None:
        order = self._order.get(key, {})
        order.pop((pod, tier), None)
        assert self._bounds.max_pods_per_key is not None
        if len(order) >= self._bounds.max_pods_per_key:
            oldest, its_tier = next(iter(order))
            self.remove(oldest, its_tier, key)
        self._order.setdefault(key, {})[pod, tier] = None

    # ── read by the event loop ──

    def lookup(self, keys: Sequence[int], assumed: Assumed, now_s: float) -> dict[str, Match]:
        """What each pod holds of a prompt, by its name; pods that hold nothing are left out."""
        for _ in range(_RETRIES):
            names = self._pods.names
            found = self._walk(keys, assumed if len(assumed) else None, now_s, (1 << len(names)) - 1)
            if self._pods.names is names:
                return {names[slot]: match for slot, match in found if names[slot]}
        return {}

    def pods_at(self, key: int) -> dict[str, list[str]]:
        """Tier → names of the pods that hold this block there: for tests and pages."""
        names = self._pods.names
        masks = _tuple(self._masks.get(key, 0))
        return {self._tiers.names[tier]: [names[slot] for slot in bits(mask)] for tier, mask in enumerate(masks) if mask}

    def _walk(self, keys: Sequence[int], assumed: Assumed | None, now_s: float, slots: int) -> Iterator[tuple[int, Match]]:
        if assumed is None and len(self._tiers.names) == 1:
            return self._walk_one_tier(keys, slots)
        return self._walk_tiers(keys, assumed, now_s, slots)

    def _walk_one_tier(self, keys: Sequence[int], slots: int) -> Iterator[tuple[int, Match]]:
        get = self._masks.get
        run = _Run(slots)
        for index, key in enumerate(keys):
            if not run.narrow(_gpu(get(key, 0)), index):
                break
        weight, name = self._tiers.weights[0], self._tiers.names[0]
        return ((slot, Match(blocks, blocks * weight, {name: blocks})) for slot, blocks in run.ended(len(keys)).items())

    def _walk_tiers(
        self, keys: Sequence[int], assumed: Assumed | None, now_s: float, slots: int
    ) -> Iterator[tuple[int, Match]]:
        tiers = self._tiers
        count = len(tiers.names)
        worth = [*tiers.weights[:count], ASSUMED_WEIGHT]
        best_first = sorted(range(count + 1), key=lambda number: -worth[number])
        whole, runs = _Run(slots), [_Run(slots) for _ in range(count + 1)]
        corrections: dict[int, float] = {}
        for index, key in enumerate(keys):
            masks = _tuple(self._masks.get(key, 0))[:count]
            guess = assumed.mask(key, now_s) if assumed is not None else 0
            by_tier = [*masks, *(0,) * (count - len(masks)), guess]
            held = 0
            for run, mask in zip(runs, by_tier, strict=True):
                run.narrow(mask, index)
                held |= mask
            if not whole.narrow(held, index):
                break
            left = whole.alive
            for number in best_first:
                hit = left & by_tier[number]
                if hit and worth[number] != worth[0]:
                    for slot in bits(hit):
                        corrections[slot] = corrections.get(slot, 0.0) + worth[number] - worth[0]
                left &= ~hit
                if not left:
                    break
        names = (*tiers.names[:count], ASSUMED)
        ended = [run.ended(len(keys)) for run in runs]
        return (
            (
                slot,
                Match(
                    blocks,
                    blocks * worth[0] + corrections.get(slot, 0.0),
                    {name: of_tier[slot] for name, of_tier in zip(names, ended, strict=True) if slot in of_tier},
                ),
            )
            for slot, blocks in whole.ended(len(keys)).items()
        )


class _Run:
    """How many leading blocks each slot has."""

    __slots__ = ("_ended", "alive")

    def __init__(self, slots: int) -> None:
        self.alive = slots
        self._ended: dict[int, int] = {}

    def narrow(self, mask: int, index: int) -> int:
        """The slots that have block ``index`` too, and all in front of it."""
        kept = self.alive & mask
        if kept != self.alive:
            if index:
                self._ended.update(dict.fromkeys(bits(self.alive ^ kept), index))
            self.alive = kept
        return kept

    def ended(self, blocks: int) -> dict[int, int]:
        """Slot → its blocks, of a prompt of this many; without those that have none."""
        if blocks:
            self._ended.update(dict.fromkeys(bits(self.alive), blocks))
        self.alive = 0
        return self._ended


def bits(mask: int) -> Iterator[int]:
    """Positions of the ones."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _tuple(masks: Masks) -> tuple[int, ...]:
    return (masks,) if isinstance(masks, int) else masks


def _gpu(masks: Masks) -> int:
    return masks if isinstance(masks, int) else masks[0]


def _with(masks: Masks, tier: int, bit: int) -> Masks:
    if isinstance(masks, int):
        if not tier:
            return masks | bit
        masks = (masks,)
    padded = [*masks, *(0,) * (tier + 1 - len(masks))]
    padded[tier] |= bit
    return tuple(padded)


def _without(masks: Masks, tier: int, bit: int) -> Masks:
    """The masks that are left; 0 if no bit is."""
    if isinstance(masks, int):
        return masks & ~bit if not tier else masks
    if tier >= len(masks):
        return masks
    left = [mask & ~bit if number == tier else mask for number, mask in enumerate(masks)]
    while left and not left[-1]:
        left.pop()
    return tuple(left) if len(left) > 1 else left[0] if left else 0
