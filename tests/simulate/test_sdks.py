"""Clients that nobody here wrote: the official OpenAI and Anthropic packages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from tests.simulate.conftest import MODEL

QUESTION = "Where is the station? " * 20


@pytest.fixture
async def gpt(base: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(base: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as client:
        yield client


async def test_openai_chat(gpt: openai.AsyncOpenAI) -> None:
    for cached in (False, True):
        answer = await gpt.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        assert answer.usage.prompt_tokens_details is not None
        assert bool(answer.usage.prompt_tokens_details.cached_tokens) is cached


async def test_openai_chat_streamed(gpt: openai.AsyncOpenAI) -> None:
    whole = await gpt.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    stream = await gpt.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 32
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_openai_chat_with_the_accumulating_helper(gpt: openai.AsyncOpenAI) -> None:
    async with gpt.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": QUESTION}]) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content
    assert final.choices[0].message.role == "assistant"


async def test_openai_completions(gpt: openai.AsyncOpenAI) -> None:
    whole = await gpt.completions.create(model=MODEL, prompt="Once", max_tokens=5)
    stream = await gpt.completions.create(model=MODEL, prompt="Once", max_tokens=5, stream=True)
    texts = [chunk.choices[0].text async for chunk in stream]
    assert "".join(texts) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.total_tokens == 6


@pytest.mark.parametrize("encoding", ["float", "base64", None], ids=str)
async def test_openai_embeddings(gpt: openai.AsyncOpenAI, encoding: str | None) -> None:
    more = {} if encoding is None else {"encoding_format": encoding}
    answer = await gpt.embeddings.create(model=MODEL, input=["one", "two", "one"], dimensions=16, **more)  # type: ignore[arg-type]
    vectors = [item.embedding for item in answer.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert answer.usage.prompt_tokens == 3
    if encoding != "base64":
        assert [len(vector) for vector in vectors] == [16] * 3
        assert sum(value * value for value in vectors[0]) == pytest.approx(1.0, abs=1e-5)


async def test_openai_responses(gpt: openai.AsyncOpenAI) -> None:
    answer = await gpt.responses.create(model=MODEL, input=QUESTION)
    assert (answer.status, len(answer.output_text)) == ("completed", 128)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 32
    cut = await gpt.responses.create(model=MODEL, input=QUESTION, max_output_tokens=4)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.usage is not None
    assert cut.usage.input_tokens_details.cached_tokens > 0


async def test_openai_responses_streamed(gpt: openai.AsyncOpenAI) -> None:
    async with gpt.responses.stream(model=MODEL, input=QUESTION) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 32
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert len(final.output_text) == 128


async def test_openai_models_and_adapters(gpt: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in gpt.models.list()] == [MODEL, "sql"]
    answer = await gpt.completions.create(model="sql", prompt="Once", max_tokens=2)
    assert answer.model == "sql"


async def test_openai_errors_are_shown_well(gpt: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `gpt-9` does not exist") as missing:
        await gpt.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="messages must be a non-empty list"):
        await gpt.chat.completions.create(model=MODEL, messages=[])


async def test_anthropic_messages(claude: anthropic.AsyncAnthropic) -> None:
    for cached in (False, True):
        answer = await claude.messages.create(
            model=MODEL, max_tokens=9, system="Be brief.", messages=[{"role": "user", "content": QUESTION}]
        )
        assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "max_tokens")
        (block,) = answer.content
        assert block.type == "text"
        assert len(block.text) == 36
        assert answer.usage.output_tokens == 9
        assert bool(answer.usage.cache_read_input_tokens) is cached


async def test_anthropic_messages_streamed(claude: anthropic.AsyncAnthropic) -> None:
    question = [{"role": "user", "content": QUESTION}]
    whole = await claude.messages.create(model=MODEL, max_tokens=40, messages=question)  # type: ignore[arg-type]
    async with claude.messages.stream(model=MODEL, max_tokens=40, messages=question) as stream:  # type: ignore[arg-type]
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert "".join(texts) == block.text
    assert len(texts) == 40
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 40
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert final.usage.cache_read_input_tokens


async def test_anthropic_counts_tokens(claude: anthropic.AsyncAnthropic) -> None:
    count = await claude.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    answer = await claude.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": QUESTION}])
    assert count.input_tokens == answer.usage.input_tokens > 100


async def test_anthropic_errors_are_shown_well(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="The model `claude-9` does not exist"):
        await claude.messages.create(model="claude-9", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(anthropic.BadRequestError, match="messages must be a non-empty list"):
        await claude.messages.create(model=MODEL, max_tokens=1, messages=[])
