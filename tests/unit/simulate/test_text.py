"""What the simulated model says."""

from __future__ import annotations

import json

import pytest

from epp.simulate.text import Speaker


@pytest.mark.parametrize("tokens", [0, 1, 32, 20_000], ids=str)
def test_an_answer_is_as_long_as_asked(tokens: int) -> None:
    assert len(Speaker(0).answer(b"hello", tokens)) == tokens * 4


def test_an_answer_is_words_that_need_no_escaping() -> None:
    answer = Speaker(3).answer(b"hello", 5000).decode()
    assert json.dumps(answer) == f'"{answer}"'
    assert set(answer) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .")
    assert answer[0].isupper()


def test_an_answer_depends_on_seed_prompt_and_variant_alone() -> None:
    said = {
        (seed, prompt, variant): Speaker(seed).answer(prompt, 16, variant)
        for seed in (0, 1)
        for prompt in (b"a", b"b")
        for variant in (0, 1)
    }
    assert len(set(said.values())) == len(said)
    assert all(Speaker(seed).answer(prompt, 16, variant) == text for (seed, prompt, variant), text in said.items())


def test_a_shorter_answer_is_the_beginning_of_a_longer_one() -> None:
    speaker = Speaker(0)
    assert speaker.answer(b"x", 64).startswith(speaker.answer(b"x", 8))
