"""Exchanges that several groups of cases begin with or go through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from epp.framework.registry import PluginType
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.picker import A, Picker
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body

EVENTS = "text/event-stream"
USAGE = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}


def event(document: dict[str, Any]) -> bytes:
    """One SSE event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def start_watched(start: StartPicker, *, doubles: Sequence[PluginType] = (), **options: Any) -> tuple[Picker, Recorder]:
    """A picker with one endpoint; a recorder comes before the test's own plugins."""
    recorder = Recorder()
    return await start(A(), doubles=[double(recorder, *Recorder.ROLES), *doubles], **options), recorder


async def routed(picker: Picker, body: bytes | None = None, *, path: str = "/v1/completions") -> Stream:
    """A stream whose request is answered."""
    stream = picker.stream()
    await stream.send(request_headers(path=path), request_body(std_body("m", "p") if body is None else body))
    await stream.routed()
    return stream


async def pass_chunks(stream: Stream, chunks: list[bytes], *, content_type: str = EVENTS) -> list[bytes]:
    """Send a response, each chunk answered at once, the last one empty with the end flag.

    Returns:
        What was forwarded for each chunk.
    """
    await respond(stream, response_headers(content_type=content_type))
    forwarded: list[bytes] = []
    for chunk in chunks:
        await stream.send(response_body(chunk, end=False))
        answer = await stream.answer("response_body")
        assert answer.body is not None
        assert answer.end is False
        forwarded.append(answer.body)
    await stream.send(response_body(b""))
    rest, _ = await stream.response_body()
    await stream.closes()
    return [*forwarded, rest] if rest else forwarded
