"""Streams cut at every step: nothing leaks, every picked request is completed exactly once, others are not disturbed."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import grpc
import pytest

from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.picker import A, B, Picker
from tests.conformance.wire import (
    BUFFERED,
    DUPLEX,
    FULL_DUPLEX,
    NONE,
    STREAMED,
    Message,
    Modes,
    Stream,
    cut,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    std_body,
)

BODY = std_body("m", "p" * 100)
EVENT = 'data: {"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'


class Script(NamedTuple):
    """A whole exchange: each message with the number of answers that it brings."""

    modes: Modes
    steps: list[tuple[Message, int]]


def _parts(count: int) -> list[bytes]:
    return cut(BODY, -(-len(BODY) // count))


SCRIPTS = {
    "duplex": Script(
        DUPLEX,
        [
            (request_headers(), 0),
            *((request_body(part, end=False), 0) for part in _parts(3)),
            (request_body(b""), 2),
            (response_headers(content_type="text/event-stream"), 1),
            (response_body(EVENT, end=False), 1),
            (response_body(EVENT[:20], end=False), 1),
            (response_body(EVENT[20:], end=False), 1),
            (response_body(b""), 1),
        ],
    ),
    "duplex with trailers": Script(
        DUPLEX,
        [
            (request_headers(), 0),
            (request_body(BODY, end=False), 0),
            (request_trailers(), 3),
            (response_headers(), 1),
            (response_body(b"{}", end=False), 1),
            (response_trailers(), 1),
        ],
    ),
    "buffered": Script(
        Modes(BUFFERED, BUFFERED),
        [(request_headers(), 1), (request_body(BODY), 1), (response_headers(), 1), (response_body(b"{}"), 1)],
    ),
    "streamed": Script(
        Modes(STREAMED, STREAMED),
        [
            (request_headers(), 1),
            (request_body(BODY, end=False), 1),
            (request_body(b""), 1),
            (response_headers(), 1),
            (response_body(b"{", end=False), 1),
            (response_body(b"}"), 1),
        ],
    ),
    "bypass": Script(Modes(FULL_DUPLEX, NONE), [(request_headers(), 0), (request_body(BODY), 2), (response_headers(), 1)]),
    "without body": Script(
        DUPLEX, [(request_headers(end=True, method="GET"), 1), (response_headers(), 1), (response_body(b""), 1)]
    ),
    "refused": Script(DUPLEX, [(request_headers(), 0), (request_body(b"{}"), 1)]),
}
ENDS = ["cancel", "half-close", "garbage"]


async def play(picker: Picker, script: Script, steps: int, end: str, *, read: bool) -> None:
    """The first steps of a script, then the end.

    Args:
        read: take the answers of each step before the next; else the stream is cut while they are on their way.
    """
    stream = picker.stream(script.modes)
    for message, answers in script.steps[:steps]:
        await stream.send(message)
        for _ in range(answers if read else 0):
            assert await stream.raw() is not None
    await cut_off(stream, end)


async def cut_off(stream: Stream, end: str) -> None:
    """End the stream, and wait until it has ended on this side too."""
    try:
        if end == "cancel":
            stream.cancel()
        elif end == "half-close":
            await stream.half_close()
        else:
            await stream.send(b"\xff\xff\xff")
        while await stream.raw() is not None:
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # over, or over before the garbage was written
    except asyncio.CancelledError:
        assert end == "cancel"


@pytest.mark.parametrize("read", [True, False], ids=["answered", "at once"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", SCRIPTS)
async def test_aborted_at_every_step(start: StartPicker, name: str, end: str, read: bool) -> None:
    """Every number of steps at the same time; ``settle`` looks for what was left behind."""
    recorder = Recorder()
    config = {"declared": ["active-request-scorer"]}
    picker = await start(A(), B(), doubles=[double(recorder, *Recorder.ROLES)], config=config)
    script = SCRIPTS[name]
    await asyncio.gather(*(play(picker, script, steps, end, read=read) for steps in range(len(script.steps) + 1)))
    await picker.settle()
    assert len(recorder.completions) == len(recorder.requests) == picker.total("request_total")


async def test_random_messages_and_cuts(start: StartPicker) -> None:
    """Messages in any order, streams cut anywhere: the picker survives, and its books are in order."""
    rng = random.Random(5)
    recorder = Recorder()
    config = {"declared": ["active-request-scorer"]}
    picker = await start(A(), B(), doubles=[double(recorder, *Recorder.ROLES)], config=config)
    messages = [message for script in SCRIPTS.values() for message, _ in script.steps]
    modes = [script.modes for script in SCRIPTS.values()]

    async def client(seed: int) -> None:
        own = random.Random(seed)
        script = own.choice(list(SCRIPTS.values()))
        lead = [message for message, _ in script.steps[: own.randrange(len(script.steps) + 1)]]
        chosen = [*lead, *own.choices(messages, k=own.randrange(4))]
        stream = picker.stream(own.choice([None, script.modes, own.choice(modes)]))
        try:
            await stream.send(*chosen)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the picker has ended it
        await cut_off(stream, own.choice(ENDS))

    for _ in range(10):
        await asyncio.gather(*(client(rng.getrandbits(32)) for _ in range(20)))
    await picker.route(request_headers(), request_body(BODY))
    await picker.settle()
    assert len(recorder.completions) == len(recorder.requests) == picker.total("request_total")
