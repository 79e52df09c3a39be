"""Conversations for the demo: each begins with the instructions of its topic, and each turn repeats all that was said."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

_TOPICS = (
    "the sea", "old maps", "sourdough", "gravity", "trains", "bees", "chess openings", "volcanoes", "knots", "glaciers",
    "kites", "lighthouses", "moss", "bridges", "clocks", "comets", "salt", "owls", "looms", "rivers", "bells", "tides", "ink",
    "apples",
)  # fmt: skip
_INSTRUCTIONS = (
    "You know everything about {topic}, and you answer questions about {topic} briefly, politely and without lists. "
)
_REPEATED = 24
"""Some 2,600 characters, 650 tokens: two dozen topics together fill more than the KV cache of one of the demo's servers."""
_MOST_TURNS = 5

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Script:
    """What a client says in one conversation."""

    instructions: str
    questions: tuple[str, ...]


def next_script(rng: random.Random) -> Script:
    """A conversation of two to five turns about one of the topics."""
    topic = rng.choice(_TOPICS)
    instructions = _INSTRUCTIONS.format(topic=topic) * _REPEATED
    turns = rng.randint(2, _MOST_TURNS)
    questions = [
        f"What is the answer to question {rng.randrange(10_000)} about {topic}, and why is that so?" for _ in range(turns)
    ]
    return Script(instructions, tuple(questions))


@dataclass(slots=True)
class Conversation:
    """What was said so far."""

    messages: list[Message] = field(default_factory=list)

    @classmethod
    def begun(cls, script: Script) -> Conversation:
        """With nothing but the instructions."""
        return cls([{"role": "system", "content": script.instructions}])

    def ask(self, question: str) -> list[Message]:
        """The messages of the next request."""
        self.messages.append({"role": "user", "content": question})
        return self.messages

    def hear(self, answer: str) -> None:
        """Keep the answer; the question stays unanswered without one."""
        if answer:
            self.messages.append({"role": "assistant", "content": answer})
        else:
            self.messages.pop()
