"""Conversations kept by the picker, as users of the openai SDK have them: through a real Envoy, in memory and in Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from epp.demo.stack import Stack, StackOptions
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions
from epp.transport.choose import NATIVE_MODULE
from tests.unit.plugins.responses_store.valkey import find_server, run_server

pytestmark = pytest.mark.envoy

TRANSPORTS = ["grpcio", "native"] if find_spec(NATIVE_MODULE) else ["grpcio"]
FAST = ServerOptions(engine=EngineOptions(time_scale=0.02))
LONG = "Once upon a time there was a picker. " * 20
"""Several blocks of a prefix cache."""


def configuration(parameters: dict[str, Any]) -> str:
    """A document with the store, its gate open."""
    return yaml.safe_dump(
        {
            "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
            "kind": "EndpointPickerConfig",
            "featureGates": ["prepareDataPlugins"],
            "plugins": [
                {"type": "responses-store", "parameters": parameters},
                {"type": "queue-scorer"},
                {"type": "max-score-picker"},
            ],
            "schedulingProfiles": [
                {"name": "default", "plugins": [{"pluginRef": "queue-scorer"}, {"pluginRef": "max-score-picker"}]}
            ],
        }
    )


@pytest.fixture(params=["memory", "valkey"])
def parameters(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Of each back end."""
    if request.param == "memory":
        yield {}
        return
    binary = find_server()
    if binary is None:
        if "redis" in request.config.getoption("--require").split(","):
            pytest.fail("no Valkey or Redis server")
        pytest.skip("no Valkey or Redis server")
    with run_server(binary) as server:
        yield {"storeConfig": {"tieredConfig": {"redis": {"address": server.address}}}}


@pytest.fixture
async def start(envoy_binary: Path, tmp_path: Path, cleanup: AsyncExitStack) -> Any:
    """Factory: a stack with this store."""

    async def begin(parameters: dict[str, Any], envoy: str = "full-duplex", transport: str = "auto") -> Stack:
        file = tmp_path / "epp.yaml"
        file.write_text(configuration(parameters), encoding="utf-8")
        flags = [f"--transport={transport}"]
        options = StackOptions(servers=2, server=FAST, config=str(file), envoy=envoy, picker_flags=flags)
        return await cleanup.enter_async_context(Stack(options))

    return begin


@pytest.fixture(params=TRANSPORTS)
async def stack(request: pytest.FixtureRequest, start: Any, parameters: dict[str, Any]) -> Stack:
    """With each back end, over each transport."""
    return await start(parameters, transport=request.param)  # type: ignore[no-any-return]


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(stack) as client:
        yield client


def sdk(stack: Stack, **headers: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, default_headers=headers)


async def streamed(client: openai.AsyncOpenAI, **request: Any) -> Any:
    """The response that a stream ends with."""
    events = [event async for event in await client.responses.create(model=DEFAULT_MODEL, stream=True, **request)]
    assert events[-1].type in ("response.completed", "response.incomplete")
    return events[-1].response


async def test_a_conversation_by_response_ids(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model=DEFAULT_MODEL, input=LONG, instructions="Be brief.", max_output_tokens=8)
    second = await streamed(client, input="And then?", previous_response_id=first.id)
    third = await client.responses.create(
        model=DEFAULT_MODEL, input=[{"role": "user", "content": "Why?"}], previous_response_id=second.id
    )
    sizes = [response.usage.input_tokens for response in (first, second, third)]
    assert sizes[0] > 100
    assert sizes[1] > sizes[0] - 20, "the model server reads the first turn again"
    assert sizes[2] > sizes[1] + second.usage.output_tokens
    known = await client.responses.retrieve(third.id)
    assert known.output_text == third.output_text
    assert (known.previous_response_id, known.model, known.status) == (second.id, DEFAULT_MODEL, third.status)
    items = [item async for item in await client.responses.input_items.list(third.id, order="asc", limit=2)]
    assert [getattr(item, "role", None) for item in items] == ["user", "assistant", "user", "assistant", "user"]
    assert items[0].content[0].text == LONG  # type: ignore[union-attr]


