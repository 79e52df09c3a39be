"""What an engine has done: counters and histograms, as vLLM counts them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence as Values

from epp.simulate.sequence import Phase, Sequence

_FAST = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
)  # fmt: skip
_REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0,
    7680.0,
)  # fmt: skip
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Histogram:
    """Counts per bucket, not cumulative; the last bucket is unbounded.

    Args:
        bounds: upper bounds, ascending, without infinity.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Values[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


def token_bounds(max_model_len: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, ... up to the longest request, as vLLM builds them."""
    bounds: list[float] = []
    scale = 1
    while scale <= max_model_len:
        bounds += [float(step * scale) for step in (1, 2, 5) if step * scale <= max_model_len]
        scale *= 10
    return tuple(bounds)


class Statistics:
    """Counters and histograms of one engine.

    Args:
        max_model_len: tokens of the longest request; bounds the token histograms.
    """

    def __init__(self, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self.revision = 0
        """Moves when a histogram changed, so that a rendered page can be kept until then."""
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.external_queries = 0
        self.external_hits = 0
        self.preemptions = 0
        self.ended_by_reason: Counter[str] = Counter()
        self.ttft_s = Histogram(_TTFT)
        self.inter_token_s = Histogram(_FAST)
        self.time_per_output_token_s = Histogram(_FAST)
        self.e2e_s = Histogram(_REQUEST)
        self.queue_s = Histogram(_REQUEST)
        self.inference_s = Histogram(_REQUEST)
        self.prefill_s = Histogram(_REQUEST)
        self.decode_s = Histogram(_REQUEST)
        self.request_prompt_tokens = Histogram(tokens)
        self.request_generation_tokens = Histogram(tokens)
        self.request_computed_tokens = Histogram(tokens)
        self.iteration_tokens = Histogram(_ITERATION)

    @property
    def prefix_hit_ratio(self) -> float:
        """Share of all prompt tokens so far that the prefix cache held, 0 to 1."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0

    def admitted(self, prompt_tokens: int, cached_tokens: int, fetched_tokens: int = 0) -> None:
        """A request left the queue, with so many tokens of its prompt in the cache and so many from another engine."""
        self.prompt_tokens += prompt_tokens
        self.prefix_queries += prompt_tokens
        self.prefix_hits += cached_tokens
        if fetched_tokens:
            self.external_queries += prompt_tokens - cached_tokens
            self.external_hits += fetched_tokens
        self.revision += 1

    @property
    def mean_ttft_s(self) -> float:
        """Mean time to the first token of the answers so far, from their arrival here; 0 before the first."""
        count = sum(self.ttft_s.counts)
        return self.ttft_s.total / count if count else 0.0

    def preempted(self) -> None:
        """A request went back into the queue for want of blocks."""
        self.preemptions += 1

    def first_tokens(self, count: int) -> None:
        """So many answers began."""
        self.generation_tokens += count

    def stepped(self, prefill_tokens: int, decoded: int, steps: int, unit_s: float) -> None:
        """``steps`` equal steps of ``unit_s`` seconds happened, each with so many prompt tokens and decoded sequences."""
        if prefill_tokens or decoded:
            self.iteration_tokens.observe(prefill_tokens + decoded, steps)
        if decoded:
            self.generation_tokens += decoded * steps
            self.inter_token_s.observe(unit_s, decoded * steps)
        self.revision += 1

    def ended(self, sequence: Sequence) -> None:
        """A request is over."""
        self.revision += 1
        if sequence.phase is Phase.ABORTED:
            self.ended_by_reason["abort"] += 1
            return
        self.ended_by_reason[sequence.finish] += 1
        start_s = sequence.first_token_s or sequence.finished_s
        self.ttft_s.observe(start_s - sequence.arrival_s)
        self.e2e_s.observe(sequence.finished_s - sequence.arrival_s)
        self.queue_s.observe(sequence.admitted_s - sequence.arrival_s)
        self.inference_s.observe(sequence.finished_s - sequence.admitted_s)
        self.prefill_s.observe(start_s - sequence.admitted_s)
        self.decode_s.observe(sequence.finished_s - start_s)
        self.request_prompt_tokens.observe(sequence.prompt_tokens)
        self.request_generation_tokens.observe(sequence.produced)
        self.request_computed_tokens.observe(sequence.prompt_tokens - sequence.cached_tokens)
        if sequence.produced > 1:
            self.time_per_output_token_s.observe((sequence.finished_s - start_s) / (sequence.produced - 1))
