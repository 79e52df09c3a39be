"""Where a body is decoded: at once if that is little work, else in a thread, and never for a stream that has ended."""

from __future__ import annotations

import asyncio
import gzip
import random

import pytest

from epp.decision import decoding
from epp.decision.decoding import INLINE_BYTES, INLINE_DECODED_BYTES, DecodedBodies, DecodedRequest, decoded
from epp.errors import ErrorCode, RequestError
from epp.seam import End
from tests.unit.decision.rig import Rig, outcome, request
from tests.unit.decision.waiting import FULL, Gate

MIB = 1024 * 1024
NOISE = random.Random(7).randbytes(INLINE_BYTES)


class Waiter:
    """Remembers whether the decision had to go on in a task."""

    def __init__(self, *, is_over: bool = False) -> None:
        self.entered = False
        self._is_over = is_over

    async def enter(self) -> None:
        self.entered = True

    def check(self) -> None:
        if self._is_over:
            raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("body", "waits"),
    [
        pytest.param(b"{}", False, id="small"),
        pytest.param(b"x" * INLINE_DECODED_BYTES, False, id="as much as is decoded at once"),
        pytest.param(b"ab" * INLINE_DECODED_BYTES + NOISE[: 64 * 1024], True, id="decodes to more"),
        pytest.param(NOISE, True, id="large as it came"),
    ],
)
@pytest.mark.parametrize("limit", [64 * MIB, 0], ids=["a limit", "no limit"])
async def test_a_thread_for_what_takes_long(body: bytes, waits: bool, limit: int) -> None:
    waiter, bodies = Waiter(), DecodedBodies(3 * MIB)
    data = gzip.compress(body)
    read = await decoded(request(data), ("gzip",), limit, waiter, bodies)
    assert (bytes(read.body), read.received_bytes, waiter.entered) == (body, len(data), waits)
    assert bodies.held_bytes == len(body)
    read.let_go()
    read.let_go()
    assert bodies.held_bytes == 0


async def test_decoded_bodies_have_a_limit_together() -> None:
    bodies, asked = DecodedBodies(2500), request(gzip.compress(bytes(1000)))
    first, _ = [await decoded(asked, ("gzip",), 0, Waiter(), bodies) for _ in range(2)]
    for _ in range(2):
        with pytest.raises(RequestError, match="too many request bodies in memory") as caught:
            await decoded(asked, ("gzip",), 0, Waiter(), bodies)
        assert (caught.value.code, bodies.held_bytes) == (ErrorCode.SERVICE_UNAVAILABLE, 2000)
    first.let_go()
    await decoded(asked, ("gzip",), 0, Waiter(), bodies)


async def test_a_full_memory_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = DecodedBodies(10)
    bodies.hold(10)
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(RequestError, match="too many request bodies in memory"):
        await decoded(request(b"{}"), ("gzip",), 0, Waiter(), bodies)


@pytest.mark.parametrize("end", ["routed", "left while held", "refused"])
def test_a_decoded_body_counts_until_its_decision(end: str) -> None:
    gate = Gate()
    rig = Rig(admission=gate)
    stream = rig.send(request(gzip.compress(b'{"model":"m","prompt":"x"}'), headers={"content-encoding": "gzip"}))
    bodies = rig.director._decoded_bodies
    assert bodies.held_bytes == 26
    if end == "routed":
        gate.held[0].release()
        assert (bool(stream.route), bodies.held_bytes) == (True, 0)
    elif end == "refused":
        gate.held[0].refuse(FULL)
    rig.director.finished(stream, outcome(End.DISCONNECTED))
    assert bodies.held_bytes == 0


@pytest.mark.parametrize(("size", "waits"), [(1000, False), (2 * MIB, True)], ids=["a small limit", "a large limit"])
async def test_above_the_limit(size: int, waits: bool) -> None:
    waiter = Waiter()
    with pytest.raises(RequestError) as caught:
        await decoded(request(gzip.compress(bytes(size))), ("gzip",), size - 1, waiter, DecodedBodies(0))
    assert (caught.value.code, waiter.entered) == (ErrorCode.PAYLOAD_TOO_LARGE, waits)


async def test_a_body_that_cannot_be_decoded_is_not_tried_twice() -> None:
    waiter = Waiter()
    with pytest.raises(RequestError, match="is not gzip"):
        await decoded(request(b"{}"), ("gzip",), 0, waiter, DecodedBodies(0))
    assert not waiter.entered


async def test_a_stream_that_has_ended_meanwhile_goes_no_further() -> None:
    with pytest.raises(asyncio.CancelledError):
        await decoded(request(gzip.compress(NOISE)), ("gzip",), 0, Waiter(is_over=True), DecodedBodies(0))


def test_changes_replace_the_whole_body() -> None:
    came = request(b"12345678901234567890")
    read = DecodedRequest(came, b'{"model":"a"}', DecodedBodies(0))
    assert read.replacing(((9, 12, b'"bc"'),)) == ((0, 20, b'{"model":"bc"}'),)
    assert (read.headers, read.at_s, read.metadata) == (came.headers, came.at_s, came.metadata)
