"""One request inside a simulated engine."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from epp.simulate.blocks import BYTES_PER_TOKEN, tokens_of


class Phase(Enum):
    """Where a sequence is."""

    WAITING = auto()
    PREFILL = auto()
    STARTING = auto()
    """Its prompt is computed; the first token comes at ``ready_s``."""
    DECODING = auto()
    FINISHED = auto()
    ABORTED = auto()


class Sequence:
    """A prompt and its answer. The engine writes, everybody else reads.

    Args:
        prompt: what the model sees; four bytes are one token.
        answer: the whole answer, released token by token; empty for an embedding.
        adapter: LoRA adapter, None for the base model.
        salt: only sequences of the same salt share cached blocks.
        watched: each token matters, not only the last (a stream).
        finish: why the answer ends where it does, for the statistics.
        on_progress: called after each step that brought tokens to a watched sequence, and when any sequence ends.
        kept: its blocks stay held after its end, until `Engine.free`: another engine will fetch them.
        transferred: another engine has computed the prompt; its blocks are fetched instead of computed.
    """

    __slots__ = (
        "adapter", "admitted_s", "answer", "arrival_s", "blocks", "cached_tokens", "fetched_tokens", "finish", "finished_s",
        "first_token_s", "kept", "on_progress", "phase", "preemptions", "prefill_left", "prefilled_s", "private_block",
        "produced", "prompt", "ready_s", "root", "salt", "transferred", "wanted", "watched",
    )  # fmt: skip

    def __init__(
        self,
        prompt: bytes,
        answer: bytes = b"",
        *,
        adapter: str | None = None,
        salt: str = "",
        watched: bool = False,
        finish: str = "length",
        on_progress: Callable[[], None] | None = None,
        kept: bool = False,
        transferred: bool = False,
    ) -> None:
        self.prompt = prompt
        self.answer = answer
        self.adapter = adapter
        self.salt = salt
        self.root = hash((adapter, salt))
        self.watched = watched
        self.finish = finish
        self.on_progress = on_progress
        self.kept = kept
        self.transferred = transferred
        self.phase = Phase.WAITING
        self.blocks: list[int] = []
        """Hashes of the full blocks that it holds."""
        self.wanted: list[int] = []
        """Hashes of the blocks that it will hold once admitted; computed once."""
        self.private_block = False
        self.produced = 0
        self.cached_tokens = 0
        """Prompt tokens that were not computed: found in the cache, or fetched."""
        self.fetched_tokens = 0
        """Prompt tokens that came from another engine."""
        self.prefill_left = 0
        self.preemptions = 0
        # Times are 0 until the event has happened.
        self.ready_s = self.arrival_s = self.admitted_s = self.prefilled_s = self.first_token_s = self.finished_s = 0.0

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt, at least 1."""
        return max(1, tokens_of(len(self.prompt)))

    @property
    def answer_tokens(self) -> int:
        """Length of the whole answer."""
        return len(self.answer) // BYTES_PER_TOKEN

    @property
    def remaining(self) -> int:
        """Tokens of the answer still to come."""
        return self.answer_tokens - self.produced

    @property
    def size_bytes(self) -> int:
        """Prompt and answer so far."""
        return len(self.prompt) + self.produced * BYTES_PER_TOKEN

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.phase in (Phase.FINISHED, Phase.ABORTED)

    def data(self, start: int = 0) -> bytes:
        """Prompt and answer so far, from byte ``start`` on."""
        said = self.answer[: self.produced * BYTES_PER_TOKEN]
        beyond = start - len(self.prompt)
        return said[beyond:] if beyond >= 0 else self.prompt[start:] + said
