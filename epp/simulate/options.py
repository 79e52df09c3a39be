"""What a simulated model server is told: capacity, timing, models and faults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module

from epp.errors import UsageError
from epp.simulate.faults import Fault
from epp.simulate.ports import join_address

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
ROLE_LABEL = "llm-d.ai/role"
_ROLE_LABELS = ("mif.moreh.io/role", ROLE_LABEL)
_EVENTS_NEED = ("zmq.asyncio", "msgspec", "cbor2")


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
    transfer_us_per_token: float = 5.0
    """Time to fetch the KV cache of one prompt token from another server: 128 KB of an 8B model over 200 Gbit/s."""
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
        times = (
            "ttft_ms", "prefill_us_per_token", "transfer_us_per_token", "tpot_ms", "tpot_growth", "lora_load_ms", "time_scale",
        )  # fmt: skip
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


class EventLayout(StrEnum):
    """How a KV event is written in MessagePack."""

    MAP = "map"
    """Members by name, vLLM since 0.24."""
    ARRAY = "array"
    """Members by position, vLLM until 0.23 and SGLang."""


class ReplayLayout(StrEnum):
    """Frames of an answer of the replay socket, after the empty one."""

    TOPIC = "topic"
    """Topic, sequence, payload: vLLM since 0.26."""
    BARE = "bare"
    """Sequence, payload: vLLM until 0.25."""


@dataclass(frozen=True, slots=True)
class KvEventOptions:
    """How a server tells what its prefix cache holds. The defaults are vLLM's unless they say otherwise."""

    endpoint: str = ""
    """ZMQ endpoint of a picker that binds, to connect to; empty = bind ``port`` on the server's own address."""
    port: int = 0
    """Where subscribers connect; 0 lets the system choose (vLLM: 5557)."""
    topic: str = ""
    """First frame. ``{address}``, ``{host}``, ``{port}`` and ``{model}`` stand for those of the server."""
    layout: EventLayout = EventLayout.MAP
    hash_seed: str = "0"
    """What ``PYTHONHASHSEED`` is for vLLM, which draws one if it is not set."""
    raw_hashes: bool = False
    """Block hashes are the 32 bytes of the digest, not the last 8 of them as a number."""
    rank: int = 0
    """Data-parallel rank in each batch."""
    has_replay: bool = False
    """Past batches can be asked for."""
    replay_port: int = 0
    """Where they can be asked for; 0 lets the system choose."""
    replay_layout: ReplayLayout = ReplayLayout.TOPIC
    buffer_steps: int = 10_000
    """Batches that can be asked for again."""

    def __post_init__(self) -> None:
        """Refuse what cannot be published.

        Raises:
            UsageError: a value is out of range; all of them are named.
        """
        problems = []
        if self.endpoint and not self.endpoint.startswith(("tcp://", "ipc://")):
            problems.append(f"--kv-events {self.endpoint}: write an endpoint of ZeroMQ such as tcp://127.0.0.1:5557")
        for flag, port in (("--kv-events-port", self.port), ("--kv-replay-port", self.replay_port)):
            if not 0 <= port <= 65535:
                problems.append(f"{flag} must be from 0 to 65535, is {port}")
        if self.rank < 0:
            problems.append(f"the data-parallel rank must be 0 or more, is {self.rank}")
        if self.buffer_steps < 1:
            problems.append(f"--kv-replay-steps must be at least 1, is {self.buffer_steps}")
        if problems:
            raise UsageError(problems)

    def topic_for(self, host: str, port: int, model: str) -> str:
        """The topic of a server."""
        topic = self.topic
        for name, value in (("address", join_address(host, port)), ("host", host), ("port", str(port)), ("model", model)):
            topic = topic.replace(f"{{{name}}}", value)
        return topic


def require_kv_events() -> None:
    """Load what publishes KV events. It takes a while: call it before the event loop runs.

    Raises:
        UsageError: a package is not installed.
    """
    missing = [name for name in _EVENTS_NEED if not _can_be_imported(name)]
    if missing:
        fix = "pip install 'endpoint-picker[kv-events]'"
        raise UsageError([f"--kv-events needs the extra 'kv-events', of which {', '.join(missing)} is missing: {fix}"])
    for module in ("epp.simulate.kv_events", "epp.simulate.kv_publisher"):
        import_module(module)


def _can_be_imported(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class DisaggregationOptions:
    """How a server works together with others on one request, as vLLM with NIXL and llm-d's side-car do."""

    strict_roles: bool = False
    """A server that only computes prompts refuses requests for anything else, one that only encodes those without media."""
    prefill_retries: int = 0
    """How often a decode server repeats a prefill that was answered with 502, 503 or 504; the side-car's default."""
    retry_backoff_s: float = 0.2
    """Pause before each repetition; the side-car's default."""
    hold_s: float = 480.0
    """How long the blocks of a prompt wait to be fetched; vLLM's ``VLLM_NIXL_ABORT_REQUEST_TIMEOUT``."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            UsageError: a value is out of range.
        """
        if self.prefill_retries < 0:
            raise UsageError([f"--prefill-max-retries must be 0 or more, is {self.prefill_retries}"])


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
    kv_events: KvEventOptions | None = None
    """None = no events."""
    disaggregation: DisaggregationOptions = field(default_factory=DisaggregationOptions)
    max_body_bytes: int = 256 * 1024 * 1024

    @property
    def stages(self) -> frozenset[str]:
        """The stages that its role names: ``encode``, ``prefill``, ``decode``; empty without a role, or with an unknown one."""
        role = next((self.labels[name] for name in _ROLE_LABELS if name in self.labels), "")
        return frozenset(role.split("-")) & {"encode", "prefill", "decode"}

    def with_seed(self, seed: int) -> ServerOptions:
        """The same with another seed, so that the servers of a pool differ."""
        return replace(self, engine=replace(self.engine, seed=seed))
