"""The text of prompts of every API, and the guess of their length."""

from __future__ import annotations

import pytest

from epp.framework.keys import TOKENIZED_PROMPT, TokenizedPrompt
from epp.framework.prompt import plain_text, prompt_tokens, text_bytes, token_estimate
from epp.framework.testing import make_request
from epp.framework.types import RAW_BODY, Api, ParsedBody

IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}


def blocks(*texts: str) -> list[object]:
    return [*({"type": "text", "text": text} for text in texts), IMAGE]


CASES = [
    pytest.param(Api.COMPLETIONS, {"prompt": "hello"}, "hello", 1, id="completions: a string"),
    pytest.param(Api.COMPLETIONS, {"prompt": ["ab", "cd"]}, "ab cd", 1, id="completions: several strings"),
    pytest.param(Api.COMPLETIONS, {"prompt": [1, 2, 3]}, "", 3, id="completions: token ids"),
    pytest.param(Api.COMPLETIONS, {"prompt": [[1, 2], [3]]}, "", 3, id="completions: several lists of token ids"),
    pytest.param(Api.COMPLETIONS, {"prompt": []}, "", 0, id="completions: nothing"),
    pytest.param(Api.COMPLETIONS, {}, "", 0, id="completions: no prompt"),
    pytest.param(Api.IMAGES, {"prompt": "a cat at sea"}, "a cat at sea", 3, id="images"),
    pytest.param(Api.EMBEDDINGS, {"input": ["ab", "cd"]}, "ab cd", 1, id="embeddings: strings"),
    pytest.param(Api.EMBEDDINGS, {"input": [7, 8]}, "", 2, id="embeddings: token ids"),
    pytest.param(
        Api.CHAT,
        {"messages": [{"role": "system", "content": "be brief"}, {"content": blocks("one", "two")}, {"content": None}]},
        "be briefone two ",
        4,
        id="chat: strings and blocks",
    ),
    pytest.param(
        Api.MESSAGES,
        {"system": blocks("rules"), "messages": [{"role": "user", "content": "question"}]},
        "rules question",
        3,
        id="messages: with a system prompt",
    ),
    pytest.param(Api.RESPONSES, {"instructions": "be", "input": "brief"}, "bebrief", 1, id="responses: a string"),
    pytest.param(
        Api.RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi there"}]}, {"type": "reasoning"}]},
        "hi there ",
        2,
        id="responses: items",
    ),
    pytest.param(Api.CONVERSATIONS, {"items": [{"content": "abcd"}]}, "abcd", 1, id="conversations"),
    pytest.param(Api.GENERATE, {"token_ids": [5, 6, 7, 8]}, "", 4, id="generate: token ids"),
    pytest.param(Api.GENERATE, {"input_ids": [5]}, "", 1, id="generate: SGLang's name"),
    pytest.param(Api.CHAT, {"messages": "no list"}, "", 0, id="chat: not a list"),
    pytest.param(Api.CHAT, {"messages": [{"content": ["four", IMAGE]}]}, "four ", 1, id="chat: bare texts among parts"),
    pytest.param(Api.EMBEDDINGS, {"input": [[7, 8], [9]]}, "", 3, id="embeddings: several lists of token ids"),
    pytest.param(Api.EMBEDDINGS, {"input": [{"text": "abcd"}, {"image": "x"}]}, "abcd ", 1, id="embeddings: with images"),
    pytest.param(Api.EMBEDDINGS, {"messages": [{"content": "abcd"}]}, "abcd", 1, id="embeddings: a chat"),
    pytest.param(Api.GENERATE, {"text": ["abc", "efgh"]}, "abc efgh", 2, id="generate: texts"),
    pytest.param(Api.GENERATE, {"input_ids": [[5], [6, 7]]}, "", 3, id="generate: several prompts"),
]


@pytest.mark.parametrize(("api", "document", "text", "tokens"), CASES)
def test_text_and_estimate(api: Api, document: dict[str, object], text: str, tokens: int) -> None:
    body = ParsedBody(api, document)
    assert plain_text(body) == text
    assert text_bytes(body) == len(text.encode())
    assert token_estimate(body) == tokens


def test_bytes_are_counted_not_characters() -> None:
    body = ParsedBody(Api.COMPLETIONS, {"prompt": "日本語!"})
    assert text_bytes(body) == 10
    assert token_estimate(body) == 2


def test_a_body_that_was_not_read_has_no_text() -> None:
    assert plain_text(RAW_BODY) == ""
    assert token_estimate(RAW_BODY) == 0


def test_counted_tokens_win_over_the_estimate() -> None:
    request = make_request(document={"prompt": "x" * 400})
    assert prompt_tokens(request) == 100
    request.data.set(TOKENIZED_PROMPT, TokenizedPrompt((1, 2, 3), is_exact=True))
    assert prompt_tokens(request) == 3


def test_an_empty_list_of_tokens_counts_as_not_tokenized() -> None:
    request = make_request(document={"prompt": "x" * 400})
    request.data.set(TOKENIZED_PROMPT, TokenizedPrompt((), is_exact=False))
    assert prompt_tokens(request) == 100
