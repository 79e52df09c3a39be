"""A model of one vLLM-like engine: waiting queue, running batch, KV blocks, prefix cache, adapters.

It has no clock and does not wait: each call says what time it is, and `Engine.due_s` says when something happens next. Time
passes in steps, as in the real engine. A step gives one token to each decoding sequence and computes a chunk of the prompts in
the batch; its duration grows with both. While nobody watches single tokens, equal steps are run as one, so an answer that is
not streamed costs two or three wake-ups instead of one for each token.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from epp.simulate.blocks import BYTES_PER_TOKEN, BlockPool, block_hashes, tokens_of
from epp.simulate.observer import CacheObserver
from epp.simulate.options import EngineOptions
from epp.simulate.sequence import Phase, Sequence
from epp.simulate.statistics import Statistics

_MAX_STEPS_AT_ONCE = 256


@dataclass(slots=True)
class _Step:
    """``count`` equal steps under way."""

    start_s: float
    unit_s: float
    decoding: list[Sequence]
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    count: int = 1

    @property
    def end_s(self) -> float:
        return self.start_s + self.unit_s * self.count

    @property
    def is_idle(self) -> bool:
        """Nothing is computed; the step only lasts until a first token is due."""
        return not self.decoding and not self.chunks


class Engine:
    """One engine. Not thread-safe; times are seconds of any monotonic clock and may only grow.

    Args:
        options: capacity and speed.
        observer: is told of each change of the prefix cache.
    """

    def __init__(self, options: EngineOptions, observer: CacheObserver | None = None) -> None:
        self.options = options
        self.statistics = Statistics(options.max_model_len)
        self._observer = observer
        self._pool = BlockPool(options.kv_blocks, observer.removed if observer else None)
        self._kept: set[Sequence] = set()
        self._block_bytes = options.block_size * BYTES_PER_TOKEN
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._resident: OrderedDict[str, None] = OrderedDict()
        self._loads = 0
        self._step: _Step | None = None
        self._rng = random.Random(options.seed)

    # What it looks like from outside

    @property
    def due_s(self) -> float | None:
        """When `advance` should be called next; None while the engine is idle."""
        return self._step.end_s if self._step else None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV blocks that requests hold, 0 to 1."""
        return self._pool.usage_ratio

    @property
    def cached_blocks(self) -> int:
        """Blocks whose content can be found again, held or not."""
        return self._pool.cached

    @property
    def running_adapters(self) -> list[str]:
        """Adapters of the batch, sorted."""
        return sorted({s.adapter for s in self._running if s.adapter})

    @property
    def waiting_adapters(self) -> list[str]:
        """Adapters of the queue, sorted."""
        return sorted({s.adapter for s in self._waiting if s.adapter})

    # What happens to it

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """Put a request into the queue.

        Raises:
            ValueError: the request can never fit into the KV cache.
        """
        size_tokens = sequence.prompt_tokens + sequence.answer_tokens
        if size_tokens > self.options.max_model_len:
            raise ValueError(f"{size_tokens} tokens do not fit into {self.options.max_model_len}")
        self.settle(now_s)
        sequence.arrival_s = now_s
        self._waiting.append(sequence)
        self._replan(now_s)

    def abort(self, sequence: Sequence, now_s: float) -> None:
        """Drop a request, wherever it is; nothing happens if it has ended."""
        self.settle(now_s)
        if sequence.ended:
            return
        if sequence.phase is Phase.WAITING:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._release(sequence)
        self._end(sequence, Phase.ABORTED, now_s)
        self._replan(now_s)

    def advance(self, now_s: float) -> None:
        """Let all steps happen that end by ``now_s``."""
        while self._step is not None and self._step.end_s <= now_s:
            step = self._step
            self._apply(step, step.count, step.end_s)
            self._begin_step(step.end_s)

    def settle(self, now_s: float) -> None:
        """`advance`, and account also for the finished part of several steps that run as one."""
        self.advance(now_s)
        step = self._step
        if step is None or step.count == 1 or step.unit_s <= 0:
            return
        done = min(int((now_s - step.start_s) / step.unit_s), step.count - 1)
        if done > 0:
            self._apply(step, done, step.start_s + done * step.unit_s)
            step.start_s += done * step.unit_s
            step.count -= done

    def free(self, sequence: Sequence, now_s: float) -> None:
        """Give up the blocks of a kept sequence that has finished; nothing happens a second time."""
        self.settle(now_s)
        if sequence in self._kept:
            self._kept.remove(sequence)
            self._release(sequence)
            self._replan(now_s)

    def forget(self, now_s: float) -> bool:
        """Forget the cache, as long as no request holds a block of it.

        Returns:
            Whether it was forgotten.
        """
        self.settle(now_s)
        if self._pool.used:
            return False
        self._clear()
        return True

    def reset(self, now_s: float) -> None:
        """Drop all requests and forget the cache, as a crashed process does."""
        for sequence in [*self._running, *self._waiting]:
            self.abort(sequence, now_s)
        for sequence in [*self._kept]:
            self.free(sequence, now_s)
        self._clear()
        self._resident.clear()

    def _clear(self) -> None:
        self._pool.clear()
        if self._observer is not None:
            self._observer.cleared()

    # Planning

    def _replan(self, now_s: float) -> None:
        """The queue or the batch has changed: it takes effect when the current single step ends."""
        if self._step is None or self._step.is_idle:
            self._begin_step(now_s)
        else:
            self._step.count = 1

    def _begin_step(self, now_s: float) -> None:
        self._admit(now_s)
        if not self._running:
            self._step = None
            return
        decoding = [s for s in self._running if s.phase is Phase.DECODING]
        chunks = self._prefill_chunks()
        starting = [s.ready_s for s in self._running if s.phase is Phase.STARTING]
        if not decoding and not chunks:
            self._step = _Step(now_s, max(0.0, min(starting) - now_s), decoding)
            return
        unit_s = self._duration_s(len(decoding), sum(tokens for _, tokens in chunks))
        self._step = _Step(now_s, unit_s, decoding, chunks)
        if not chunks and not any(s.watched for s in decoding):
            self._step.count = self._equal_steps(decoding, unit_s, min(starting, default=None), now_s)

    def _prefill_chunks(self) -> list[tuple[Sequence, int]]:
        budget = self.options.max_batched_tokens
        chunks = []
        for sequence in self._running:
            if sequence.phase is not Phase.PREFILL or budget <= 0:
                continue
            tokens = min(sequence.prefill_left, budget)
            budget -= tokens
            chunks.append((sequence, tokens))
        return chunks

    def _duration_s(self, decoding: int, prefill_tokens: int) -> float:
        options = self.options
        fullness = (decoding - 1) / max(1, options.max_num_seqs - 1)
        decode_ms = options.tpot_ms * (1 + options.tpot_growth * fullness) if decoding else 0.0
        duration_ms = decode_ms + prefill_tokens * options.prefill_us_per_token / 1e3 + self._loads * options.lora_load_ms
        self._loads = 0
        jitter = self._rng.uniform(-options.jitter_ratio, options.jitter_ratio) if options.jitter_ratio else 0.0
        return duration_ms * (1 + jitter) * options.time_scale / 1e3

    def _equal_steps(self, decoding: list[Sequence], unit_s: float, ready_s: float | None, now_s: float) -> int:
        """How many steps pass before the batch changes."""
        count = min(_MAX_STEPS_AT_ONCE, *(s.remaining for s in decoding))
        if ready_s is not None and unit_s > 0:
            count = min(count, max(1, -int(-(ready_s - now_s) // unit_s)))
        needed = sum(self._blocks_for(s, count) for s in decoding)
        return count if needed <= self._pool.available else 1

    # Admission

    def _admit(self, now_s: float) -> None:
        active = {s.adapter for s in self._running if s.adapter}
        skipped: list[Sequence] = []
        while self._waiting and len(self._running) < self.options.max_num_seqs:
            sequence = self._waiting.popleft()
            if sequence.adapter and sequence.adapter not in active and len(active) >= self.options.max_lora:
                skipped.append(sequence)
                continue
            if not self._take_blocks(sequence):
                self._waiting.appendleft(sequence)
                break
            if sequence.adapter:
                active.add(sequence.adapter)
                self._use_adapter(sequence.adapter)
            sequence.phase = Phase.PREFILL
            sequence.admitted_s = sequence.admitted_s or now_s
            self._running.append(sequence)
            if not sequence.prefill_left:
                self._start(sequence, now_s)
        self._waiting.extendleft(reversed(skipped))

    def _take_blocks(self, sequence: Sequence) -> bool:
        if not sequence.wanted:
            sequence.wanted = block_hashes(sequence.data(), self._block_bytes, sequence.root)
        hashes = sequence.wanted
        rest = sequence.size_bytes > len(hashes) * self._block_bytes
        tokens = max(1, tokens_of(sequence.size_bytes))
        hit_blocks = self._pool.match(hashes, (tokens - 1) // self.options.block_size)
        if self._pool.missing(hashes) + rest > self._pool.available:
            return False
        new = self._pool.hold(hashes)
        if rest:
            self._pool.hold_private()
        sequence.blocks, sequence.private_block, sequence.wanted = hashes, rest, []
        self._announce(sequence, new)
        hit_tokens = hit_blocks * self.options.block_size
        missing = tokens - hit_tokens
        fetched = missing if sequence.transferred and not sequence.preemptions else 0
        sequence.prefill_left = missing - fetched
        if not sequence.preemptions:
            # The last token of a fetched prompt is computed once more, for the first token of the answer.
            sequence.cached_tokens = tokens - 1 if fetched else hit_tokens
            sequence.fetched_tokens = fetched
            self.statistics.admitted(tokens, hit_tokens, fetched)
        return True

    def _announce(self, sequence: Sequence, new: list[int]) -> None:
        if new and self._observer is not None:
            self._observer.stored(sequence, new)

    def _use_adapter(self, adapter: str) -> None:
        if adapter in self._resident:
            self._resident.move_to_end(adapter)
            return
        self._loads += 1
        self._resident[adapter] = None
        if len(self._resident) > self.options.max_lora:
            self._resident.popitem(last=False)

    # Progress

    def _apply(self, step: _Step, count: int, now_s: float) -> None:
        """``count`` of the step's units are over, at ``now_s``."""
        for sequence, tokens in step.chunks:
            self._prefilled(sequence, tokens, now_s)
        progressed = [s for s in step.decoding if s.phase is Phase.DECODING and self._grow(s, count)]
        decoded = len(progressed)
        for sequence in [s for s in self._running if s.phase is Phase.STARTING and s.ready_s <= now_s]:
            if sequence.phase is not Phase.STARTING:  # preempted by one before it
                continue
            sequence.phase = Phase.DECODING
            if sequence.answer and self._grow(sequence, 1):
                progressed.append(sequence)
        if self._observer is not None:
            self._observer.step_ended()
        self.statistics.first_tokens(len(progressed) - decoded)
        self.statistics.stepped(sum(tokens for _, tokens in step.chunks), decoded, count, step.unit_s)
        for sequence in progressed:
            if not sequence.first_token_s:
                sequence.first_token_s = now_s
            if sequence.watched and sequence.remaining and sequence.on_progress:
                sequence.on_progress()
        for sequence in [s for s in self._running if s.phase is Phase.DECODING and not s.remaining]:
            self._running.remove(sequence)
            if sequence.kept:
                self._kept.add(sequence)
            else:
                self._release(sequence)
            self._end(sequence, Phase.FINISHED, now_s)

    def _prefilled(self, sequence: Sequence, tokens: int, now_s: float) -> None:
        if sequence.phase is not Phase.PREFILL:
            return
        sequence.prefill_left -= tokens
        if sequence.prefill_left <= 0:
            self._start(sequence, now_s)

    def _start(self, sequence: Sequence, now_s: float) -> None:
        """The prompt is there, or is fetched from now on: what is left before the first token is waiting."""
        sequence.phase = Phase.STARTING
        sequence.prefilled_s = now_s
        wait_ms = 0.0 if sequence.preemptions else self.options.ttft_ms + self._transfer_ms(sequence)
        sequence.ready_s = now_s + wait_ms * self.options.time_scale / 1e3

    def _transfer_ms(self, sequence: Sequence) -> float:
        return sequence.fetched_tokens * self.options.transfer_us_per_token / 1e3

    def _blocks_for(self, sequence: Sequence, tokens: int) -> int:
        """New blocks that ``tokens`` more tokens need."""
        size = sequence.size_bytes
        return -(-(size + tokens * BYTES_PER_TOKEN) // self._block_bytes) - -(-size // self._block_bytes)

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Add tokens; False when the sequence itself had to be preempted for want of blocks."""
        needed = self._blocks_for(sequence, tokens)
        while needed > self._pool.available:
            victim = self._running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.produced += tokens
        if needed or sequence.size_bytes // self._block_bytes > len(sequence.blocks):
            self._fill_blocks(sequence)
        return True

    def _fill_blocks(self, sequence: Sequence) -> None:
        known = len(sequence.blocks)
        parent = sequence.blocks[-1] if known else sequence.root
        new: list[int] = []
        for block in block_hashes(sequence.data(known * self._block_bytes), self._block_bytes, parent):
            if sequence.private_block:
                new += self._pool.fill_private(block)
                sequence.private_block = False
            else:
                new += self._pool.hold((block,))
            sequence.blocks.append(block)
        self._announce(sequence, new)
        if not sequence.private_block and sequence.size_bytes > len(sequence.blocks) * self._block_bytes:
            self._pool.hold_private()
            sequence.private_block = True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._release(sequence)
        sequence.phase = Phase.WAITING
        sequence.preemptions += 1
        self._waiting.appendleft(sequence)
        self.statistics.preempted()

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks, sequence.private_block)
        sequence.blocks, sequence.private_block = [], False

    def _end(self, sequence: Sequence, phase: Phase, now_s: float) -> None:
        sequence.phase = phase
        sequence.finished_s = now_s
        self.statistics.ended(sequence)
        if sequence.on_progress:
            sequence.on_progress()
