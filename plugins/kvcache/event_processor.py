"""What events mean: from an engine's blocks to the index's, pod by pod, each pod's in its order.

Synchronous and without I/O. All of it runs on one thread, whatever reads the index on another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from epp.framework import log
from plugins.kvcache.block_index import PodTable
from plugins.kvcache.engine_keys import EngineKeys, Tail
from plugins.kvcache.events import AllBlocksCleared, BlockRemoved, BlockStored, Dialect, Event, EventError, decode
from plugins.kvcache.features import spread, united
from plugins.kvcache.identities import Identities
from plugins.kvcache.orphans import Orphans
from plugins.kvcache.pods import MAX_COUNT, Holding, Place, Pod
from plugins.kvcache.request_keys import TOKEN_BYTES, KeyChain
from plugins.kvcache.tiers import Tiers

_logger = log.get(__name__)

FULL_ATTENTION = frozenset({"full_attention", "mla_attention", "sink_full_attention"})
"""Kinds of groups in which a block is all that a later prompt needs; sliding windows and states forget."""
MAX_GROUPS = 256
MAX_SEEDS = 10_000
"""Of identities, that are not computed again."""
MAX_MODELS = 256
"""Engines with more than this publish garbage."""


class Source(NamedTuple):
    """Who published a message."""

    pod: str
    """Name of the pod, unless the batch says better by its rank."""
    by_rank: Sequence[str] = ()
    """Names of the pods behind one publisher, by data-parallel rank; "" = none."""
    model: str = ""
    """That the topic names; "" = none."""


class Store(Protocol):
    """Where the index is kept."""

    def add(self, pod: Pod, tier: int, key: int) -> bool:
        """A pod holds a block; False if that was known."""
        ...

    def remove(self, pod: Pod, tier: int, key: int) -> None:
        """A pod holds a block no longer."""
        ...

    def renamed(self, old: str, new: str, entries: int) -> None:
        """A pod has another name."""
        ...

    def linked(self, engine_key: int, keys: Sequence[int]) -> None:
        """An engine's key stands for these."""
        ...

    def find_parent(self, engine_key: int) -> int | None:
        """The last key that an engine's key stands for, if others told it."""
        ...

    def cleared(self, pod_name: str) -> None:
        """A pod holds nothing any longer; its entries were removed one by one."""
        ...

    def flush(self) -> None:
        """A message was applied."""
        ...


class _Model:
    """What is known of the engines of one base model."""

    __slots__ = ("keys", "orphans")

    def __init__(self, base_seed: int, limit: int) -> None:
        self.keys = EngineKeys(base_seed, limit)
        self.orphans = Orphans()


