"""The demo's conversations: the same for the same seed, and each turn begins with all that was said before."""

from __future__ import annotations

import random

from epp.demo.conversation import Conversation, next_script


def test_scripts_are_the_same_for_the_same_seed_only() -> None:
    first, again, other = (random.Random(seed) for seed in (1, 1, 2))
    scripts = [[next_script(rng) for _ in range(20)] for rng in (first, again, other)]
    assert scripts[0] == scripts[1] != scripts[2]
    assert {len(script.questions) for script in scripts[0]} == {2, 3, 4, 5}


def test_instructions_are_shared_by_the_conversations_of_a_topic() -> None:
    rng = random.Random(1)
    scripts = [next_script(rng) for _ in range(500)]
    instructions = {script.instructions for script in scripts}
    assert len(instructions) == 24
    assert all(2000 < len(text) < 4000 for text in instructions)


def test_each_turn_repeats_the_conversation() -> None:
    script = next_script(random.Random(3))
    conversation = Conversation.begun(script)
    first = [*conversation.ask("one?")]
    conversation.hear("1.")
    second = [*conversation.ask("two?")]
    assert second[:2] == first
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    conversation.hear("")
    assert conversation.ask("three?")[:3] == second[:3], "a question without an answer is not repeated"
