"""The transports themselves: ports, many streams, garbage, limits, deadlines, stopping."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from grpc import aio

from epp.errors import UsageError
from epp.extproc.messages import (
    HeadersAnswer,
    Immediate,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    Status,
    StreamedBody,
)
from epp.extproc.readers import BodyCopy, Usage
from epp.seam import BodyState, End, Plan, Port, Settings
from epp.transport.grpc_server import HOLD_BOUNDS_S
from tests.extproc.cases.vocabulary import NO_CONFIG
from tests.extproc.transcripts import FULL_DUPLEX, REFUSED, SETTINGS, PlainHeaders, Recorder, Script, routed
from tests.extproc.wire import LIMIT_S, Client, Dispatcher, loopback
from tests.transport.transports import MakeTransport

HEADERS = PlainHeaders((":path", "/v1/completions"))
JSON = PlainHeaders((":status", "200"))


class PerStream(Dispatcher):
    """Each stream gets a recorder of its own."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.recorders: list[Recorder] = []
        self.changed = asyncio.Event()

    def request(self, stream: Any, request: Any) -> None:
        self.recorder = Recorder(self.script, self.changed.set)
        self.recorders.append(self.recorder)
        super().request(stream, request)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while len(self.recorders) < count:
                self.changed.clear()
                await self.changed.wait()


async def _begin(client: Client, body: bytes = b"{}") -> None:
    await client.send(RequestHeaders(HEADERS))
    await client.send(RequestBody(body, True))


async def test_two_hundred_streams_at_once(make: MakeTransport) -> None:
    handler = PerStream(Script())

    async def one(channel: aio.Channel, number: int, everybody: asyncio.Barrier) -> None:
        client = Client(channel, FULL_DUPLEX)
        body = str(number).encode()
        await _begin(client, body)
        assert isinstance(await client.receive(), HeadersAnswer)
        assert await client.receive() == StreamedBody(False, body, True)
        await everybody.wait()
        await client.send(ResponseHeaders(JSON))
        assert isinstance(await client.receive(), HeadersAnswer)
        await client.send(ResponseBody(body, True))
        assert await client.receive() == StreamedBody(True, body, True)
        assert await client.receive() is None
        assert await client.status() is Status.OK

    async with loopback(make, handler, SETTINGS) as running:
        everybody = asyncio.Barrier(200)
        await asyncio.gather(*(one(running.channel, number, everybody) for number in range(200)))
        await running.until_ended(200)
        stats = running.transport.stats()
    assert stats.ended == {"OK": 200}
    assert stats.open_streams == 0
    assert stats.buffered_bytes == 0
    assert sum(stats.hold_counts) == 200
    assert len(stats.hold_counts) == len(HOLD_BOUNDS_S) + 1
    assert stats.hold_sum_s > 0
    assert [recorder.outcomes[0].end for recorder in handler.recorders] == [End.NATURAL] * 200


async def test_stop_aborts_what_is_still_running_and_tells_the_handler(make: MakeTransport) -> None:
    handler = PerStream(Script())
    async with loopback(make, handler, SETTINGS) as running:
        in_response, deciding, body_incomplete = (Client(running.channel, FULL_DUPLEX) for _ in range(3))
        await _begin(in_response)
        await in_response.receive()
        await in_response.receive()
        await in_response.send(ResponseHeaders(JSON))
        await in_response.receive()
        handler.script = Script(answer=None)
        await _begin(deciding)
        await handler.until_asked(2)
        await body_incomplete.send(RequestHeaders(HEADERS))
        await running.transport.stop(0.05)
        calls = [list(recorder.calls) for recorder in handler.recorders]
        for client in (in_response, deciding, body_incomplete):
            assert await client.receive() is None
            assert await client.status() is Status.UNAVAILABLE
        assert [recorder.outcomes[0].end for recorder in handler.recorders] == [End.FAILED, End.FAILED]
        assert [list(recorder.calls) for recorder in handler.recorders] == calls, "no call after stop returned"
        assert running.transport.stats().open_streams == 0


async def test_stop_waits_for_running_streams(make: MakeTransport) -> None:
    handler = PerStream(Script())
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _begin(client)
        await client.receive()
        await client.receive()
        stopping = asyncio.create_task(running.transport.stop(None))
        await client.send(ResponseHeaders(JSON))
        assert isinstance(await client.receive(), HeadersAnswer)
        assert not stopping.done()
        await client.send(ResponseBody(b"x", True))
        assert await client.receive() == StreamedBody(True, b"x", True)
        assert await client.status() is Status.OK
        async with asyncio.timeout(LIMIT_S):
            await stopping
        assert handler.recorders[0].outcomes[0].end is End.NATURAL


async def test_an_evicted_stream_and_a_late_answer_are_written_while_nothing_arrives(make: MakeTransport) -> None:
    handler = PerStream(Script(answer=None))
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _begin(client)
        await handler.until_asked(1)
        stream = handler.recorders[0].stream
        assert stream is not None
        stream.answer(routed())
        assert isinstance(await client.receive(), HeadersAnswer)
        assert await client.receive() == StreamedBody(False, b"{}", True)
        stream.answer(REFUSED)
        stream.answer(REFUSED)
        assert await client.receive() == Immediate(REFUSED)
        assert await client.receive() is None
        assert await client.status() is Status.OK
        stream.answer(REFUSED)
        await running.until_ended(1)
    assert [call[0] for call in handler.recorders[0].calls] == ["request", "finished"]


