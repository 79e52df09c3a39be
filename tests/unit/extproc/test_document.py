"""The response as one document: found in a JSON body and in a stream, whatever the cuts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given

from epp.extproc.document import MAX_DOCUMENT_BYTES
from epp.extproc.readers import READERS
from tests.unit.extproc.heads import SSE, cut, head, places

RESPONSE = {"id": "resp_1", "object": "response", "output": [{"type": "message", "text": 'say "response": {}'}]}
JSON = "application/json"
GZIP = ("content-encoding", "gzip")


def event(kind: str, **body: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode()


def stream(last: str = "response.completed") -> bytes:
    begun = {**RESPONSE, "output": []}
    return (
        event("response.created", response=begun)
        + event("response.in_progress", response=begun)
        + event("response.output_text.delta", delta='the "response": {"type":"response.completed"}')
        + event(last, response=RESPONSE)
    )


def read(body: bytes, media: str = JSON, *more: tuple[str, str], where: Sequence[int] = ()) -> object:
    reader = READERS["openai-response"](head(media, *more))
    for chunk in cut(body, list(where)):
        reader.feed(chunk)
        reader.result()
    return reader.result()


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_the_last_event_of_a_stream(kind: str) -> None:
    found = read(stream(kind), SSE)
    assert isinstance(found, bytes)
    assert json.loads(found) == RESPONSE


@given(where=places)
def test_cuts_do_not_matter(where: list[int]) -> None:
    assert read(stream(), SSE, where=where) == read(stream(), SSE)
    body = json.dumps(RESPONSE).encode()
    assert read(body, where=where) == body


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(stream()[:-40], (SSE,), id="cut off"),
        pytest.param(event("response.created", response=RESPONSE), (SSE,), id="only begun"),
        pytest.param(b'data: {"type":"response.completed","response":7}\n\n', (SSE,), id="no object"),
        pytest.param(b'data: response.completed "response"\n\n', (SSE,), id="no JSON"),
        pytest.param(b"x" * (MAX_DOCUMENT_BYTES + 1), (JSON,), id="too large"),
        pytest.param(stream(), (SSE, GZIP), id="compressed"),
    ],
)  # fmt: skip
def test_nothing_is_found(body: bytes, headers: tuple[Any, ...]) -> None:
    assert read(body, *headers) is None


def test_a_last_event_without_its_blank_line() -> None:
    assert read(stream().rstrip(b"\n"), SSE) is not None
