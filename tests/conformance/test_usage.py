"""Streamed responses and token usage: cases C65 to C74."""

from __future__ import annotations

import json

import pytest

from epp.framework.types import Usage
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.exchanges import USAGE, event, pass_chunks, routed, start_watched
from tests.conformance.picker import A, Picker
from tests.conformance.wire import cut, response_body, response_headers


async def usage_of(recorder: Recorder) -> tuple[int, int, int, int | None]:
    """Prompt, completion, total and cached tokens of the request that is over."""
    usage = (await recorder.completion()).usage
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cached_tokens


def observed(picker: Picker, name: str) -> tuple[float, float]:
    """(observations, sum) of a histogram."""
    return picker.total(name, suffix="_count"), picker.total(name, suffix="_sum")


async def test_c65_events_are_forwarded_one_by_one(start: StartPicker) -> None:
    picker = await start(A())
    stream = await routed(picker)
    chunks = [b"data: {}\n\n", event({"usage": USAGE}) + b"data: [DONE]\n\n"]
    assert await pass_chunks(stream, chunks) == chunks
    await picker.settle()
    assert observed(picker, "request_input_tokens") == (1, 7)
    assert observed(picker, "request_output_tokens") == (1, 10)


async def test_c66_usage_is_cut(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    chunks = [
        b'data: {"x":1,"usage":{"prompt_to',
        b'kens":5,"completion_tokens":10,"total_tokens":15}}\n',
        b"\ndata: [DONE]\n\n",
    ]
    assert b"".join(await pass_chunks(await routed(picker), chunks)) == b"".join(chunks)
    assert await usage_of(recorder) == (5, 10, 15, None)


@pytest.mark.parametrize("content", [b"", event({"choices": [{"text": "hi"}]})], ids=["first", "behind content"])
async def test_c67_done_comes_later(start: StartPicker, content: bytes) -> None:
    picker, recorder = await start_watched(start)
    usage = event({"usage": {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}})
    chunks = [chunk for chunk in (content, usage, b"data: [DONE]\n\n") if chunk]
    await pass_chunks(await routed(picker), chunks)
    assert await usage_of(recorder) == (5, 10, 15, None)


async def test_c68_other_forms_of_events(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    text = (
        b': ping\r\n\r\nevent: x\r\ndata:{"a":1}\r\n\r\ndata:{"usage":'
        + json.dumps(USAGE).encode()
        + b"}\r\n\r\ndata: [DONE]\r\n\r\n"
    )
    await pass_chunks(await routed(picker), [text])
    usage = (await recorder.completion()).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.events) == (7, 10, 2)


async def test_c69_usage_in_every_chunk(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    chunks = [event({"usage": {"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n}}) for n in range(1, 13)]
    await pass_chunks(await routed(picker), chunks)
    assert await usage_of(recorder) == (7, 12, 19, None)
    assert observed(picker, "request_output_tokens") == (1, 12)


async def test_c70_anthropic_events(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    message = {"usage": {"input_tokens": 1000, "cache_read_input_tokens": 800, "output_tokens": 1}}
    chunks = [
        b"event: message_start\n" + event({"type": "message_start", "message": message}),
        b"event: content_block_delta\n" + event({"type": "content_block_delta", "delta": {"text": "x"}}),
        b"event: message_delta\n" + event({"type": "message_delta", "usage": {"output_tokens": 200}}),
        b"event: message_stop\n" + event({"type": "message_stop"}),
    ]
    await pass_chunks(await routed(picker, body, path="/v1/messages"), chunks)
    assert await usage_of(recorder) == (1000, 200, 1200, 800)
    assert observed(picker, "request_input_tokens") == (1, 1000)
    assert observed(picker, "request_output_tokens") == (1, 200)
    assert observed(picker, "request_cached_tokens") == (1, 800)


async def test_c71_responses_events(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    ignored = {"usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
    chunks = [
        event({"type": "response.created", "response": ignored}),
        event({"type": "response.output_text.delta", "delta": "x", **ignored}),
        event(
            {"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 10, "total_tokens": 17}}}
        ),
    ]
    await pass_chunks(await routed(picker, b'{"model":"m","input":"x","stream":true}', path="/v1/responses"), chunks)
    assert await usage_of(recorder) == (7, 10, 17, None)


USAGES = [
    pytest.param('{"usage":{"prompt_tokens":"7","completion_tokens":10}}', (7, 10, 17, None), id="text"),
    pytest.param('{"usage":{"prompt_tokens":null,"completion_tokens":10}}', (0, 10, 10, None), id="null"),
    pytest.param(
        '{"usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":5}}}',
        (7, 10, 17, 5),
        id="cached",
    ),
    pytest.param('{"usage":[]}', (0, 0, 0, None), id="list"),
    pytest.param('{"usage":null}', (0, 0, 0, None), id="usage null"),
    pytest.param('{"id":1}', (0, 0, 0, None), id="missing"),
    pytest.param("not json", (0, 0, 0, None), id="no JSON"),
    pytest.param('{"usage":{"prompt_tokens":{},"completion_tokens":[]}}', (0, 0, 0, None), id="wrong types"),
]


@pytest.mark.parametrize(("document", "expected"), USAGES)
async def test_c72_usage_of_json(start: StartPicker, document: str, expected: tuple[int, int, int, int | None]) -> None:
    picker, recorder = await start_watched(start)
    stream = await routed(picker)
    await stream.send(response_headers(), response_body(document))
    await stream.answer("response_headers")
    assert (await stream.response_body())[0] == document.encode()
    await stream.closes()
    assert await usage_of(recorder) == expected


async def test_c73_stream_answered_with_json(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    stream = await routed(picker, b'{"model":"m","prompt":"x","stream":true}')
    chunks = cut(json.dumps({"object": "error", "usage": USAGE}).encode(), 40)
    assert await pass_chunks(stream, chunks, content_type="application/json") == chunks
    completion = await recorder.completion()
    assert completion.streaming
    assert completion.usage == Usage(7, 10, 17, None, 0, found=True)


async def test_c74_events_not_asked_for(start: StartPicker) -> None:
    picker, recorder = await start_watched(start)
    chunks = [event({"n": 1}), event({"usage": USAGE})]
    await pass_chunks(await routed(picker), chunks, content_type="text/event-stream; charset=utf-8")
    completion = await recorder.completion()
    assert completion.streaming
    assert [chunk.data for chunk in recorder.chunks] == chunks, "each non-empty chunk, in order"


async def test_streaming_hooks_that_read_no_chunks(start: StartPicker) -> None:
    """They are told of the first one only: when a response begins."""
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES, every_chunk=False)])
    chunks = [event({"n": number}) for number in range(3)]
    await pass_chunks(await routed(picker), chunks)
    await recorder.completion()
    assert [chunk.data for chunk in recorder.chunks] == chunks[:1]