async def test_answers_of_other_streams_are_written_from_inside_a_call(make: MakeTransport) -> None:
    """A stream that ends makes room for one that waits."""
    handler = PerStream(Script(answer=None))
    async with loopback(make, handler, SETTINGS) as running:
        waiting, ending = Client(running.channel, FULL_DUPLEX), Client(running.channel, FULL_DUPLEX)
        await _begin(waiting)
        await handler.until_asked(1)
        await _begin(ending)
        await handler.until_asked(2)
        first = handler.recorders[0].stream
        assert first is not None
        original = handler.recorders[1].finished

        def finished(stream: Any, outcome: Any) -> Any:
            first.answer(routed())
            return original(stream, outcome)

        handler.recorders[1].finished = finished  # type: ignore[method-assign]
        ending.call.cancel()
        assert isinstance(await waiting.receive(), HeadersAnswer)


async def test_a_body_that_stops_coming_is_noticed_while_nothing_arrives(make: MakeTransport) -> None:
    handler = PerStream(Script(REFUSED))
    async with loopback(make, handler, SETTINGS._replace(body_idle_s=0.05)) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS))
        await client.send(RequestBody(b"begin"))
        assert await client.receive() == Immediate(REFUSED)
        assert await client.status() is Status.OK
    assert handler.recorders[0].requests[0].body_state is BodyState.TIMED_OUT


async def test_garbage_ends_its_own_stream_only(make: MakeTransport) -> None:
    handler = PerStream(Script())
    async with loopback(make, handler, SETTINGS) as running:
        good, bad, empty = (Client(running.channel, FULL_DUPLEX) for _ in range(3))
        await _begin(good)
        assert isinstance(await good.receive(), HeadersAnswer)
        await bad.send(b"\xff\xff\xff")
        await empty.send(b"")
        for client in (bad, empty):
            assert await client.receive() is None
            assert await client.status() is Status.INVALID_ARGUMENT
        assert isinstance(await good.receive(), StreamedBody)


async def test_a_message_above_the_receive_limit_ends_its_own_stream_only(make: MakeTransport) -> None:
    handler = PerStream(Script())
    async with loopback(make, handler, SETTINGS._replace(max_receive_bytes=100_000)) as running:
        good, large = Client(running.channel, FULL_DUPLEX), Client(running.channel, FULL_DUPLEX)
        await _begin(good)
        assert isinstance(await good.receive(), HeadersAnswer)
        await large.send(RequestHeaders(HEADERS))
        await large.send(RequestBody(b"x" * 200_000, True))
        assert await large.receive() is None
        code = await large.call.code()
        assert code.name == "RESOURCE_EXHAUSTED"
        assert isinstance(await good.receive(), StreamedBody)
        await running.until_ended(1)
    assert len(handler.recorders) == 1, "the handler never saw the large one"


async def test_a_client_that_does_not_read_is_noticed_when_it_leaves(make: MakeTransport) -> None:
    """The response is larger than any window, so a write is waiting when the stream is cancelled."""
    handler = PerStream(Script(routed(Plan())))
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _begin(client)
        await client.receive()
        await client.receive()
        await client.send(ResponseHeaders(JSON))
        sending = asyncio.create_task(_send_for_ever(client))
        await handler.until_asked(1)
        client.call.cancel()
        await running.until_ended(1)
        sending.cancel()
        await asyncio.wait({sending})
    assert [call[0] for call in handler.recorders[0].calls] == ["request", "finished"]
    assert handler.recorders[0].outcomes[0].end is End.DISCONNECTED


async def test_stop_does_not_hang_on_a_client_that_does_not_read(make: MakeTransport) -> None:
    handler = PerStream(Script(routed(Plan())))
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _begin(client)
        await client.receive()
        await client.receive()
        await client.send(ResponseHeaders(JSON))
        sending = asyncio.create_task(_send_for_ever(client))
        await handler.until_asked(1)
        async with asyncio.timeout(LIMIT_S):
            await running.transport.stop(0.05)
        assert handler.recorders[0].outcomes[0].end is End.FAILED
        sending.cancel()
        client.call.cancel()
        await asyncio.wait({sending})


async def _send_for_ever(client: Client) -> None:
    while not client.call.done():
        await client.send(ResponseBody(b"x" * 1_000_000))


