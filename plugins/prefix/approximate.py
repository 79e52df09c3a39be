"""The guess: an endpoint holds the prompts that were sent to it, as far as its cache can hold them.

Shared by the plugin types that keep such an index. It needs no word of the engines, and knows nothing of what others send them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import CacheMismatch, HeaderEdits
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch, TokenizedPrompt
from epp.framework.prompt import BYTES_PER_TOKEN
from epp.framework.results import SchedulingResult
from epp.framework.types import EndpointChange, EndpointId, InferenceRequest
from plugins.prefix import twins
from plugins.prefix.keys import KEY_BYTES
from plugins.prefix.request_keys import RequestKeyReader, RequestKeys, Steps
from plugins.prefix.settings import IndexSettings
from plugins.prefix.sizes import Sizes
from plugins.prefix.turns import Turn, finish, slices

_logger = log.get(__name__)

SHOWN_ENDPOINTS = 100
"""In the debug state."""


class ApproximatePrefixes:
    """Remembers the prompts that were sent to each endpoint, and finds the beginning of new ones among them.

    Args:
        context: of the plugin, under whose name matches are written.
        tokens: where a tokenizer writes.
    """

    def __init__(self, context: PluginContext, settings: IndexSettings, tokens: DataKey[TokenizedPrompt]) -> None:
        self._name = context.name
        self._settings = settings
        self._match_key: DataKey[dict[EndpointId, PrefixMatch]] = PREFIX_CACHE_MATCH.by(context.name)
        self._keys_key: DataKey[RequestKeys] = DataKey("PrefixKeys", RequestKeys, context.name)
        self._reader = RequestKeyReader(settings, tokens)
        self._sizes = Sizes(context.name, settings)
        self._index = twins.make_index()
        self._slots: dict[EndpointId, int] = {}
        self._ids: list[EndpointId] = []
        """By slot; of a free slot the id that had it last."""
        self._free: list[int] = []
        labels = {"plugin_name": context.name, "plugin_type": context.type}
        self._size = context.metrics.gauge("llm_d_epp_prefix_indexer_size", **labels)
        self._hit_ratio = context.metrics.histogram("llm_d_epp_prefix_indexer_hit_ratio", **labels)
        self._hit_bytes = context.metrics.histogram("llm_d_epp_prefix_indexer_hit_bytes", **labels)

    # ── hooks ──

    def produce(self, request: InferenceRequest, candidates: Candidates) -> Awaitable[None] | None:
        """Write what each endpoint holds of the request's prompts. A long prompt is hashed in several turns of the loop."""
        self._observe(candidates)
        keys = self._reader.read(request, self._sizes.block_tokens)
        if keys is not None:
            self._look_up(request, keys)
            return None
        steps = self._reader.steps(request, self._sizes.block_tokens)
        try:
            next(steps)
        except StopIteration as done:
            self._look_up(request, done.value)
            return None
        return self._go_on(request, steps)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> Awaitable[None] | None:
        """Remember the prompts for the endpoint that serves the request, and for the one that prefills it."""
        keys = request.data.get(self._keys_key)
        request.data.discard(self._keys_key)  # some 50 KB of a long prompt, while its answer takes minutes
        if keys is None or not keys.total_blocks or keys.block_tokens != self._sizes.block_tokens:
            return None
        ids = [target.id for profile in (result.primary, result.prefill) for target in result.targets_of(profile)[:1]]
        steps = self._remember(list(dict.fromkeys(ids)), keys)
        try:
            next(steps)
        except StopIteration:
            return None
        return finish(steps)

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget what endpoints held that are gone or have moved."""
        self._sizes.endpoints_changed(change)
        for endpoint in change.removed:
            slot = self._slots.pop(endpoint.id, None)
            if slot is not None:
                self._index.clear(slot)
                self._free.append(slot)
        self._size.set(len(self._index))

    def debug_state(self) -> object:
        """The sizes, and the endpoints that hold most; no keys."""
        held = sorted(((-self._index.size(slot), endpoint_id) for endpoint_id, slot in self._slots.items()))
        return {
            "block_size_tokens": self._sizes.block_tokens,
            "entries": len(self._index),
            "different_blocks": self._index.keys(),
            "endpoints": {
                endpoint_id: {"blocks": -size, "capacity": self._sizes.capacity(endpoint_id)}
                for size, endpoint_id in held[:SHOWN_ENDPOINTS]
            },
        }

    def explain_mismatch(self, endpoint_id: EndpointId, mismatch: CacheMismatch) -> str:
        """What such an index is often wrong about."""
        capacity = self._sizes.capacity(endpoint_id)
        if mismatch is CacheMismatch.TOO_MANY:
            return (
                f"smaller cache: the server has forgotten what is remembered here, up to {capacity} blocks; lower "
                "lruCapacityPerServer, or let autoTune read the server's metrics"
            )
        if mismatch in (CacheMismatch.UNFORESEEN, CacheMismatch.TOO_FEW):
            return (
                "requests that this picker did not send, or before it was started: other replicas of it, other clients; or a "
                f"larger cache than {capacity} blocks"
            )
        return ""

    # ── parts ──

    def _observe(self, candidates: Candidates) -> None:
        """Follow the sizes of the engines."""
        before = self._sizes.block_tokens
        changed = self._sizes.observe(candidates)
        if self._sizes.block_tokens != before:
            self._change_block_size(before)
        for endpoint_id in changed:
            slot = self._slots.get(endpoint_id)
            if slot is not None:
                self._index.add(slot, b"", self._sizes.capacity(endpoint_id))

    def _change_block_size(self, before: int) -> None:
        """Blocks of another size match nothing any more."""
        dropped, now = len(self._index), self._sizes.block_tokens
        for slot in self._slots.values():
            self._index.clear(slot)
        _logger.info(
            "block size of the prefix index follows the engines", plugin=self._name, before=before, now=now, dropped=dropped
        )
        enough = self._settings.enough_for_tokens(now)
        if twins.READS_BODIES and enough is not None:
            _logger.warning(
                "prompts are hashed at the decision and not while they arrive: set blockSizeTokens to what the engines have",
                plugin=self._name,
                which=f"prompts of more than {enough} tokens" if enough else "all prompts",
                blockSizeTokens=now,
            )

    async def _go_on(self, request: InferenceRequest, steps: Steps) -> None:
        self._look_up(request, await finish(steps))

    def _look_up(self, request: InferenceRequest, keys: RequestKeys) -> None:
        found = self._held_by_slot(keys)
        records: dict[int, PrefixMatch] = {}
        matches: dict[EndpointId, PrefixMatch] = {}
        for slot, blocks in found:
            record = records.get(blocks)
            if record is None:
                record = records[blocks] = PrefixMatch(blocks, keys.total_blocks, keys.block_tokens)
            matches[self._ids[slot]] = record
        request.data.set(self._match_key, matches)
        request.data.set(self._keys_key, keys)
        if keys.total_blocks:
            best = max(records, default=0)
            self._hit_ratio.observe(best / keys.total_blocks)
            self._hit_bytes.observe(best * keys.block_tokens * BYTES_PER_TOKEN)

    def _held_by_slot(self, keys: RequestKeys) -> list[tuple[int, int]]:
        """(slot, blocks of all prompts that it holds)."""
        if len(keys.prompts) == 1:
            return self._index.match(keys.prompts[0])
        held: dict[int, int] = {}
        for prompt in keys.prompts:
            for slot, blocks in self._index.match(prompt):
                held[slot] = held.get(slot, 0) + blocks
        return list(held.items())

    def _remember(self, ids: Sequence[EndpointId], keys: RequestKeys) -> Generator[None]:
        """Put the keys in, of each prompt the last ones first, in steps."""
        turn = Turn()
        sizes = self._sizes
        for endpoint_id in ids:
            capacity = sizes.capacity(endpoint_id)
            for prompt in keys.prompts:
                for part in reversed(list(slices(prompt[: capacity * KEY_BYTES], KEY_BYTES))):
                    if endpoint_id not in sizes or keys.block_tokens != sizes.block_tokens:
                        break  # it left the pool, or the block size changed, while something waited
                    self._index.add(self._slot_of(endpoint_id), part, sizes.capacity(endpoint_id))
                    self._keep_bound()
                    if turn.is_over(len(part) // KEY_BYTES):
                        yield
        self._size.set(len(self._index))

    def _slot_of(self, endpoint_id: EndpointId) -> int:
        slot = self._slots.get(endpoint_id)
        if slot is None:
            slot = self._slots[endpoint_id] = self._take_slot(endpoint_id)
        return slot

    def _take_slot(self, endpoint_id: EndpointId) -> int:
        if not self._free:
            self._ids.append(endpoint_id)
            return len(self._ids) - 1
        slot = self._free.pop()
        self._ids[slot] = endpoint_id
        return slot

    def _keep_bound(self) -> None:
        """Let those who hold most forget what is oldest; to a little below the bound, so that it is not reached each time."""
        bound, index = self._settings.total_entries, self._index
        if not bound or len(index) <= bound:
            return
        if sum(map(index.size, self._slots.values())) <= bound:
            return  # ``len`` counts keys twice that are added once more beside the event loop
        aim = bound - bound // 64
        while (excess := len(index) - aim) > 0:
            largest = max(self._slots.values(), key=index.size)
            size = index.size(largest)
            index.add(largest, b"", size - min(excess, max(1, size // 2)))
