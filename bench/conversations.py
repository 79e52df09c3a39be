"""Makes a load for `epp replay`: ``python -m bench.conversations config/traces/conversations.jsonl.gz``.

Conversations as chats and agents have them, in the format of Mooncake's traces. Each belongs to one of a few applications,
whose system prompt all its conversations begin with; each turn brings the whole conversation so far, and some more. Nothing of
it was recorded anywhere: lengths, pauses and numbers of turns are drawn. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK_TOKENS = 512

Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is drawn. Lengths are in tokens, times in seconds; means, unless something else is said."""

    requests: int = 1500
    duration_s: float = 240.0
    """In which conversations begin."""
    applications: int = 12
    """The n-th one is used 1/n as often as the first."""
    system_blocks: tuple[int, int] = (1, 6)
    """Length of system prompts, from and to, in blocks."""
    turns: float = 4.0
    question_tokens: float = 700.0
    document_share: float = 0.15
    """Conversations that begin with a document."""
    document_tokens: float = 5000.0
    answer_tokens: float = 180.0
    pause_s: float = 40.0
    """Between an answer and the next question."""
    longest_tokens: int = 24_000
    """A conversation that would become longer ends."""


@dataclass(slots=True)
class _Turn:
    at_s: float
    conversation: int
    application: int
    input_tokens: int
    output_tokens: int


def records(shape: Shape, seed: int) -> Iterator[Record]:
    """The lines of the trace, in the order of their times."""
    rng = random.Random(seed)
    system_blocks = [rng.randint(*shape.system_blocks) for _ in range(shape.applications)]
    turns = sorted(_turns(shape, rng, system_blocks), key=lambda turn: turn.at_s)[: shape.requests]
    numbers: dict[tuple[str, int, int], int] = {}
    for turn in turns:
        shared = system_blocks[turn.application]
        blocks = [
            ("system", turn.application, index) if index < shared else ("conversation", turn.conversation, index)
            for index in range(-(-turn.input_tokens // BLOCK_TOKENS))
        ]
        yield {
            "timestamp": round(turn.at_s * 1000),
            "input_length": turn.input_tokens,
            "output_length": turn.output_tokens,
            "hash_ids": [numbers.setdefault(block, len(numbers)) for block in blocks],
        }


def _turns(shape: Shape, rng: random.Random, system_blocks: Sequence[int]) -> Iterator[_Turn]:
    weights = [1 / (index + 1) for index in range(shape.applications)]
    conversations = round(1.25 * shape.requests / shape.turns)
    for conversation in range(conversations):
        (application,) = rng.choices(range(shape.applications), weights)
        at_s = rng.uniform(0, shape.duration_s)
        tokens = BLOCK_TOKENS * system_blocks[application]
        if rng.random() < shape.document_share:
            tokens += _length(rng, shape.document_tokens)
        while True:
            tokens += _length(rng, shape.question_tokens)
            if tokens > shape.longest_tokens:
                break
            answer = _length(rng, shape.answer_tokens)
            yield _Turn(at_s, conversation, application, tokens, answer)
            tokens += answer
            at_s += answer * 0.015 + rng.expovariate(1 / shape.pause_s)
            if rng.random() < 1 / shape.turns:
                break


def _length(rng: random.Random, mean: float) -> int:
    """Many are short, a few are long."""
    return max(8, round(rng.lognormvariate(0, 0.9) * mean / 1.5))


def compressed(lines: Iterator[Record]) -> bytes:
    """JSON Lines with gzip; the same bytes for the same lines."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        for line in lines:
            packed.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return file.getvalue()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.conversations", description="Make a load for `epp replay`.")
    parser.add_argument("file", type=Path, metavar="FILE", help="to be written")
    parser.add_argument("--requests", type=int, default=Shape().requests, metavar="N", help="default: %(default)s")
    parser.add_argument("--duration", type=float, default=Shape().duration_s, metavar="S", help="seconds; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    shape = Shape(requests=arguments.requests, duration_s=arguments.duration)
    data = compressed(records(shape, arguments.seed))
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_bytes(data)
    print(f"{arguments.file}: {len(data)} bytes")


if __name__ == "__main__":
    main()
