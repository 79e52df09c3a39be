"""Rendering by a vLLM server: what is sent, and what becomes of its answers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from epp.framework.keys import MediaFeature
from epp.framework.types import Api, ParsedBody
from plugins.tokenization import render_http
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.render_http import RenderHttp
from tests.unit.datalayer.servers import Respond, Server, answer, hang, reset, serving
from tests.unit.plugins.tokenization.bodies import anthropic, chat, completion, image, responses

CHAT = '{"token_ids": [5, 6]}'


def client(server: Server, timeout_s: float = 5.0, media_timeout_s: float = 30.0) -> RenderHttp:
    return RenderHttp(f"http://127.0.0.1:{server.port}/", "base", timeout_s=timeout_s, media_timeout_s=media_timeout_s)


def recording(body: str, seen: list[tuple[str, Any]]) -> Respond:
    """Answers always the same, and keeps what came."""

    async def respond(request: web.BaseRequest, closing: asyncio.Event) -> web.Response:
        assert request.headers["Content-Type"] == "application/json"
        seen.append((request.path, orjson.loads(await request.read())))
        return web.Response(text=body)

    return respond


@pytest.mark.parametrize(
    ("body", "path", "document"),
    [
        pytest.param(
            completion("hi", seed=3, tools=[]), "/v1/completions/render",
            {"model": "base", "prompt": "hi", "seed": 3, "tools": []}, id="completion as it came",
        ),
        pytest.param(
            chat("hi", stream=True, add_generation_prompt=False), "/v1/chat/completions/render",
            {"model": "base", "messages": [{"role": "user", "content": "hi"}], "stream": True, "add_generation_prompt": False},
            id="chat as it came",
        ),
        pytest.param(
            responses("hi", tools=[{"type": "function", "name": "f"}]), "/v1/chat/completions/render",
            {"model": "base", "messages": [{"role": "user", "content": "hi"}],
             "tools": [{"type": "function", "function": {"name": "f"}}]}, id="responses as a chat",
        ),
        pytest.param(
            anthropic({"role": "user", "content": "hi"}), "/v1/chat/completions/render",
            {"model": "base", "messages": [{"role": "user", "content": "hi"}]}, id="anthropic as a chat",
        ),
        pytest.param(
            ParsedBody(Api.EMBEDDINGS, {"input": ["a", "b"], "dimensions": 3}), "/v1/completions/render",
            {"model": "base", "prompt": ["a", "b"]}, id="embeddings as completions",
        ),
        pytest.param(
            ParsedBody(Api.EMBEDDINGS, {"messages": [{"role": "user", "content": "hi"}]}), "/v1/chat/completions/render",
            {"model": "base", "messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": False},
            id="embeddings of a chat",
        ),
        pytest.param(
            ParsedBody(Api.GENERATE, {"text": ["a", "b"], "stream": True}), "/v1/completions/render",
            {"model": "base", "prompt": ["a", "b"]}, id="SGLang's texts as completions",
        ),
    ],
)  # fmt: skip
async def test_what_is_sent(body: ParsedBody, path: str, document: dict[str, Any]) -> None:
    seen: list[tuple[str, Any]] = []
    text = CHAT if "chat" in path else f"[{CHAT}]"
    async with serving(recording(text, seen)) as server:
        back_end = client(server)
        prompt = await back_end.tokenize(body)
        await back_end.stop()
    assert seen == [(path, document)]
    assert prompt is not None
    assert (list(prompt.token_ids), prompt.is_exact, prompt.model, prompt.media) == ([5, 6], True, "base", ())


async def test_prompts_of_a_list_are_apart() -> None:
    async with serving(answer('[{"token_ids": [1]}, {"token_ids": [2, 3]}]')) as server:
        back_end = client(server)
        prompt = await back_end.tokenize(completion(["a", "b"]))
        await back_end.stop()
    assert prompt is not None
    assert (list(prompt.token_ids), [list(ids) for ids in prompt.further]) == ([1], [[2, 3]])


async def test_places_of_media_are_told() -> None:
    features = {
        "mm_hashes": {"image": ["h1", "h2"], "audio": ["h3"], "video": ["h4"]},
        "mm_placeholders": {
            "image": [{"offset": 4, "length": 3}, {"offset": 9, "length": 2}],
            "audio": [{"offset": 0, "length": 3}],
        },
    }
    text = orjson.dumps({"token_ids": [1], "features": features})
    async with serving(answer(text)) as server:
        back_end = client(server)
        prompt = await back_end.tokenize(chat([image()]))
        await back_end.stop()
    assert prompt is not None
    assert prompt.media == (
        MediaFeature("audio", "h3", 0, 3),
        MediaFeature("image", "h1", 4, 3),
        MediaFeature("image", "h2", 9, 2),
    )


@pytest.mark.parametrize("features", ["null", "{}", '{"mm_hashes": null, "mm_placeholders": null}'])
async def test_answers_without_media(features: str) -> None:
    async with serving(answer(f'{{"token_ids": [1], "features": {features}}}')) as server:
        back_end = client(server)
        prompt = await back_end.tokenize(chat("hi"))
        await back_end.stop()
    assert prompt is not None
    assert prompt.media == ()


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        pytest.param(answer("x" * 5000, 400), "status 400 from http://127.0.0.1:[0-9]+/v1/chat/.*/render: x{1024}$", id="400"),
        pytest.param(reset, "ServerDisconnected", id="reset"),
        pytest.param(answer("no JSON"), "JSONDecodeError", id="no JSON"),
        pytest.param(answer("[]"), "no token_ids", id="a list"),
        pytest.param(answer("{}"), "no token_ids", id="no tokens"),
        pytest.param(answer('{"token_ids": [-1]}'), "no token_ids", id="a negative token"),
        pytest.param(answer('{"token_ids": ["a"]}'), "no token_ids", id="a word"),
        pytest.param(answer('{"token_ids": [1], "features": {"mm_hashes": {}, "mm_placeholders": {"image": [{}]}}}'),
                     "features cannot be read", id="a place without numbers"),
    ],
)  # fmt: skip
async def test_answers_that_are_no_tokens(respond: Respond, message: str) -> None:
    async with serving(respond) as server:
        back_end = client(server)
        with pytest.raises(TokenizationError, match=message):
            await back_end.tokenize(chat("hi"))
        await back_end.stop()


@pytest.mark.parametrize("text", ["{}", "[]"])
async def test_completions_need_a_list(text: str) -> None:
    async with serving(answer(text)) as server:
        back_end = client(server)
        with pytest.raises(TokenizationError, match="not a list of prompts"):
            await back_end.tokenize(completion("hi"))
        await back_end.stop()


async def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_http, "MAX_ANSWER_BYTES", 5)
    async with serving(answer(CHAT)) as server:
        back_end = client(server)
        with pytest.raises(TokenizationError, match="larger than 5 bytes"):
            await back_end.tokenize(chat("hi"))
        await back_end.stop()


async def test_media_have_a_deadline_of_their_own() -> None:
    async with serving(hang) as server:
        back_end = client(server, timeout_s=0.01, media_timeout_s=0.03)
        with pytest.raises(TokenizationError, match=r"no whole answer within 0\.01 s from http://127\.0\.0\.1"):
            await back_end.tokenize(chat("hi"))
        with pytest.raises(TokenizationError, match=r"no whole answer within 0\.03 s"):
            await back_end.tokenize(chat([image()]))
        await back_end.stop()


async def test_nobody_listens() -> None:
    async with serving() as server:
        gone = client(server)
    with pytest.raises(TokenizationError, match="Cannot connect"):
        await gone.tokenize(chat("hi"))
    await gone.stop()
    await gone.stop()


async def test_bodies_without_a_prompt_are_not_sent() -> None:
    async with serving() as server:
        assert await client(server).tokenize(ParsedBody(Api.RAW)) is None
    assert server.requests == []
