"""The tokenizer service on a Unix socket: what it is asked, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from epp.framework.keys import MediaFeature
from epp.framework.types import Api, ParsedBody
from epp.process.runtime import TaskRuntime
from plugins.tokenization import render_uds
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.render_uds import RenderUds
from tests.unit.plugins.tokenization.bodies import anthropic, chat, completion, image, responses
from tests.unit.plugins.tokenization.service import Service, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""One event loop for all: grpc's poller outlives a test, and would call into a closed one."""
IDS = [1, 127, 128, 70_000, 2**32 - 1]


@asynccontextmanager
async def connected(service: Service, folder: Path) -> AsyncIterator[RenderUds]:
    """A client of the service that has made the model known."""
    runtime = TaskRuntime()
    back_end = RenderUds(str(folder / "s"), "base", runtime, first_retry_s=0.005)
    async with serving(service, folder / "s"):
        await back_end.start()
        async with asyncio.timeout(10):
            await asyncio.gather(*runtime._tasks)
        try:
            yield back_end
        finally:
            await back_end.stop()
            await runtime.stop()


def tokens(*ids: int) -> dict[str, Any]:
    return {"token_ids": ids, "success": True}


async def test_completions(tmp_path: Path) -> None:
    service = Service(RenderCompletion=lambda request: tokens(*IDS) if request.prompt == "hellö" else tokens(7))
    async with connected(service, tmp_path) as back_end:
        prompt = await back_end.tokenize(completion(["hellö", "world"]))
    assert prompt is not None
    assert (list(prompt.token_ids), [list(ids) for ids in prompt.further]) == (IDS, [[7]])
    assert (prompt.is_exact, prompt.model) == (True, "base")
    (announced,) = service.requests("InitializeTokenizer")
    assert MessageToDict(announced) == {"modelName": "base", "addGenerationPrompt": True}
    assert [request.model_name for request in service.requests("RenderCompletion")] == ["base", "base"]


USER = {"messages": [{"role": "user", "content": "hi"}]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            chat("hi", {"role": "assistant", "content": None, "tool_calls": [CALL]}),
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "toolCallsJson": [CALL]}]},
            id="texts and calls of tools",
        ),
        pytest.param(
            chat([{"type": "text", "text": ""}, image("u"), {"type": "input_audio"}]),
            {"messages": [{"role": "user", "contentParts": [
                {"type": "text", "text": ""}, {"type": "image_url", "imageUrl": {"url": "u"}}]}]},
            id="parts, as far as there are fields for them",
        ),
        pytest.param(
            chat("hi", tools=[{"z": 1, "a": "ü"}], add_generation_prompt=False, continue_final_message=True, chat_template="t",
                 chat_template_kwargs={"enable_thinking": False}),
            {"messages": [{"role": "user", "content": "hi"}], "toolsJson": [{"z": 1, "a": "ü"}], "addGenerationPrompt": False,
             "continueFinalMessage": True, "chatTemplate": "t", "chatTemplateKwargs": {"enable_thinking": False}},
            id="options",
        ),
        pytest.param(responses("hi"), {"messages": [{"role": "user", "content": "hi"}]}, id="responses"),
        pytest.param(anthropic({"role": "user", "content": "hi"}), USER, id="messages"),
    ],
)  # fmt: skip
async def test_what_a_chat_is_rendered_from(body: ParsedBody, expected: dict[str, Any], tmp_path: Path) -> None:
    service = Service(RenderChatCompletion=lambda _: tokens(5))
    async with connected(service, tmp_path) as back_end:
        prompt = await back_end.tokenize(body)
    assert prompt is not None
    assert list(prompt.token_ids) == [5]
    (request,) = map(MessageToDict, service.requests("RenderChatCompletion"))
    for holder, name in [
        (request, "toolsJson"),
        (request, "chatTemplateKwargs"),
        *((m, "toolCallsJson") for m in request["messages"]),
    ]:
        if name in holder:
            holder[name] = json.loads(holder[name])
    assert request == {"modelName": "base", "addGenerationPrompt": True, **expected}


async def test_places_of_media_are_told(tmp_path: Path) -> None:
    features = {
        "mm_hashes": {"image": {"values": ["h1", "h2"]}, "audio": {"values": ["h3"]}, "video": {"values": ["h4"]}},
        "mm_placeholders": {
            "image": {"ranges": [{"offset": 4, "length": 300}, {"offset": 900, "length": 2}]},
            "audio": {"ranges": [{"offset": 0, "length": 3}]},
        },
    }
    service = Service(RenderChatCompletion=lambda _: tokens(5) | {"features": features})
    async with connected(service, tmp_path) as back_end:
        prompt = await back_end.tokenize(chat([image()]))
    assert prompt is not None
    assert prompt.media == (
        MediaFeature("audio", "h3", 0, 3),
        MediaFeature("image", "h1", 4, 300),
        MediaFeature("image", "h2", 900, 2),
    )