async def test_responses_that_are_gone_or_never_were(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model=DEFAULT_MODEL, input="Hello!")
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match="Response with id"):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError, match="Previous response with id") as refused:
        await client.responses.create(model=DEFAULT_MODEL, input="And?", previous_response_id=response.id)
    assert refused.value.code == "NotFound"
    unkept = await streamed(client, input="Hello!", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(unkept.id)


async def test_a_conversation_object(client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create(
        items=[{"type": "message", "role": "system", "content": LONG}], metadata={"topic": "demo"}
    )
    assert conversation.metadata == {"topic": "demo"}
    first = await client.responses.create(model=DEFAULT_MODEL, input="One?", conversation=conversation.id)
    assert first.usage is not None
    assert first.usage.input_tokens > 100
    await streamed(client, input="Two?", conversation={"id": conversation.id})
    items = [item async for item in await client.conversations.items.list(conversation.id, order="asc")]
    roles = [getattr(item, "role", None) for item in items]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    added = await client.conversations.items.create(
        conversation.id, items=[{"type": "message", "role": "user", "content": "Three?"}]
    )
    item_id = added.data[0].id
    assert item_id is not None
    assert (await client.conversations.items.retrieve(item_id, conversation_id=conversation.id)).id == item_id
    await client.conversations.items.delete(item_id, conversation_id=conversation.id)
    updated = await client.conversations.update(conversation.id, metadata={"topic": "other"})
    assert (await client.conversations.retrieve(conversation.id)).metadata == updated.metadata == {"topic": "other"}
    assert (await client.conversations.delete(conversation.id)).deleted
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        await client.responses.create(model=DEFAULT_MODEL, input="Four?", conversation=conversation.id)


async def test_other_requests_are_as_ever(client: openai.AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(model=DEFAULT_MODEL, messages=[{"role": "user", "content": "Hello!"}])
    assert chat.choices[0].message.content
    assert [model.id async for model in client.models.list()] == [DEFAULT_MODEL]


async def test_tenants(start: Any) -> None:
    stack = await start({})
    tenant = "x-llm-d-inference-fairness-id"
    async with sdk(stack, **{tenant: "a"}) as mine, sdk(stack, **{tenant: "b"}) as theirs:
        first = await mine.responses.create(model=DEFAULT_MODEL, input=LONG)
        assert await mine.responses.create(model=DEFAULT_MODEL, input="And?", previous_response_id=first.id)
        with pytest.raises(openai.NotFoundError):
            await theirs.responses.create(model=DEFAULT_MODEL, input="And?", previous_response_id=first.id)
        with pytest.raises(openai.NotFoundError):
            await theirs.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match="cannot be used together"):
            await mine.responses.create(model=DEFAULT_MODEL, input="x", previous_response_id="r", conversation="c")


async def test_a_data_plane_that_buffers_requests_and_shows_no_responses(start: Any) -> None:
    stack = await start({}, "buffered")
    async with sdk(stack) as client:
        conversation = await client.conversations.create(items=[{"type": "message", "role": "system", "content": LONG}])
        response = await client.responses.create(model=DEFAULT_MODEL, input="One?", conversation=conversation.id)
        assert response.usage is not None
        assert response.usage.input_tokens > 100, "requests can be rewritten"
        await client.responses.create(model=DEFAULT_MODEL, input="Hello!")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
    await stack.picker.stop()
    assert stack.picker.log.count("responses cannot be kept") == 1


async def test_a_store_that_is_away(start: Any) -> None:
    stack = await start({"storeConfig": {"tieredConfig": {"redis": {"address": "redis://127.0.0.1:1"}}}})
    async with sdk(stack) as client:
        response = await client.responses.create(model=DEFAULT_MODEL, input="Hello!")
        assert response.output_text
        with pytest.raises(openai.InternalServerError, match="cannot be reached") as refused:
            await client.responses.create(model=DEFAULT_MODEL, input="And?", previous_response_id=response.id)
        assert refused.value.status_code == 503
