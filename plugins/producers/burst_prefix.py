"""burst-prefix-cache-producer: send simultaneous requests with equal prefixes to the same endpoint."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field, field_validator

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType, Reads
from epp.framework.types import EndpointId, InferenceRequest
from plugins.prefix import twins
from plugins.prefix.burst import BurstRules, Held, assign
from plugins.prefix.request_keys import RequestKeyReader, RequestKeys
from plugins.prefix.settings import IndexSettings
from plugins.prefix.turns import finish

TYPE = "burst-prefix-cache-producer"
MARGIN_S = 0.3
"""On top of the window."""
LONGEST_MS = 4500
"""Of a window, as the whole decision has 5 s."""


class BurstPrefixCacheProducerParams(Params):
    """Parameters of burst-prefix-cache-producer."""

    window_duration_ms: Int = Field(default=100, ge=1, le=10000, description="How long requests are held to be grouped, in ms.")
    max_per_replica: Int = Field(default=-1, description="Most requests of a group per endpoint; -1 = no limit.")
    block_size_tokens: Int = Field(default=64, gt=0, description="Tokens per prefix block.")
    max_prefix_tokens_to_match: Int = Field(default=0, ge=0, description="Tokens of a prompt that are compared; 0 = all.")
    min_colocate_blocks: Int = Field(default=0, ge=0, description="Common blocks from which requests are grouped.")
    max_batch_size: Int = Field(default=1000, description="Most requests of a window; -1 = no limit.")
    balance_by: Literal["requests", "tokens"] = Field(default="requests", description="What is balanced between endpoints.")

    @field_validator("max_per_replica", "max_batch_size")
    @classmethod
    def _check_limit(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"must be at least 1, or -1 for no limit; it is {value}")
        return value

    def index_settings(self) -> IndexSettings:
        """Which blocks are compared."""
        return IndexSettings(block_tokens=self.block_size_tokens, max_blocks=0, max_tokens=self.max_prefix_tokens_to_match)


class _Batch:
    """The requests of one window."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.is_over = asyncio.Event()


class BurstPrefixCacheProducer:
    """Hold the requests of a short window, and send those with equal prefixes to the same endpoint.

    For bursts of requests with a prefix that nobody has cached yet, such as the samples of one prompt: each would go to another
    endpoint, and each endpoint would compute it. A scorer that reads this match (`prefix-cache-scorer` with
    `prefixMatchInfoProducerName`) then makes it count.

    Parameters: windowDurationMs, maxPerReplica, minColocateBlocks, maxBatchSize, balanceBy; blockSizeTokens and
        maxPrefixTokensToMatch for what is compared.
    Reads: the prompt; TokenizedPrompt, if it is exact.
    Writes: PrefixCacheMatchInfo: all of the prompt on the endpoint that the request is assigned to, nothing on others.
    Rule: the first request opens a window; all that come until it ends are held. Requests with equal prompts are assigned
        together, the longest first, to the endpoint that was assigned least, then with the fewest running requests; with
        ``maxPerReplica`` to as many as that takes. With ``minColocateBlocks`` different prompts that begin with as many common
        blocks join each other, unless their endpoint has its share of the burst.
    Missing data: a prompt without a whole block is not held, nor one beyond ``maxBatchSize``; nobody is preferred for it.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/burstprefix
    """

    def __init__(self, context: PluginContext, params: BurstPrefixCacheProducerParams, window_s: float) -> None:
        self._key: DataKey[dict[EndpointId, PrefixMatch]] = PREFIX_CACHE_MATCH.by(context.name)
        self._reader = RequestKeyReader(params.index_settings(), context.key(TOKENIZED_PROMPT))
        self._block_tokens = params.block_size_tokens
        self._window_s = window_s
        self._most = params.max_batch_size if params.max_batch_size > 0 else None
        self._rules = BurstRules(
            params.max_per_replica if params.max_per_replica > 0 else None,
            params.min_colocate_blocks,
            params.balance_by == "tokens",
        )
        self._batch: _Batch | None = None
        self._windows = self._assigned = 0

    @property
    def deadline_s(self) -> float:
        """The window and a margin."""
        return self._window_s + MARGIN_S

    async def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Wait for the end of the window, and write where the request was assigned to."""
        keys = await self._keys(request)
        if not keys.total_blocks:
            return
        batch = self._batch or self._open()
        if self._most is not None and len(batch.held) >= self._most:
            return
        held = Held(keys, candidates)
        batch.held.append(held)
        try:
            await batch.is_over.wait()
        finally:
            held.is_gone = not batch.is_over.is_set()
        matches = {}
        if held.assigned is not None:
            matches[held.assigned] = PrefixMatch(keys.total_blocks, keys.total_blocks, keys.block_tokens)
        request.data.set(self._key, matches)

    def debug_state(self) -> object:
        """How many windows there were, and requests that were assigned."""
        waiting = len(self._batch.held) if self._batch is not None else 0
        return {"windows": self._windows, "assigned": self._assigned, "held": waiting}

    async def _keys(self, request: InferenceRequest) -> RequestKeys:
        known = self._reader.read(request, self._block_tokens)
        if known is not None:
            return known
        steps = self._reader.steps(request, self._block_tokens)
        try:
            next(steps)
        except StopIteration as done:
            keys: RequestKeys = done.value
            return keys
        return await finish(steps)

    def _open(self) -> _Batch:
        batch = self._batch = _Batch()
        asyncio.get_running_loop().call_later(self._window_s, self._close, batch)
        return batch

    def _close(self, batch: _Batch) -> None:
        self._batch = None
        self._windows += 1
        try:
            assign(batch.held, self._rules)
            self._assigned += sum(held.assigned is not None for held in batch.held)
        finally:
            batch.is_over.set()


def _create(context: PluginContext, params: BurstPrefixCacheProducerParams) -> BurstPrefixCacheProducer:
    window_ms = min(params.window_duration_ms, LONGEST_MS)
    if window_ms < params.window_duration_ms:
        context.warn("windowDurationMs", f"{params.window_duration_ms} is too long for one decision; {LONGEST_MS} is used")
    return BurstPrefixCacheProducer(context, params, window_ms / 1000)


def _readers(params: BurstPrefixCacheProducerParams) -> tuple[str, ...]:
    return (params.index_settings().reader,) if twins.READS_BODIES else ()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER}),
    summary="Sends simultaneous requests with equal prefixes to the same endpoint.",
    params=BurstPrefixCacheProducerParams,
    produces=(PREFIX_CACHE_MATCH.by(TYPE),),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    experimental=True,
    factory=_create,
    reads=Reads(readers_of=_readers),
)
