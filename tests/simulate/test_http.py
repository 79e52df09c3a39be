"""The APIs over real HTTP, seen byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.simulate.conftest import MODEL, eventually

Json = dict[str, Any]

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Where is the station? " * 20}]}
BODIES: dict[str, Json] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": MODEL, "prompt": "Once upon a time"},
    "/v1/responses": {"model": MODEL, "input": "Once upon a time"},
    "/v1/messages": {**CHAT, "max_tokens": 32},
}


async def post(client: aiohttp.ClientSession, url: str, body: object) -> tuple[int, Json]:
    async with client.post(url, json=body) as response:
        return response.status, await response.json()


async def events(client: aiohttp.ClientSession, url: str, body: Json) -> list[str]:
    """The ``data`` of each event."""
    async with client.post(url, json={**body, "stream": True}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        text = await response.text()
    assert text.endswith("\n\n")
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


async def test_a_chat_completion_has_text_and_usage(base: str, client: aiohttp.ClientSession) -> None:
    status, body = await post(client, f"{base}/v1/chat/completions", {**CHAT, "max_completion_tokens": 7})
    assert status == 200
    (choice,) = body["choices"]
    assert len(choice["message"]["content"]) == 28
    assert choice["finish_reason"] == "length"
    usage = body["usage"]
    assert usage["completion_tokens"] == 7
    assert usage["total_tokens"] == usage["prompt_tokens"] + 7
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_a_repeated_prompt_is_reported_as_cached(base: str, client: aiohttp.ClientSession) -> None:
    cached = []
    for _ in range(2):
        _, body = await post(client, f"{base}/v1/chat/completions", CHAT)
        cached.append(body["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert cached[1] == body["usage"]["prompt_tokens"] // 16 * 16


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_says_the_same_as_the_whole_answer(base: str, client: aiohttp.ClientSession, path: str) -> None:
    _, whole = await post(client, base + path, BODIES[path])
    *data, done = await events(client, base + path, {**BODIES[path], "stream_options": {"include_usage": True}})
    assert done == "[DONE]"
    *chunks, last = [json.loads(each) for each in data]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 32
    assert all("usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    said = whole["choices"][0]
    if "message" in said:
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in choices) == said["message"]["content"]
        assert len(choices) == 1 + 32 + 1
    else:
        assert "".join(choice["text"] for choice in choices) == said["text"]
        assert len(choices) == 32 + 1


async def test_without_include_usage_a_stream_has_none(base: str, client: aiohttp.ClientSession) -> None:
    assert not any("usage" in each for each in await events(client, f"{base}/v1/completions", BODIES["/v1/completions"]))


async def test_usage_can_come_with_each_chunk(base: str, client: aiohttp.ClientSession) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *data, _ = await events(client, f"{base}/v1/chat/completions", {**CHAT, "stream_options": options})
    counts = [json.loads(each)["usage"]["completion_tokens"] for each in data]
    assert counts == sorted(counts)
    assert counts[-1] == 32


async def test_several_prompts_and_choices_are_numbered(base: str, client: aiohttp.ClientSession) -> None:
    body = {"model": MODEL, "prompt": ["one", "two"], "n": 2, "max_tokens": 3}
    _, whole = await post(client, f"{base}/v1/completions", body)
    texts = [choice["text"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert whole["usage"]["completion_tokens"] == 12
    assert whole["usage"]["prompt_tokens"] == 2
    *data, _ = await events(client, f"{base}/v1/completions", body)
    streamed = ["", "", "", ""]
    for choice in (json.loads(each)["choices"][0] for each in data):
        streamed[choice["index"]] += choice["text"]
    assert streamed == texts


async def test_a_stream_arrives_while_it_is_produced(client: aiohttp.ClientSession) -> None:
    slow = ServerOptions(engine=EngineOptions(ttft_ms=0, tpot_ms=60_000), models=(MODEL,))
    async with SimulatedPool(1, slow) as pool:
        async with client.post(f"http://{pool.addresses[0]}/v1/completions", json={"prompt": "x", "stream": True}) as response:
            line = await response.content.readline()
        assert json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]


async def test_every_response_says_who_answered(base: str, pool: SimulatedPool, client: aiohttp.ClientSession) -> None:
    headers = {"x-request-id": "r-1"}
    for path, body in {**BODIES, "/nowhere": {}, "/v1/embeddings": {"input": 5}}.items():
        async with client.post(base + path, json=body, headers=headers) as response:
            assert response.headers["x-served-by"] == pool.addresses[0]
            assert response.headers["x-served-by-name"] == "sim-0"
            assert response.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize(
    ("path", "content_type", "part"),
    [
        ("/health", "text/plain", ""),
        ("/ping", "text/plain", ""),
        ("/version", "application/json", "simulated-"),
        ("/metrics", "text/plain", "vllm:num_requests_waiting{"),
        ("/v1/models", "application/json", f'"id":"{MODEL}"'),
    ],
)
async def test_pages(base: str, client: aiohttp.ClientSession, path: str, content_type: str, part: str) -> None:
    async with client.get(base + path) as response:
        assert (response.status, response.content_type) == (200, content_type)
        assert part in await response.text()


async def test_models_lists_adapters_with_their_parent(base: str, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{base}/v1/models") as response:
        cards = {card["id"]: card for card in (await response.json())["data"]}
    assert cards["sql"]["parent"] == MODEL
    assert cards[MODEL]["max_model_len"] == 131072


@pytest.mark.parametrize(
    ("path", "change", "status", "part"),
    [
        ("/v1/chat/completions", {"model": "gpt-9"}, 404, "The model `gpt-9` does not exist."),
        ("/v1/chat/completions", {"model": 5}, 400, "model must be a string"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages must be a non-empty list"),
        ("/v1/chat/completions", {"max_tokens": 0}, 400, "max_tokens must be a whole number of at least 1"),
        ("/v1/chat/completions", {"max_tokens": True}, 400, "max_tokens must be a whole number"),
        ("/v1/chat/completions", {"max_tokens": 10**6}, 400, "maximum context length is 131072 tokens"),
        ("/v1/chat/completions", {"n": 1000}, 400, "n must be a whole number"),
        ("/v1/chat/completions", {"stream": "yes"}, 400, "stream must be a boolean"),
        ("/v1/chat/completions", {"stream_options": {"include_usage": True}}, 400, "needs stream: true"),
        ("/v1/completions", {"prompt": ""}, 400, "prompt must be a non-empty string"),
        ("/v1/completions", {"prompt": ["x"] * 129}, 400, "prompts times n must be at most 128"),
        ("/v1/responses", {"input": None}, 400, "input must be a string or a list"),
        ("/v1/messages", {"model": "claude"}, 404, "The model `claude` does not exist."),
        ("/v1/messages", {"messages": "hi"}, 400, "messages must be a non-empty list"),
    ],
)
async def test_a_wrong_request_is_explained(
    base: str, client: aiohttp.ClientSession, path: str, change: Json, status: int, part: str
) -> None:
    got, body = await post(client, base + path, {**BODIES[path], **change})
    assert got == status
    assert part in body["error"]["message"]
    if path == "/v1/messages":
        kind = {404: "not_found_error", 400: "invalid_request_error"}[status]
        assert (body["type"], body["error"]["type"]) == ("error", kind)
    else:
        assert body["error"]["code"] == status
        assert body["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 5000], ids=repr)
async def test_what_is_no_json_object_is_a_bad_request(base: str, client: aiohttp.ClientSession, body: bytes) -> None:
    async with client.post(f"{base}/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "BadRequestError"


async def test_too_long_a_body_is_refused(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, ServerOptions(models=(MODEL,), max_body_bytes=1000)) as pool:
        status, body = await post(client, f"http://{pool.addresses[0]}/v1/completions", {"prompt": "x" * 2000})
    assert (status, body["error"]["code"]) == (413, 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/metrics", 405), ("GET", "/", 404), ("POST", "/v1/chat", 404)],
)
async def test_unknown_paths_and_methods(base: str, client: aiohttp.ClientSession, method: str, path: str, status: int) -> None:
    async with client.request(method, base + path) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, status)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_goes_away_frees_its_place(
    base: str, pool: SimulatedPool, client: aiohttp.ClientSession, stream: bool
) -> None:
    (server,) = pool.servers

    async def ask() -> None:
        body = {**CHAT, "max_tokens": 60_000, "stream": stream}
        async with client.post(f"{base}/v1/chat/completions", json=body) as response:
            await response.read()

    call = asyncio.create_task(ask())
    await eventually(lambda: server.state().running == 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await eventually(lambda: server.state().running == 0)
    assert server.served == 0


async def test_only_whole_inference_answers_are_counted(base: str, pool: SimulatedPool, client: aiohttp.ClientSession) -> None:
    for path, body in BODIES.items():
        await post(client, base + path, body)
        await events(client, base + path, body)
    await post(client, f"{base}/v1/chat/completions", {})
    await client.get(f"{base}/metrics")
    assert pool.servers[0].served == 2 * len(BODIES)


async def test_metrics_count_what_was_served(base: str, client: aiohttp.ClientSession) -> None:
    for _ in range(2):
        await post(client, f"{base}/v1/chat/completions", {**CHAT, "max_tokens": 10})
    async with client.get(f"{base}/metrics") as response:
        page = await response.text()
    assert f'vllm:generation_tokens_total{{engine="0",model_name="{MODEL}"}} 20.0\n' in page
    assert "\nvllm:lora_requests_info{" in page


# ── rendering ──


async def test_a_rendered_chat_has_as_many_tokens_as_the_chat(base: str, client: aiohttp.ClientSession) -> None:
    _, answer = await post(client, f"{base}/v1/chat/completions", CHAT)
    status, rendered = await post(client, f"{base}/v1/chat/completions/render", CHAT)
    assert status == 200
    assert len(rendered["token_ids"]) == answer["usage"]["prompt_tokens"]


async def test_rendered_prompts_are_apart_and_begin_alike(base: str, client: aiohttp.ClientSession) -> None:
    async with client.post(f"{base}/v1/completions/render", json={"prompt": ["hello wo", "hello world"]}) as response:
        short, long = [prompt["token_ids"] for prompt in await response.json()]
    assert (len(short), len(long)) == (2, 3)
    assert long[:2] == short


async def test_rendering_is_not_inference(pool: SimulatedPool, base: str, client: aiohttp.ClientSession) -> None:
    await post(client, f"{base}/v1/chat/completions/render", CHAT)
    _, answer = await post(client, f"{base}/v1/chat/completions", CHAT)
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    status, body = await post(client, f"{base}/v1/completions/render", {"model": "other", "prompt": "x"})
    assert (status, body["error"]["param"]) == (404, "model")
