"""Usage of SGLang and of gRPC services, however the body is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.readers import READERS, Usage
from tests.unit.extproc.heads import SSE, PlainHead, cut, every_cut, head, places
from tests.unit.protobuf import chunk, complete, field, frame, http_body

GRPC = "application/grpc"
SGLANG, GENERATE, EMBED, VERTEX = "sglang-usage", "vllm-grpc-usage", "vllm-grpc-embed-usage", "vertexai-usage"
NOTHING = Usage()


def read(name: str, response: PlainHead, chunks: list[bytes]) -> Usage:
    reader = READERS[name](response)
    for piece in chunks:
        reader.feed(piece)
    result = reader.result()
    assert isinstance(result, Usage)
    assert reader.result() == result, "asking changes nothing"
    return result


def found(prompt: int, completion: int, cached: int | None = None, events: int = 0) -> Usage:
    return Usage(prompt, completion, prompt + completion, cached, events, found=True)


def info(reason: object = None, **counts: object) -> bytes:
    meta: dict[str, Any] = {"id": "1", "finish_reason": reason, **counts}
    return json.dumps({"text": "x", "output_ids": [1], "meta_info": meta}, separators=(",", ":")).encode()


STOP = {"type": "stop"}
COUNTS = {"prompt_tokens": 7, "completion_tokens": 10, "cached_tokens": 4}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(info(STOP, **COUNTS), found(7, 10, 4), id="all"),
        pytest.param(info(STOP, prompt_tokens=7, completion_tokens=0), found(7, 0), id="no cached tokens"),
        pytest.param(info(STOP, completion_tokens=10), found(0, 10), id="no prompt tokens"),
        pytest.param(info(STOP), NOTHING, id="no counts"),
        pytest.param(b'{"meta_info":[]}', NOTHING, id="odd meta_info"),
        pytest.param(b'{"text":"x"}', NOTHING, id="no meta_info"),
        pytest.param(b"[" + info(STOP, **COUNTS) + b"]", NOTHING, id="several prompts"),
        pytest.param(b'{"text":"' + b"x" * 2_000_000 + b'",' + info(STOP, **COUNTS)[1:], found(7, 10, 4), id="a long body"),
    ],
)
def test_sglang_documents(body: bytes, expected: Usage) -> None:
    assert read(SGLANG, head(), [body]) == expected


def test_sglang_events() -> None:
    events = [info(None, prompt_tokens=7, completion_tokens=n, cached_tokens=4) for n in range(1, 4)]
    events.append(info(STOP, **COUNTS))
    body = b"".join(b"data: " + event + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    for pieces in every_cut(body):
        assert read(SGLANG, head(SSE), pieces) == found(7, 10, 4, events=4)


def test_sglang_events_that_break_off() -> None:
    event = b"data: " + info(None, **COUNTS) + b"\n\n"
    assert read(SGLANG, head(SSE), [event]) == Usage(events=1)


def test_sglang_events_with_blanks() -> None:
    document = {"meta_info": {"finish_reason": None, **COUNTS}}
    last = {"meta_info": {"finish_reason": STOP, **COUNTS}}
    body = b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in (document, last))
    assert read(SGLANG, head(SSE), [body]) == found(7, 10, 4, events=2)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([complete(7, 10, 4)], found(7, 10, 4), id="unary"),
        pytest.param([complete(7, 10)], found(7, 10, 0), id="no cached tokens"),
        pytest.param([chunk(), chunk(), complete(7, 10)], found(7, 10, 0, events=2), id="chunks without counts"),
        pytest.param([chunk(7, 1), chunk(7, 2), chunk(7, 3)], found(7, 3, 0, events=3), id="chunks with counts"),
        pytest.param([chunk(7, 1), chunk()], found(7, 1, 0, events=2), id="a last chunk without counts"),
        pytest.param([complete(0, 0)], NOTHING, id="no counts"),
        pytest.param([field(3, "other")], NOTHING, id="another message"),
        pytest.param([b"\x0a\x05", complete(7, 10)], found(7, 10, 0), id="a damaged message"),
        pytest.param([], NOTHING, id="nothing"),
    ],
)
def test_vllm_generate(messages: list[bytes], expected: Usage) -> None:
    body = b"".join(map(frame, messages))
    for pieces in every_cut(body):
        assert read(GENERATE, head(GRPC), pieces) == expected


def test_compressed_messages_are_not_read() -> None:
    assert read(GENERATE, head(GRPC), [frame(complete(7, 10), flag=1) + frame(complete(1, 2))]) == found(1, 2, 0)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(field(1, b"\0\0\x80?" * 8) + field(2, 7) + field(3, 8), found(7, 0), id="all"),
        pytest.param(field(1, b"\x10\x05\x18\x06"), NOTHING, id="numbers that look like counts"),
    ],
)
def test_vllm_embed(message: bytes, expected: Usage) -> None:
    for pieces in every_cut(frame(message)):
        assert read(EMBED, head(GRPC), pieces) == expected


OPENAI = json.dumps({"usage": {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}}).encode()


def test_vertex_documents() -> None:
    body = frame(http_body(OPENAI))
    for pieces in every_cut(body):
        assert read(VERTEX, head(GRPC), pieces) == found(7, 10)


def test_vertex_events_go_on_from_message_to_message() -> None:
    events = b'data: {"choices":[]}\n\ndata: ' + OPENAI + b"\n\ndata: [DONE]\n\n"
    for pieces in every_cut(events):
        body = b"".join(frame(http_body(piece)) for piece in pieces)
        assert read(VERTEX, head(GRPC), [body]) == found(7, 10, events=2)


def test_vertex_documents_one_after_the_other() -> None:
    body = frame(http_body(b'{"choices":[]}')) + frame(http_body(OPENAI)) + frame(http_body(b'{"choices":[]}'))
    assert read(VERTEX, head(GRPC), [body]) == found(7, 10)


@pytest.mark.parametrize("name", [GENERATE, EMBED, VERTEX, SGLANG])
@given(body=st.binary(max_size=80), where=places)
def test_any_body_leaves_a_usage(name: str, body: bytes, where: list[int]) -> None:
    for content in (body, frame(body)):
        assert isinstance(read(name, head(GRPC), cut(content, where)), Usage)


@pytest.mark.parametrize("name", [GENERATE, EMBED, VERTEX])
def test_plain_text_is_no_frame(name: str) -> None:
    assert read(name, head(GRPC), [b"no healthy upstream"]) == NOTHING
