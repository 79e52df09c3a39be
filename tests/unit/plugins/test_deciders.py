"""Deciders: when a stage runs elsewhere."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from epp.framework.data import RequestData
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, MediaFeature, PrefixMatch, TokenizedPrompt
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Api, InferenceRequest
from plugins.deciders import always, prefix_based

(ENDPOINT,) = make_candidates(1)


def tokenized(count: int, data: RequestData, *media: MediaFeature) -> None:
    data.set(TOKENIZED_PROMPT, TokenizedPrompt((1,) * count, is_exact=True, media=media))


def request_of(tokens: int, blocks: int | None, block_size: int = 16, producer: str = "") -> InferenceRequest:
    """A tokenized prompt; None = no match is known."""
    request = make_request()
    tokenized(tokens, request.data)
    if blocks is not None:
        key = PREFIX_CACHE_MATCH.by(producer) if producer else PREFIX_CACHE_MATCH
        request.data.set(key, {ENDPOINT.id: PrefixMatch(blocks, 1000, block_size)})
    return request


@pytest.mark.parametrize(
    ("not_cached", "prompt", "tokens", "blocks", "expected"),
    [
        pytest.param(16, 0, 4, 0, False, id="H7: a prompt shorter than the limit"),
        pytest.param(16, 0, 64, 0, True, id="H8: nothing cached"),
        pytest.param(16, 0, 64, 3, True, id="H8: exactly the limit is not cached"),
        pytest.param(16, 0, 64, 4, False, id="H8: all cached"),
        pytest.param(16, 0, 40, 2, False, id="H9: 8 tokens are not cached"),
        pytest.param(16, 0, 64, None, False, id="H10: no match"),
        pytest.param(0, 0, 10_000, 0, False, id="prefix 106: 0 is never"),
        pytest.param(512, 0, 500, 0, False, id="prefix 107: a short prompt"),
        pytest.param(512, 0, 2000, 80, True, id="prefix 108: 720 tokens are not cached"),
        pytest.param(512, 0, 2000, 100, False, id="prefix 108: 400 tokens are not cached"),
        pytest.param(16, 100, 99, 0, False, id="shorter than promptTokens"),
        pytest.param(16, 100, 100, 0, True, id="exactly promptTokens"),
        pytest.param(16, 0, 20, 99, False, id="the match is longer than the prompt"),
        pytest.param(16, 0, 16, 0, True, id="exactly the limit"),
    ],
)
def test_prefix_based(not_cached: int, prompt: int, tokens: int, blocks: int | None, expected: bool) -> None:
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": not_cached, "promptTokens": prompt})
    assert decider.disaggregate(request_of(tokens, blocks), ENDPOINT) is expected


def test_an_endpoint_that_is_not_in_the_match_holds_nothing() -> None:
    request = request_of(64, None)
    request.data.set(PREFIX_CACHE_MATCH, {})
    assert make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 64}).disaggregate(request, ENDPOINT) is True


def test_without_an_endpoint_nothing_is_known() -> None:
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 1})
    assert decider.disaggregate(request_of(100, 0), None) is False


@pytest.mark.parametrize(
    ("api", "document", "expected"),
    [
        pytest.param(Api.COMPLETIONS, {"prompt": "x" * 64}, True, id="a text of 16 tokens"),
        pytest.param(Api.COMPLETIONS, {"prompt": "x" * 63}, False, id="a text of 15 tokens"),
        pytest.param(Api.COMPLETIONS, {"prompt": [1] * 16}, True, id="16 token ids"),
        pytest.param(Api.CHAT, {"messages": [{"role": "user", "content": "x" * 64}]}, True, id="a chat"),
        pytest.param(Api.RAW, {"unread": True}, False, id="a body that nobody read"),
    ],
)
def test_prompts_that_nobody_tokenized_are_estimated(api: Api, document: dict[str, Any], expected: bool) -> None:
    request = make_request(api=api, document=document)
    request.data.set(PREFIX_CACHE_MATCH, {ENDPOINT.id: PrefixMatch(0, 0, 16)})
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 16})
    assert decider.disaggregate(request, ENDPOINT) is expected


@pytest.mark.parametrize("parameters", [{}, {"prefixMatchInfoProducerName": "precise"}], ids=["found by the loader", "named"])
def test_prefix_109_the_match_of_a_precise_plugin(parameters: dict[str, str]) -> None:
    context = make_context()
    context.writers = {} if parameters else {"PrefixCacheMatchInfo": "precise"}
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 16, **parameters}, context)
    assert decider.disaggregate(request_of(64, 0, producer="precise"), ENDPOINT)
    assert not decider.disaggregate(request_of(64, 4, producer="precise"), ENDPOINT)


def test_a_missing_match_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 16})
    for _ in range(3):
        decider.disaggregate(request_of(64, None), ENDPOINT)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no prefix match" in caplog.text


def test_always() -> None:
    decider = make_plugin(always.ALWAYS)
    assert decider.disaggregate(make_request(), ENDPOINT) is True
    assert decider.disaggregate(make_request(), None) is True


def chat(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}]}


def block(kind: str) -> list[object]:
    return [{"type": "text", "text": "t"}, {"type": kind, kind: {}}]


MEDIA = [
    pytest.param(Api.CHAT, chat(block("text")), False, id="H11: text"),
    pytest.param(Api.CHAT, chat(block("image_url")), True, id="H11: image"),
    pytest.param(Api.CHAT, chat(block("input_audio")), True, id="H11: sound"),
    pytest.param(Api.CHAT, chat("image_url"), False, id="H11: a plain string"),
    pytest.param(Api.CHAT, chat([{"image_url": "http://x"}]), True, id="an image without a type"),
    pytest.param(Api.CHAT, chat([{"type": "text", "image_url": "http://x"}]), False, id="the type wins"),
    pytest.param(Api.GENERATE, {"text": "x", "image_data": "http://x"}, True, id="an image of SGLang's generate"),
    pytest.param(Api.GENERATE, {"text": "x", "image_data": None, "video_data": []}, False, id="no image of SGLang's generate"),
    pytest.param(Api.CHAT, chat(block("video_url")), True, id="video"),
    pytest.param(Api.CHAT, chat(block("audio_url")), True, id="sound by URL"),
    pytest.param(Api.CHAT, chat(None), False, id="no content"),
    pytest.param(Api.CHAT, {"messages": ["x", {"content": ["x", {"type": 5}]}]}, False, id="odd values"),
    pytest.param(Api.COMPLETIONS, {"prompt": "image_url"}, False, id="completions"),
    pytest.param(Api.RESPONSES, {"input": "input_image"}, False, id="responses: a text"),
    pytest.param(Api.RESPONSES, {"input": [{"role": "user", "content": block("input_image")}]}, True, id="responses: image"),
    pytest.param(Api.RESPONSES, {"input": [{"role": "user", "content": block("input_file")}]}, True, id="responses: file"),
    pytest.param(Api.RESPONSES, {"input": [{"type": "input_image"}]}, True, id="responses: an item of its own"),
    pytest.param(Api.RESPONSES, {"input": [{"role": "user", "content": block("input_text")}]}, False, id="responses: text"),
    pytest.param(Api.MESSAGES, chat([{"type": "image", "source": {}}]), True, id="messages: image"),
    pytest.param(
        Api.MESSAGES, chat([{"type": "tool_result", "content": [{"type": "image"}]}]), True, id="messages: result of a tool"
    ),
    pytest.param(Api.MESSAGES, chat([{"type": "tool_result", "content": "image"}]), False, id="messages: text of a tool"),
    pytest.param(Api.GENERATE, {"features": {"mm_hashes": {"image": ["h"]}}}, True, id="generate: hashes"),
    pytest.param(Api.GENERATE, {"features": {"mm_placeholders": {"image": [{}]}}}, True, id="generate: placeholders"),
    pytest.param(Api.GENERATE, {"features": {"mm_hashes": {"image": []}}}, False, id="generate: none"),
    pytest.param(Api.GENERATE, {"features": None}, False, id="generate: no features"),
    pytest.param(Api.RAW, {"unread": 1}, False, id="a body that nobody read"),
]


@pytest.mark.parametrize(("api", "document", "expected"), MEDIA)
def test_multimodal(api: Api, document: dict[str, Any], expected: bool) -> None:
    decider = make_plugin(always.MULTIMODAL)
    assert decider.disaggregate(make_request(api=api, document=document), ENDPOINT) is expected
    assert decider.disaggregate(make_request(api=api, document=document), None) is expected


def test_media_of_the_tokenized_prompt_count() -> None:
    request, text = make_request(), make_request()
    tokenized(3, request.data, MediaFeature("image", "h", 0, 2))
    tokenized(3, text.data)
    decider = make_plugin(always.MULTIMODAL)
    assert decider.disaggregate(request, ENDPOINT) is True
    assert decider.disaggregate(text, ENDPOINT) is False
