"""How much of a trace could be found in caches at best: a yardstick for hit rates, without time, load or a picker.

Each request in its order goes to the server that holds most of its beginning, whose cache then holds it whole; the least
recently used blocks make room. Taken by the word, a beginning that all prompts share sends everything to the one server that
got it first. So a match counts only above a least length, below which servers are taken in turn; several such lengths are
tried, and the best one in hindsight is the bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from epp.replay.figures import rate
from epp.replay.load import RecordedRequest, Trace
from epp.replay.options import ReplayOptions
from epp.replay.work import Work
from epp.simulate.blocks import BYTES_PER_TOKEN, BlockPool, block_hashes
from epp.simulate.exchange import ApiError
from epp.simulate.sequence import Sequence

LEAST_TOKENS = (0, 512, 1024, 2048, 4096)
"""Lengths above which a match counts."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Hit rates that no time and no load stand in the way of; of the requests that fit into a server."""

    requests: int
    """That fit."""
    prompt_tokens: int
    cached_tokens: dict[int, int]
    """In the servers' caches, by the length above which a match counts, in tokens."""
    cached_tokens_joined: int
    """In one cache as large as all of them together."""
    cached_tokens_unlimited: int
    """In one cache that forgets nothing."""

    @property
    def least_tokens(self) -> int:
        """The length with which most was found."""
        return max(self.cached_tokens, key=lambda least: (self.cached_tokens[least], -least))

    @property
    def hit_rate(self) -> float:
        """The bound: of greedy choice among these servers."""
        return rate(self.cached_tokens[self.least_tokens], self.prompt_tokens)

    @property
    def hit_rate_longest_match(self) -> float:
        """The same if every match counts."""
        return rate(self.cached_tokens[0], self.prompt_tokens)

    @property
    def hit_rate_joined(self) -> float:
        """What no choice can surpass, if the least recently used goes first."""
        return rate(self.cached_tokens_joined, self.prompt_tokens)

    @property
    def hit_rate_unlimited(self) -> float:
        """What the trace has in common with itself."""
        return rate(self.cached_tokens_unlimited, self.prompt_tokens)


def bound(trace: Trace, options: ReplayOptions, on_progress: Callable[[int], None] = lambda _: None) -> Bound:
    """The bound of a trace on these servers.

    Args:
        on_progress: told how many requests were looked at.
    """
    work = Work(options.engine.seed, options.lora)
    engine = options.engine
    block_bytes = engine.block_size * BYTES_PER_TOKEN
    caches = {least: _Caches(options.servers, engine.kv_blocks, least // engine.block_size) for least in LEAST_TOKENS}
    joined, unlimited = _Caches(1, options.servers * engine.kv_blocks), _Caches(1, sys.maxsize)
    requests = prompt_tokens = 0
    for done, recorded in enumerate(trace.requests, 1):
        on_progress(done)
        sequences = _sequences(work, recorded, options)
        if not sequences or any(each.prompt_tokens + each.answer_tokens > engine.max_model_len for each in sequences):
            continue
        requests += 1
        prompt_tokens += sum(each.prompt_tokens for each in sequences)
        parts = [_Part.of(each, block_bytes, engine.block_size) for each in sequences]
        for each in (*caches.values(), joined, unlimited):
            each.serve(parts)
    found = {least: each.found * engine.block_size for least, each in caches.items()}
    return Bound(requests, prompt_tokens, found, joined.found * engine.block_size, unlimited.found * engine.block_size)


def _sequences(work: Work, recorded: RecordedRequest, options: ReplayOptions) -> list[Sequence]:
    """One for each prompt; none of a request that a server refuses."""
    prompt = recorded.content.prompt()
    body = recorded.content.body(options.model) if prompt is None else b""
    try:
        sequences, _ = work.sequences(recorded.path, body, prompt, recorded.output_tokens)
    except ApiError:
        return []
    return list({id(sequence.prompt): sequence for sequence in sequences}.values())


@dataclass(frozen=True, slots=True)
class _Part:
    """The blocks of one prompt and its answer."""

    blocks: list[int]
    most: int
    """So many of the prompt can be found at most: one token is always computed."""

    @classmethod
    def of(cls, sequence: Sequence, block_bytes: int, block_tokens: int) -> _Part:
        blocks = block_hashes(sequence.prompt + sequence.answer, block_bytes, sequence.root)
        return cls(blocks, (sequence.prompt_tokens - 1) // block_tokens)


class _Caches:
    """The caches of some servers.

    Args:
        servers: how many.
        blocks: of each.
        least: so many blocks must be found for a match to count.
    """

    def __init__(self, servers: int, blocks: int, least: int = 0) -> None:
        self._pools = [BlockPool(blocks) for _ in range(servers)]
        """Least recently chosen first."""
        self._least = least
        self.found = 0
        """Blocks, of all requests."""

    def serve(self, parts: list[_Part]) -> None:
        """Serve a request by one of them."""
        found = [sum([pool.match(part.blocks, part.most) for part in parts]) for pool in self._pools]
        best = max(found)
        index = found.index(best) if best > self._least else 0
        self.found += found[index]
        pool = self._pools.pop(index)
        self._pools.append(pool)
        for part in parts:
            pool.hold(part.blocks)
            pool.release(part.blocks, private=False)
