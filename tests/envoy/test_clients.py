"""Clients that nobody here wrote, through a real Envoy: curl, the openai and the anthropic SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest

from epp.demo.stack import Stack, StackOptions
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions

pytestmark = pytest.mark.envoy

FAST = ServerOptions(engine=EngineOptions(time_scale=0.02))


@pytest.fixture(params=["full-duplex", "bypass", "buffered"])
async def stack(request: pytest.FixtureRequest, envoy_binary: Path) -> AsyncIterator[Stack]:
    """Three model servers, the picker with TLS, and Envoy."""
    async with Stack(StackOptions(servers=3, server=FAST, envoy=request.param)) as stack:
        yield stack


async def curl(*arguments: str) -> str:
    """Output of curl; fails with curl's own message."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--max-time", "20", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


def chat(**more: object) -> str:
    """A chat completion request."""
    return json.dumps({"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5} | more)


async def test_curl(stack: Stack) -> None:
    url = f"{stack.url}/v1/chat/completions"
    answer = await curl(url, "--header", "content-type: application/json", "--data", chat())
    assert json.loads(answer)["choices"][0]["message"]["content"]
    streamed = await curl("--no-buffer", url, "--header", "content-type: application/json", "--data", chat(stream=True))
    assert streamed.rstrip().endswith("data: [DONE]")
    assert streamed.count("data: ") > 3
    models = await curl(f"{stack.url}/v1/models")
    assert json.loads(models)["data"][0]["id"] == DEFAULT_MODEL


async def test_openai_sdk(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(
            model=DEFAULT_MODEL, messages=[{"role": "user", "content": "Hello!"}], max_tokens=5
        )
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 5
        stream = await client.chat.completions.create(
            model=DEFAULT_MODEL,
            messages=[{"role": "user", "content": "Hello!"}],
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 5
        completion = await client.completions.create(model=DEFAULT_MODEL, prompt="Once upon a time", max_tokens=5)
        assert completion.choices[0].text
        embedding = await client.embeddings.create(model=DEFAULT_MODEL, input=["one", "two"])
        assert len(embedding.data) == 2


async def test_openai_sdk_shows_our_errors_well(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=DEFAULT_MODEL, messages=[])
    assert refused.value.status_code == 400
    assert refused.value.code == "BadRequest"
    assert "inference error: BadRequest - invalid chat completions request" in refused.value.message


async def test_anthropic_sdk(stack: Stack) -> None:
    async with anthropic.AsyncAnthropic(base_url=stack.url, api_key="none", max_retries=0) as client:
        message = await client.messages.create(
            model=DEFAULT_MODEL, max_tokens=5, messages=[{"role": "user", "content": "Hello!"}]
        )
        assert message.usage.output_tokens == 5
        async with client.messages.stream(
            model=DEFAULT_MODEL, max_tokens=5, messages=[{"role": "user", "content": "Hello!"}]
        ) as stream:
            final = await stream.get_final_message()
        assert final.usage.output_tokens == 5
        counted = await client.messages.count_tokens(model=DEFAULT_MODEL, messages=[{"role": "user", "content": "Hello!"}])
        assert counted.input_tokens > 0
        with pytest.raises(anthropic.BadRequestError, match="must have at least one message"):
            await client.messages.create(model=DEFAULT_MODEL, max_tokens=5, messages=[])