async def test_configure_is_for_new_streams(make: MakeTransport) -> None:
    handler = PerStream(Script())
    async with loopback(make, handler, SETTINGS) as running:
        old = Client(running.channel, FULL_DUPLEX)
        await old.send(RequestHeaders(PlainHeaders(("x-spoof", "1"), ("x-new", "1"))))
        while running.transport.stats().open_streams == 0:  # noqa: ASYNC110 — counts are read, not told
            await asyncio.sleep(0.001)
        running.transport.configure(SETTINGS._replace(request_strip=frozenset({"x-new"})))
        new = Client(running.channel, FULL_DUPLEX)
        await new.send(RequestHeaders(PlainHeaders(("x-spoof", "1"), ("x-new", "1")), True))
        answer = await new.receive()
        assert isinstance(answer, HeadersAnswer)
        assert answer.remove == ("x-new",)
        await old.send(RequestBody(b"", True))
        answer = await old.receive()
        assert isinstance(answer, HeadersAnswer)
        assert answer.remove == ("x-spoof",)


async def test_without_protocol_config_the_answer_survives_the_half_close(make: MakeTransport) -> None:
    handler = PerStream(Script(answer=None))
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, NO_CONFIG)
        await _begin(client)
        await client.half_close()
        await handler.until_asked(1)
        stream = handler.recorders[0].stream
        assert stream is not None
        stream.answer(routed())
        assert isinstance(await client.receive(), HeadersAnswer)
        assert isinstance(await client.receive(), StreamedBody)
        assert await client.receive() is None
        assert await client.status() is Status.OK


async def test_readers_see_the_request_and_the_response(make: MakeTransport) -> None:
    """One that a transport may read itself, and one that only Python has."""
    plan = Plan(readers=("openai-usage", "openai-response", "copy"))
    handler = PerStream(Script(routed(plan)))
    document = b'{"id":"r","usage":{"input_tokens":3,"output_tokens":4}}'
    async with loopback(make, handler, SETTINGS._replace(request_readers=("copy",))) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS))
        await client.send(RequestBody(b"{", False))
        await client.send(RequestBody(b"}", True))
        await client.receive()
        await client.receive()
        await client.send(ResponseHeaders(PlainHeaders((":status", "200"), ("content-type", "application/json"))))
        await client.send(ResponseBody(document[:20]))
        await client.send(ResponseBody(document[20:], True))
        while await client.receive() is not None:
            pass
        await running.until_ended(1)
    [recorder] = handler.recorders
    assert recorder.requests[0].read == (BodyCopy(b"{}", truncated=False),)
    usage, response, copy = recorder.outcomes[0].read
    assert usage == Usage(3, 4, 7, found=True)
    assert response == document
    assert copy == BodyCopy(document, truncated=False)


async def test_readers_have_results_of_an_empty_response(make: MakeTransport) -> None:
    handler = PerStream(Script(routed(Plan(readers=("openai-response", "copy"), hold_end=True))))
    async with loopback(make, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _begin(client)
        await client.receive()
        await client.receive()
        await client.send(ResponseHeaders(JSON, True))
        assert isinstance(await client.receive(), HeadersAnswer)
        assert await client.receive() is None
        await running.until_ended(1)
    assert handler.recorders[0].outcomes[0].read == (None, BodyCopy(b"", truncated=False))


async def test_ports_are_chosen_and_returned_in_order(make: MakeTransport) -> None:
    transport = make()
    ports = [Port("127.0.0.1", 0, secure=False), Port("::1", 0, secure=False, extproc=False)]
    bound = await transport.start(PerStream(Script()), SETTINGS, ports)
    try:
        assert len(set(bound)) == 2
        assert all(bound)
    finally:
        await transport.stop(0)


async def test_health_port_does_not_serve_extproc(make: MakeTransport) -> None:
    transport = make()
    [port] = await transport.start(PerStream(Script()), SETTINGS, [Port("127.0.0.1", 0, secure=False, extproc=False)])
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Client(channel, FULL_DUPLEX)
            assert await client.receive() is None
            assert (await client.call.code()).name == "UNIMPLEMENTED"
    finally:
        await transport.stop(0)


async def test_a_port_in_use_is_an_error(make: MakeTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        transport = make()
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            await transport.start(PerStream(Script()), SETTINGS, [Port("127.0.0.1", port, secure=False)])


async def test_a_secure_port_needs_a_key_pair(make: MakeTransport) -> None:
    with pytest.raises(UsageError, match="there is no key pair"):
        await make().start(PerStream(Script()), Settings(), [Port("127.0.0.1", 0, secure=True)])


async def test_stop_before_start_and_twice(make: MakeTransport) -> None:
    transport = make()
    await transport.stop(0)
    await transport.start(PerStream(Script()), SETTINGS, [Port("127.0.0.1", 0, secure=False)])
    await transport.stop(0)
    await transport.stop(None)


async def test_a_chunk_above_the_memory_for_all_bodies_is_refused_by_the_handler(make: MakeTransport) -> None:
    """The chunk comes in many frames of HTTP/2; it is seen whole before anybody judges it."""
    handler = PerStream(Script(REFUSED))
    async with loopback(make, handler, SETTINGS._replace(max_buffered_bytes=100_000)) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS))
        await client.send(RequestBody(b"x" * 600_000))
        assert await client.receive() == Immediate(REFUSED)
        await running.until_ended(1)
        assert running.transport.stats().buffered_bytes == 0
    assert handler.recorders[0].requests[0].body_state is BodyState.NO_MEMORY