async def test_older_services_render_first_and_tokenize_then(tmp_path: Path) -> None:
    service = Service(
        RenderChatTemplate=lambda _: {"rendered_prompt": "rendered", "success": True},
        Tokenize=lambda request: {"input_ids": [len(request.input)], "success": True},
    )
    options = {"s": "x", "n": 1.5, "i": 3, "b": True, "l": [1, {"k": "v"}], "none": None}
    body = chat(
        "hi", tools=[{"type": "function", "function": {"name": "f"}}], documents=[{"t": "d"}], chat_template_kwargs=options
    )
    async with connected(service, tmp_path) as back_end:
        whole = await back_end.tokenize(body)
        text = await back_end.tokenize(completion("hello"))
    assert whole is not None
    assert text is not None
    assert (list(whole.token_ids), list(text.token_ids)) == ([8], [5])
    assert [(r.input, r.model_name, r.add_special_tokens) for r in service.requests("Tokenize")] == [
        ("rendered", "base", False),
        ("hello", "base", True),
    ]
    (request,) = service.requests("RenderChatTemplate")
    assert MessageToDict(request) == {
        "conversationTurns": [{"messages": [{"role": "user", "content": "hi"}]}],
        "tools": [
            {"tool": {"type": {"stringValue": "function"},
                      "function": {"structValue": {"fields": {"name": {"stringValue": "f"}}}}}}
        ],
        "documents": [{"document": {"t": {"stringValue": "d"}}}],
        "addGenerationPrompt": True,
        "modelName": "base",
        "chatTemplateKwargs": {
            "s": {"stringValue": "x"}, "n": {"numberValue": 1.5}, "i": {"numberValue": 3.0}, "b": {"boolValue": True},
            "l": {"listValue": {"values": [{"numberValue": 1.0}, {"structValue": {"fields": {"k": {"stringValue": "v"}}}}]}},
            "none": {},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        pytest.param(lambda _: {"success": False, "error_message": "unknown model"}, "unknown model", id="refused"),
        pytest.param(lambda _: {}, "refused without a reason", id="refused without a reason"),
        pytest.param(lambda _: grpc.StatusCode.INTERNAL, "INTERNAL: as told", id="a status"),
    ],
)
async def test_a_service_that_fails(respond: Any, message: str, tmp_path: Path) -> None:
    async with connected(Service(RenderCompletion=respond), tmp_path) as back_end:
        with pytest.raises(TokenizationError, match=f"RenderCompletion at .*: {message}"):
            await back_end.tokenize(completion("hi"))


async def test_a_service_that_knows_no_method(tmp_path: Path) -> None:
    async with connected(Service(), tmp_path) as back_end:
        with pytest.raises(TokenizationError, match="knows neither"):
            await back_end.tokenize(completion("hi"))


async def test_bodies_without_a_prompt_are_not_asked_about(tmp_path: Path) -> None:
    service = Service()
    async with connected(service, tmp_path) as back_end:
        assert await back_end.tokenize(ParsedBody(Api.RAW)) is None
    assert [name for name, _ in service.asked] == ["InitializeTokenizer"]


async def test_a_call_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_uds, "TIMEOUT_S", 0.05)
    runtime = TaskRuntime()
    with socket.socket(socket.AF_UNIX) as listener:  # takes connections, and never answers
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        back_end = RenderUds(str(tmp_path / "s"), "base", runtime)
        await back_end.start()
        with pytest.raises(TokenizationError, match="DEADLINE_EXCEEDED"):
            await back_end.tokenize(completion("hi"))
        await back_end.stop()
        await runtime.stop()


async def test_before_the_start_and_after_the_end(tmp_path: Path) -> None:
    back_end = RenderUds(str(tmp_path / "s"), "base", None)
    with pytest.raises(TokenizationError, match="not connected"):
        await back_end.tokenize(completion("hi"))
    await back_end.stop()


async def test_a_service_that_comes_later_is_told_of_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime, service = TaskRuntime(), Service(RenderCompletion=lambda _: tokens(5))
    back_end = RenderUds(str(tmp_path / "s"), "base", runtime, first_retry_s=0.05)
    await back_end.start()
    with pytest.raises(TokenizationError, match="UNAVAILABLE"):
        await back_end.tokenize(completion("hi"))
    assert back_end.debug_state()["initialized"] is False
    async with serving(service, tmp_path / "s"), asyncio.timeout(20):
        await asyncio.gather(*runtime._tasks)
        prompt = await back_end.tokenize(completion("hi"))
        await back_end.stop()
    assert prompt is not None
    assert back_end.debug_state()["initialized"] is True
    assert {record.getMessage() for record in caplog.records} == {"tokenizer service not ready, prompts are not tokenized"}
    await runtime.stop()
