"""From bodies to prompts: what is accepted, and which prompts share a prefix."""

from __future__ import annotations

import pytest

from epp.simulate.blocks import tokens_of
from epp.simulate.exchange import ApiError, Json
from epp.simulate.prompts import chat_prompt, messages_prompt, responses_prompt, text_prompts

USER = {"role": "user", "content": "Where is the station?"}
ANSWER = {"role": "assistant", "content": "Left."}


def test_the_next_turn_begins_with_the_turn_before() -> None:
    first = chat_prompt({"messages": [USER]})
    second = chat_prompt({"messages": [USER, ANSWER, {"role": "user", "content": "And the bus?"}]})
    assert second.startswith(first + b"Left.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [USER]}, {"messages": [{**USER, "role": "system"}]}),
        ({"messages": [USER]}, {"messages": [USER], "tools": [{"type": "function"}]}),
        ({"messages": [USER, ANSWER]}, {"messages": [USER, {**ANSWER, "tool_calls": [{"id": "1"}]}]}),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:1"}}]}]},
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:2"}}]}]},
        ),
    ],
    ids=["role", "tools", "tool calls", "picture"],
)
def test_what_the_model_would_see_differently_differs(one: Json, other: Json) -> None:
    assert chat_prompt(one) != chat_prompt(other)


def test_a_picture_is_short_however_large_it_is() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:" + "x" * 100_000}}
    assert tokens_of(len(chat_prompt({"messages": [{"role": "user", "content": [part]}]}))) < 50


def test_text_parts_are_the_same_as_a_string() -> None:
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the station?"}]
    assert chat_prompt({"messages": [{"role": "user", "content": parts}]}) == chat_prompt({"messages": [USER]})


def test_an_anthropic_system_text_comes_first() -> None:
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        assert messages_prompt({"system": system, "messages": [USER]}).startswith(b"<|system|>Be brief.<|user|>Where")


@pytest.mark.parametrize(
    "given",
    ["Where is the station?", [USER], [{"role": "user", "content": [{"type": "input_text", "text": "Where is the station?"}]}]],
    ids=["text", "message", "parts"],
)
def test_input_of_the_responses_api_has_several_shapes(given: object) -> None:
    assert responses_prompt({"input": given, "instructions": "Be brief."}) == (
        b"<|system|>Be brief.<|user|>Where is the station?<|assistant|>"
    )


@pytest.mark.parametrize(
    ("value", "sizes"),
    [("hello", [5]), (["a", "bc"], [1, 2]), ([1, 2, 3], [12]), ([[1], [2, 3]], [4, 8])],
    ids=["text", "texts", "token ids", "several token ids"],
)
def test_prompts_of_completions(value: object, sizes: list[int]) -> None:
    assert [len(prompt) for prompt in text_prompts(value, "prompt")] == sizes


@pytest.mark.parametrize(
    "value",
    [None, "", [], {}, 5, ["a", 1], [1.5], [-1], [True], [2**32], [[]], [[1], "a"]],
    ids=repr,
)
def test_other_prompts_are_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        text_prompts(value, "prompt")
    assert (caught.value.status, caught.value.param) == (400, "prompt")


@pytest.mark.parametrize(
    "messages",
    [None, [], "hi", {}, ["hi"], [{}], [{"role": 1}], [{**USER, "content": 5}], [{**USER, "content": ["x"]}],
     [{**USER, "content": [{"text": 1}]}]],
    ids=repr,
)  # fmt: skip
def test_wrong_messages_are_refused(messages: object) -> None:
    for prompt in (chat_prompt, messages_prompt):
        with pytest.raises(ApiError) as caught:
            prompt({"messages": messages})
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "body", [{}, {"input": 5}, {"input": ["x"]}, {"input": "x", "instructions": 5}, {"input": "x", "tools": {}}], ids=repr
)
def test_wrong_input_of_the_responses_api_is_refused(body: Json) -> None:
    with pytest.raises(ApiError) as caught:
        responses_prompt(body)
    assert caught.value.status == 400
