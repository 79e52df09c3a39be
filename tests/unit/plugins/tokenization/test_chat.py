"""What there is to tokenize: prompts, conversations, tokens that the client sent."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.types import Api, ParsedBody
from plugins.tokenization.chat import Chat, Texts, client_tokens, prompt_of
from tests.unit.plugins.tokenization.bodies import chat, completion

HELLO = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("members", "adds", "continues"),
    [
        ({}, True, False),
        ({"add_generation_prompt": None, "continue_final_message": None}, True, False),
        ({"add_generation_prompt": False, "continue_final_message": True}, False, True),
        ({"add_generation_prompt": 0, "continue_final_message": 1}, False, True),
        ({"add_generation_prompt": "False", "continue_final_message": "YES"}, False, True),
    ],
    ids=repr,
)
def test_flags_are_read_as_engines_read_them(members: dict[str, Any], adds: bool, continues: bool) -> None:
    prompt = prompt_of(chat("hi", **members))
    assert isinstance(prompt, Chat)
    assert (prompt.add_generation_prompt, prompt.continue_final_message) == (adds, continues)


def test_bare_texts_become_parts_and_the_body_stays() -> None:
    body = chat(["a", {"type": "text", "text": "b"}])
    prompt = prompt_of(body)
    assert isinstance(prompt, Chat)
    assert prompt.messages == [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert body.document["messages"][0]["content"][0] == "a"


@pytest.mark.parametrize(
    ("content", "has_media"),
    [
        ("text", False),
        (["text"], False),
        ([{"text": "no type"}], False),
        ([{"type": "text", "text": "x"}], False),
        ([{"image_url": "http://x"}], True),
        ([{"type": "image_url", "image_url": "http://x"}], True),
        ([{"type": "image_embeds", "image_embeds": "UEs="}], True),
    ],
    ids=repr,
)
def test_media(content: Any, has_media: bool) -> None:
    prompt = prompt_of(chat(content))
    assert isinstance(prompt, Chat)
    assert prompt.has_media is has_media


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        pytest.param(ParsedBody(Api.EMBEDDINGS, {"input": ["a", "b"]}), Texts(("a", "b")), id="embeddings"),
        pytest.param(
            ParsedBody(Api.EMBEDDINGS, {"messages": HELLO}), Chat(HELLO, add_generation_prompt=False), id="embeddings of a chat"
        ),
        pytest.param(ParsedBody(Api.GENERATE, {"text": "a"}), Texts(("a",)), id="generate"),
        pytest.param(completion(None, prompt_embeds="UEs="), None, id="prompt embeddings"),
        pytest.param(ParsedBody(Api.POOLING, {"query": "a"}), None, id="another API"),
    ],
)
def test_prompts(body: ParsedBody, prompt: Texts | Chat | None) -> None:
    assert prompt_of(body) == prompt


@pytest.mark.parametrize(
    "body",
    [
        completion([[1, 2], [3]]),
        ParsedBody(Api.EMBEDDINGS, {"input": [[1, 2], [3]]}),
        ParsedBody(Api.GENERATE, {"input_ids": [[1, 2], [3]]}),
    ],
    ids=lambda body: body.api,
)
def test_tokens_of_several_prompts(body: ParsedBody) -> None:
    assert client_tokens(body) == [[1, 2], [3]]
