"""What a simulated model server is told: capacity, timing, models and faults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from epp.errors import UsageError
from epp.simulate.faults import Fault

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
ROLE_LABEL = "llm-d.ai/role"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Capacity and speed of one engine. The defaults resemble an 8B model on one data-centre GPU."""

    max_num_seqs: int = 64
    """Most requests in one batch; the others wait."""
    kv_blocks: int = 8192
    """Blocks of the KV cache; with 16 tokens each they hold 131,072, the context of the model that is simulated by default."""
    block_size: int = 16
    """Tokens in one KV block, vLLM's default."""
    ttft_ms: float = 40.0
    """Fixed part of the time to first token, spent by each request beside the others."""
    prefill_us_per_token: float = 60.0
    """Compute time for one prompt token that is not in the prefix cache; it delays the whole batch."""
    tpot_ms: float = 10.0
    """Time of one decode step of a batch of one."""
    tpot_growth: float = 1.0
    """A full batch takes ``1 + tpot_growth`` times as long for a step as a batch of one."""
    jitter_ratio: float = 0.0
    """A step takes between ``1 - jitter_ratio`` and ``1 + jitter_ratio`` of its time, drawn from the seeded generator."""
    max_batched_tokens: int = 2048
    """Prompt tokens in one step (chunked prefill), vLLM's default for online serving."""
    max_lora: int = 4
    """Different adapters in one batch."""
    lora_load_ms: float = 0.0
    """Time to load an adapter that is not among the ``max_lora`` last used ones; it delays the whole batch."""
    time_scale: float = 1.0
    """Factor on every duration: 0.1 is ten times as fast, 0 answers at once."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what the model cannot run with.

        Raises:
            UsageError: a value is out of range; all of them are named.
        """
        counts = ("max_num_seqs", "kv_blocks", "block_size", "max_batched_tokens", "max_lora")
        times = ("ttft_ms", "prefill_us_per_token", "tpot_ms", "tpot_growth", "lora_load_ms", "time_scale")
        problems = [f"{_flag(name)} must be at least 1, is {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        problems += [
            f"{_flag(name)} must be 0 or more and finite, is {getattr(self, name)}"
            for name in times
            if not 0 <= getattr(self, name) < math.inf
        ]
        if not 0 <= self.jitter_ratio < 1:
            problems.append(f"--jitter-ratio must be at least 0 and less than 1, is {self.jitter_ratio}")
        if problems:
            raise UsageError(problems)

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest request that fits, prompt and output together."""
        return self.kv_blocks * self.block_size


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class MetricsPage(StrEnum):
    """How much ``/metrics`` shows."""

    SMALL = "small"
    """The families that schedulers read, some 0.8 KB."""
    FULL = "full"
    """All that a vLLM server shows, some 62 KB."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One server: its engine and what it presents to the outside."""

    engine: EngineOptions = field(default_factory=EngineOptions)
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """Served names of the base model; the first is its own name, the others are aliases."""
    lora: tuple[str, ...] = ()
    """Names of adapters, each served as a model of its own."""
    default_output_tokens: int = 32
    """Length of an answer when the request has no limit of its own."""
    metrics_page: MetricsPage = MetricsPage.FULL
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the endpoint, for file discovery."""
    faults: tuple[Fault, ...] = ()
    max_body_bytes: int = 256 * 1024 * 1024

    def with_seed(self, seed: int) -> ServerOptions:
        """The same with another seed, so that the servers of a pool differ."""
        return replace(self, engine=replace(self.engine, seed=seed))