class EventProcessor:
    """Applies messages.

    Args:
        chain: makes keys.
        block_size: tokens of the index's blocks.
        identities: whose cache a block is in.
        pods: by name.
        tiers: by name.
        store: keeps the index.
        max_keys: most of the engines' keys that are remembered for each base model, and most blocks of a pod.
        dialect: of the events.
        clock: seconds.
    """

    def __init__(
        self,
        chain: KeyChain,
        block_size: int,
        identities: Identities,
        pods: PodTable,
        tiers: Tiers,
        store: Store,
        *,
        max_keys: int,
        dialect: Dialect = "vllm",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._block_size = block_size
        self._identities = identities
        self._pods = pods
        self._tiers = tiers
        self._store = store
        self._max_keys = max_keys
        self._dialect: Dialect = dialect
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._seeds: dict[str, int] = {}
        self.engine_block_size = block_size
        """Tokens of an engine's block, as the last one said that stored some."""
        self.counts: Counter[str] = Counter()
        """By name: what happened."""
        self.decode_errors: Counter[str] = Counter()
        """By reason: payloads and events that could not be used."""
        self.skipped: Counter[tuple[str, str, str]] = Counter()
        """(stores or removals, kind of the group, reason) → events that were left out."""

    @property
    def orphans(self) -> int:
        """Events that wait for their parents."""
        return sum(len(model.orphans) for model in list(self._models.values()))

    @property
    def engine_keys(self) -> int:
        """Keys of engines that are remembered."""
        return sum(len(model.keys) for model in list(self._models.values()))

    def apply_all(self, messages: Sequence[tuple[Source, bytes]]) -> None:
        """Apply messages in their order."""
        for source, payload in messages:
            self.apply(source, payload)

    def apply(self, source: Source, payload: bytes | memoryview) -> None:
        """Apply a message; whatever is wrong with it is counted, and what is right in it is applied."""
        try:
            batch = decode(payload, self._dialect)
        except EventError as error:
            self.decode_errors[error.reason] += 1
            return
        for problem in batch.errors:
            self.decode_errors[problem.reason] += 1
        rank = batch.rank
        name = source.by_rank[rank] if rank is not None and rank < len(source.by_rank) else ""
        pod = self._pods.admit(name or source.pod)
        model = self._model(source.model)
        if model is not None:
            for event in batch.events:
                self._apply(pod, model, source.model, event)
        self._store.flush()

    def clear(self, name: str) -> None:
        """A pod holds nothing any longer: its cache was emptied, or too much of what it said was missed."""
        pod = self._pods.by_name.get(name)
        if pod is not None:
            self._clear(pod)
            pod.kinds = {}
            self._store.flush()

    def admit(self, name: str) -> None:
        """There is such a pod."""
        self._pods.admit(name)

    def forget(self, name: str) -> None:
        """A pod left."""
        pod = self._pods.by_name.get(name)
        if pod is not None:
            self._clear(pod)
            self._pods.leave(pod)
            self._store.flush()

    def rename(self, old: str, new: str) -> None:
        """What published under one name is known by another now; what was known under that goes."""
        pod = self._pods.by_name.get(old)
        if pod is None or old == new:
            return
        self.forget(new)
        self._store.renamed(old, new, pod.blocks)
        self._pods.rename(pod, new)
        for model in self._models.values():
            model.orphans.renamed(old, new)
        self._store.flush()

    # ── events ──

    def _model(self, topic_model: str) -> _Model | None:
        scope = self._identities.scope(topic_model)
        model = self._models.get(scope)
        if model is None:
            if len(self._models) >= MAX_MODELS:
                self.counts["unsupported"] += 1
                return None
            seed = self._seed(topic_model, "")
            model = self._models[scope] = _Model(seed, self._max_keys)
        return model

    def _seed(self, topic_model: str, lora_name: str) -> int:
        identity = self._identities.of_event(topic_model, lora_name)
        seed = self._seeds.get(identity)
        if seed is None:
            if len(self._seeds) >= MAX_SEEDS:
                self._seeds.clear()
            seed = self._seeds[identity] = self._chain.seed(identity)
        return seed

    def _apply(self, pod: Pod, model: _Model, topic_model: str, event: Event) -> None:
        if isinstance(event, BlockStored):
            self._stored(pod, model, topic_model, event)
        elif isinstance(event, BlockRemoved):
            self._removed(pod, model, event)
        else:
            assert isinstance(event, AllBlocksCleared)
            self._clear(pod)

    def _stored(self, pod: Pod, model: _Model, topic_model: str, event: BlockStored) -> None:
        if event.group is not None and not self._is_indexable(pod, event):
            return
        tier = self._tiers.number(event.tier)
        if tier is None or (event.lora_id is not None and not event.lora_name):
            # Blocks of an adapter without a name would be taken for the base model's.
            self.counts["unsupported"] += 1
            return
        place = Place(tier, event.group)
        if not event.tokens:
            self._tier_stored(pod, model, place, event.hashes)
            return
        if event.block_size <= 0:
            self.skipped["stores", event.kind, "invalid_block_size"] += 1
            return
        seed = self._seed(topic_model, event.lora_name)
        if event.lora_name:
            self._identities.saw_adapter(event.lora_name)
        if self._link(pod, model, place, seed, event, frozenset()):
            self._adopt(model, topic_model, event.hashes)

    def _adopt(self, model: _Model, topic_model: str, parents: Iterable[int]) -> None:
        """Apply what waited for these blocks, and what waited for that in turn."""
        if not len(model.orphans):
            return
        model.orphans.sweep(self._clock())
        queue = list(parents)
        while queue:
            for orphan in model.orphans.take(queue.pop(0)):
                pod = self._pods.by_name.get(orphan.pod)
                tier = self._tiers.number(orphan.event.tier)
                if pod is None or tier is None:
                    continue
                seed = self._seed(topic_model, orphan.event.lora_name)
                place = Place(tier, orphan.event.group)
                # What still waits must not be taken again at once: garbage may be its own parent.
                if self._link(pod, model, place, seed, orphan.event, orphan.removed):
                    queue += orphan.event.hashes

    def _link(
        self, pod: Pod, model: _Model, place: Place, seed: int, event: BlockStored, removed: frozenset[int] | set[int]
    ) -> bool:
        """Work out the keys of an event's blocks, or keep it until its parent is known; whether any block is known now."""
        tail = Tail(seed) if event.parent is None else self._tail(model, event.parent, seed)
        if tail is None:
            self.counts["unknown_parent"] += 1
            model.orphans.add(pod.name, event, self._clock())
            return False
        engine_bytes = event.block_size * TOKEN_BYTES
        count = min(len(event.tokens) // engine_bytes, len(event.hashes), _usable(event.features))
        if not count:
            return False
        self.engine_block_size = event.block_size
        tokens = tail.rest + event.tokens[: count * engine_bytes]
        keys, features = self._keys(tail, tokens, event, count)
        if event.block_size % self._block_size or tail.rest:
            self._link_unevenly(pod, model, place, seed, event, count, tail, tokens, keys, features, removed)
            return True
        each = event.block_size // self._block_size
        for index in range(count):
            engine_key = event.hashes[index]
            own = tuple(keys[index * each : (index + 1) * each])
            self._learn(model, engine_key, seed, own, Tail(own[-1]))
            if engine_key not in removed:
                self._hold(pod, place, engine_key, own)
        return True

    def _keys(self, tail: Tail, tokens: bytes, event: BlockStored, count: int) -> tuple[list[int], Sequence[tuple[str, ...]]]:
        """The keys of all whole blocks, and the features of the engine's."""
        blocks = len(tokens) // (self._block_size * TOKEN_BYTES)
        of_engine = [features or () for features in event.features[:count]]
        head_tokens = len(tail.rest) // TOKEN_BYTES
        features = spread(of_engine, event.block_size, self._block_size, blocks, head_tokens, tail.features)
        return self._chain.extend(tail.key, tokens, self._block_size, features), of_engine

    def _link_unevenly(
        self,
        pod: Pod,
        model: _Model,
        place: Place,
        seed: int,
        event: BlockStored,
        count: int,
        tail: Tail,
        tokens: bytes,
        keys: Sequence[int],
        of_engine: Sequence[tuple[str, ...]],
        removed: frozenset[int] | set[int],
    ) -> None:
        """Where an engine's blocks are no multiples of the index's: a key belongs to the block that completes it."""
        if not pod.mismatch_told:
            pod.mismatch_told = True
            tell_mismatch(pod.name, event.block_size, self._block_size)
        width, done, key, rest_features = self._block_size * TOKEN_BYTES, 0, tail.key, tail.features
        end = len(tail.rest)
        for index in range(count):
            end += event.block_size * TOKEN_BYTES
            complete = end // width
            own = tuple(keys[done:complete])
            here = of_engine[index] if index < len(of_engine) else ()
            rest_features = here if own else united(rest_features, here)
            key, done = own[-1] if own else key, complete
            rest = tokens[complete * width : end]
            self._learn(model, event.hashes[index], seed, own, Tail(key, rest, rest_features if rest else ()))
            if own and event.hashes[index] not in removed:
                self._hold(pod, place, event.hashes[index], own)

    def _learn(self, model: _Model, engine_key: int, seed: int, keys: tuple[int, ...], tail: Tail) -> None:
        model.keys.put(engine_key, seed, keys, tail)
        if keys:
            self._store.linked(engine_key, keys)

    def _tail(self, model: _Model, parent: int, seed: int) -> Tail | None:
        tail = model.keys.tail(parent, seed)
        if tail is None and (found := self._store.find_parent(parent)) is not None:
            return Tail(found)
        return tail

    def _tier_stored(self, pod: Pod, model: _Model, place: Place, engine_keys: Iterable[int]) -> None:
        """Known blocks are in another tier too; the engine does not repeat their tokens."""
        for engine_key in engine_keys:
            keys = model.keys.keys(engine_key)
            if keys:
                self._hold(pod, place, engine_key, keys)

    def _removed(self, pod: Pod, model: _Model, event: BlockRemoved) -> None:
        model.orphans.removed(pod.name, event.hashes)
        if event.group is not None:
            kind = pod.kinds.get(event.group, "")
            if not kind and pod.kinds:
                self.skipped["removals", "", "unknown_group"] += 1
                return
            if kind and kind not in FULL_ATTENTION:
                self.skipped["removals", kind, "unsupported_cache_kind"] += 1
                return
        tier = self._tiers.number(event.tier)
        if tier is None:
            self.counts["unsupported"] += 1
            return
        place = Place(tier, event.group)
        held = pod.held.get(place)
        if held is not None:
            for engine_key in event.hashes:
                self._release(pod, place, held, engine_key)

    def _is_indexable(self, pod: Pod, event: BlockStored) -> bool:
        """The group's layers attend to all that is in front, and the blocks follow each other without a gap."""
        group = event.group
        assert group is not None
        if event.kind and len(pod.kinds) < MAX_GROUPS:
            pod.kinds[group] = event.kind
        kind = event.kind or pod.kinds.get(group, "")
        # Engines between two releases number groups without saying what they are; the first one attends fully.
        full = kind in FULL_ATTENTION if kind or pod.kinds else group == 0
        if not full:
            self.skipped["stores", kind, "unsupported_cache_kind"] += 1
            return False
        if event.tokens and event.block_size <= 0:
            self.skipped["stores", kind, "invalid_block_size"] += 1
            return False
        if event.tokens and len(event.tokens) != len(event.hashes) * event.block_size * TOKEN_BYTES:
            self.skipped["stores", kind, "non_dense_block_span"] += 1
            return False
        return True

    # ── what a pod holds ──

    def _hold(self, pod: Pod, place: Place, engine_key: int, keys: tuple[int, ...]) -> None:
        held = pod.held.get(place)
        if held is None:
            held = pod.held[place] = {}
        old = held.get(engine_key)
        if old is None:
            if len(held) >= self._max_keys:
                self._release_whole(pod, place, held, next(iter(held)))
            held[engine_key] = keys[0] if len(keys) == 1 else Holding(keys)
            new = keys
        else:
            holding = old if isinstance(old, Holding) else Holding((old,))
            new = tuple([key for key in keys if key not in holding.keys])
            holding.keys += new
            holding.count = min(holding.count + 1, MAX_COUNT)
            held[engine_key] = holding
            self.counts["duplicate_stores"] += 1
        tier = place.tier
        for key in new:
            if not self._store.add(pod, tier, key):
                pod.shared[tier, key] = pod.shared.get((tier, key), 0) + 1

    def _release(self, pod: Pod, place: Place, held: dict[int, int | Holding], engine_key: int) -> None:
        holding = held.get(engine_key)
        if holding is None:
            return
        if isinstance(holding, Holding) and holding.count > 1:
            holding.count -= 1
            self.counts["removals_suppressed"] += 1
            return
        self.counts["removals_forwarded"] += 1
        self._release_whole(pod, place, held, engine_key)

    def _release_whole(self, pod: Pod, place: Place, held: dict[int, int | Holding], engine_key: int) -> None:
        holding = held.pop(engine_key)
        tier = place.tier
        for key in holding.keys if isinstance(holding, Holding) else (holding,):
            others = pod.shared.get((tier, key), 0)
            if not others:
                self._store.remove(pod, tier, key)
            elif others == 1:
                del pod.shared[tier, key]
            else:
                pod.shared[tier, key] = others - 1

    def _clear(self, pod: Pod) -> None:
        pod.epoch += 1
        for place, held in pod.held.items():
            for holding in held.values():
                for key in holding.keys if isinstance(holding, Holding) else (holding,):
                    self._store.remove(pod, place.tier, key)
        pod.held = {}
        pod.shared = {}
        for model in self._models.values():
            model.orphans.cleared(pod.name)
        self._store.cleared(pod.name)
        self.counts["clears"] += 1


def tell_mismatch(pod: str, engine_block: int, index_block: int) -> None:
    """Say that an engine's blocks fit the index's badly."""
    _logger.warning(
        "an engine's blocks are no multiples of the index's, which costs time and the ends of prefixes: "
        "give tokenProcessorConfig.blockSize the engine's --block-size",
        endpoint=pod,
        engine_block_size=engine_block,
        index_block_size=index_block,
    )


def _usable(features: Sequence[tuple[str, ...] | None]) -> int:
    """Blocks in front of the first one that cannot be told apart from others."""
    for index, of_block in enumerate(features):
        if of_block is None:
            return index
    return 1 << 62
