"""What only the native transport has: the hand-over in batches, bounds on what waits, its TLS; and that nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from epp_native import cipher_suites
from grpc import aio

from epp.errors import UsageError
from epp.extproc.messages import (
    HeadersAnswer,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    Status,
    StreamedBody,
)
from epp.seam import Chunk, Observe, Outcome, Plan, Port, Request, Settings, Stream, TlsVersion
from epp.transport.native import HANDOVER_BOUNDS_S, MAX_EVENTS, NativeTransport
from epp.transport.tls import self_signed
from epp.transport.tls_settings import CIPHER_SUITES
from tests.extproc.transcripts import FULL_DUPLEX, SETTINGS, PlainHeaders, Recorder, Script, routed
from tests.extproc.wire import LIMIT_S, METHOD, Client, Dispatcher, from_wire, loopback, to_wire

HEADERS = PlainHeaders((":path", "/v1/completions"))
SSE = PlainHeaders((":status", "200"), ("content-type", "text/event-stream"))
MIB = 1024 * 1024


class PerStream(Dispatcher):
    """Each stream gets a recorder of its own."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.recorders: list[Recorder] = []

    def request(self, stream: Stream, request: Request) -> None:
        self.recorder = Recorder(self.script)
        self.recorders.append(self.recorder)
        super().request(stream, request)


async def _routed(client: Client) -> None:
    await client.send(RequestHeaders(HEADERS))
    await client.send(RequestBody(b"{}", True))
    assert isinstance(await client.receive(), HeadersAnswer)
    assert isinstance(await client.receive(), StreamedBody)


async def _whole(client: Client) -> None:
    await _routed(client)
    await client.send(ResponseHeaders(SSE))
    await client.receive()
    await client.send(ResponseBody(b"x", True))
    assert await client.receive() == StreamedBody(True, b"x", True)
    assert await client.receive() is None


# ── the hand-over ──


async def test_the_handover_is_measured() -> None:
    async with loopback(NativeTransport, PerStream(Script()), SETTINGS) as running:
        await _whole(Client(running.channel, FULL_DUPLEX))
        stats = running.transport.stats()
        async with asyncio.timeout(LIMIT_S):
            # The end is handed over behind the last answer: the request and its end.
            while sum(stats.handover_counts) < 2:
                await asyncio.sleep(0.001)
                stats = running.transport.stats()
    assert sum(stats.handover_counts) == 2
    assert len(stats.handover_counts) == len(HANDOVER_BOUNDS_S) + 1
    assert 0 < stats.handover_sum_s < LIMIT_S


async def test_more_requests_than_a_pass_takes_are_all_answered() -> None:
    """The loop is blocked while they come, so that they wait together."""
    handler = PerStream(Script())
    count = 2 * MAX_EVENTS + 10
    async with loopback(NativeTransport, handler, SETTINGS) as running:
        clients = [Client(running.channel, FULL_DUPLEX) for _ in range(count)]
        await asyncio.gather(*(client.send(RequestHeaders(HEADERS, end=True)) for client in clients))
        time.sleep(0.2)  # noqa: ASYNC251 — the point of this test
        answers = await asyncio.gather(*(client.receive() for client in clients))
        for client in clients:
            client.call.cancel()
        await running.until_ended(count)
    assert all(isinstance(answer, HeadersAnswer) for answer in answers)
    assert [len(recorder.outcomes) for recorder in handler.recorders] == [1] * count


async def test_answers_of_one_turn_of_the_loop_go_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = PerStream(Script(answer=None))
    transports: list[NativeTransport] = []

    def make() -> NativeTransport:
        transports.append(NativeTransport())
        return transports[0]

    async with loopback(make, handler, SETTINGS) as running:
        clients = [Client(running.channel, FULL_DUPLEX) for _ in range(3)]
        for client in clients:
            await client.send(RequestHeaders(HEADERS, end=True))
        async with asyncio.timeout(LIMIT_S):
            while len(handler.recorders) < 3:  # noqa: ASYNC110 — counted, not told
                await asyncio.sleep(0.001)
        turns: list[int] = []
        monkeypatch.setattr(transports[0], "_give_soon", lambda: turns.append(1))
        for recorder in handler.recorders:
            assert recorder.stream is not None
            recorder.stream.answer(routed())
        for client in clients:
            assert isinstance(await client.receive(), HeadersAnswer)
    assert len(turns) <= 1, "at most one call is scheduled for three answers"


@pytest.mark.parametrize("method", ["request", "response_headers", "response_body", "finished"])
@pytest.mark.parametrize("held", [False, True], ids=["told", "held"])
async def test_a_handler_that_raises_ends_its_stream_only(method: str, held: bool, caplog: pytest.LogCaptureFixture) -> None:
    plan = Plan(ask_headers=True, observe=Observe.EVERY, hold_end=held)
    handler = PerStream(Script(routed(plan)))
    calls = getattr(handler, method)

    def broken(*args: Any) -> None:
        calls(*args)
        raise RuntimeError(method)

    setattr(handler, method, broken)
    async with loopback(NativeTransport, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _routed(client)
        for message in (ResponseHeaders(SSE), ResponseBody(b"x", True)):
            await client.send(message)
        while await client.receive() is not None:
            pass
        # What the handler was only told of is on its way, and cannot be taken back.
        told = method in ("response_body", "finished") and not held
        assert await client.status() is (Status.OK if told else Status.INTERNAL)
        await running.until_ended(1)
    assert len(handler.recorders[0].outcomes) == 1
    assert "defect while serving a stream" in caplog.text


async def test_an_answer_of_a_wrong_type_is_refused_and_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    handler = PerStream(Script(("not", "an", "answer")))  # type: ignore[arg-type]
    async with loopback(NativeTransport, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS, end=True))
        assert await client.receive() is None
        assert await client.status() is Status.INTERNAL
    assert "an answer is a Route or a Reply, not a tuple" in caplog.text


async def test_nothing_of_a_finished_stream_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Also without the garbage collector, although the handler's state knows the stream and the stream the state."""

    class State:
        stream: Stream

    class Keeps(PerStream):
        def request(self, stream: Stream, request: Request) -> None:
            state = State()
            state.stream = stream
            states.append(weakref.ref(state))
            stream.state = state
            stream.answer(routed())

        def finished(self, stream: Stream, outcome: Outcome) -> None:
            assert isinstance(stream.state, State)

    states: list[weakref.ref[State]] = []
    gc.disable()
    try:
        async with loopback(NativeTransport, Keeps(Script()), SETTINGS) as running:
            await _whole(Client(running.channel, FULL_DUPLEX))
            async with asyncio.timeout(LIMIT_S):
                while not states or states[0]() is not None:  # noqa: ASYNC110 — a reference is read, not told
                    await asyncio.sleep(0.001)
    finally:
        gc.enable()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_body_is_shown_in_place_and_stays_readable() -> None:
    handler = PerStream(Script(answer=None))
    async with loopback(NativeTransport, handler, SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS))
        await client.send(RequestBody(b"x" * 100_000, True))
        async with asyncio.timeout(LIMIT_S):
            while not handler.recorders:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        body = handler.recorders[0].requests[0].body
        assert body is handler.recorders[0].requests[0].body
        assert body.readonly
        assert body[99_990:] == b"x" * 10
        client.call.cancel()
        await running.until_ended(1)
        assert running.transport.stats().buffered_bytes == 0
    assert bytes(body) == b"x" * 100_000, "whoever keeps the view keeps the bytes"


# ── what waits is bounded ──


async def test_a_client_that_takes_nothing_is_not_read_any_more() -> None:
    """Its answers wait up to a bound; then the windows of HTTP/2 fill up, and it cannot send either."""
    async with loopback(NativeTransport, PerStream(Script()), SETTINGS) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await _routed(client)
        await client.send(ResponseHeaders(SSE))
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(64):
                await client.send(ResponseBody(b"x" * MIB))
                sent += 1

        sending = asyncio.create_task(send_all())
        await asyncio.sleep(0.5)
        assert not sending.done()
        assert sent < 16, "1 MiB waits with us, the rest is in windows and buffers of both sides"
        received = 0
        while received < 64 * MIB:
            answer = await client.receive()
            received += len(answer.data) if isinstance(answer, StreamedBody) else 0
        await sending
        client.call.cancel()


async def test_chunks_that_the_event_loop_does_not_take_hold_their_stream_back() -> None:
    """The handler wants every chunk and blocks the loop; another thread plays the data plane."""
    blocked, go_on = threading.Event(), threading.Event()
    told = 0

    class Slow(PerStream):
        def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
            nonlocal told
            told += sum(len(chunk.data) for chunk in chunks)
            blocked.set()
            go_on.wait(LIMIT_S)

    def play(port: int) -> tuple[int, int]:
        """Bytes that came back while the loop was blocked, and in all."""
        was_routed, stop = threading.Event(), threading.Event()

        def requests() -> Any:
            yield to_wire(RequestHeaders(HEADERS), FULL_DUPLEX)
            yield to_wire(RequestBody(b"{}", True), None)
            assert was_routed.wait(LIMIT_S)
            yield to_wire(ResponseHeaders(SSE), None)
            for number in range(160):
                yield to_wire(ResponseBody(b"x" * 62_000, number == 159), None)
            stop.wait(LIMIT_S)

        received = [0]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_stream(METHOD)(requests())

            def read() -> None:
                for data in call:
                    received[0] += len(data)
                    if isinstance(from_wire(data), StreamedBody):
                        was_routed.set()

            reader = threading.Thread(target=read)
            reader.start()
            assert blocked.wait(LIMIT_S)
            time.sleep(0.5)
            meanwhile = received[0]
            go_on.set()
            reader.join(LIMIT_S)
            stop.set()
        return meanwhile, received[0]

    async with loopback(NativeTransport, Slow(Script(routed(Plan(observe=Observe.EVERY)))), SETTINGS) as running:
        meanwhile, received = await asyncio.to_thread(play, running.ports[0])
    assert meanwhile < 3 * MIB, "1 MiB that nobody took, and what was told when the loop was blocked"
    assert received > 160 * 62_000
    assert told == 160 * 62_000


# ── several I/O threads ──


async def test_two_io_threads_share_the_connections() -> None:
    handler = PerStream(Script())
    async with loopback(lambda: NativeTransport(io_threads=2), handler, SETTINGS) as running:
        address = f"127.0.0.1:{running.ports[0]}"
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [aio.insecure_channel(address, options=options) for _ in range(8)]
        await asyncio.gather(*(_whole(Client(channel, FULL_DUPLEX)) for channel in channels for _ in range(10)))
        await running.until_ended(80)
        for channel in channels:
            await channel.close()
    assert [len(recorder.outcomes) for recorder in handler.recorders] == [1] * 80


# ── TLS ──


def _context(version: ssl.TLSVersion, ciphers: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context


HANDSHAKES = [
    pytest.param(None, (), ssl.TLSVersion.TLSv1_2, None, True, id="1.2 by default"),
    pytest.param(TlsVersion.TLS10, (), ssl.TLSVersion.TLSv1_2, None, True, id="a lower minimum is met by 1.2"),
    pytest.param(TlsVersion.TLS13, (), ssl.TLSVersion.TLSv1_3, None, True, id="1.3"),
    pytest.param(TlsVersion.TLS13, (), ssl.TLSVersion.TLSv1_2, None, False, id="1.2 below the minimum"),
    pytest.param(
        None, ("ECDHE-ECDSA-AES256-GCM-SHA384",), ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", True, id="its suite"
    ),
    pytest.param(
        None, ("ECDHE-ECDSA-AES256-GCM-SHA384",), ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", False, id="another"
    ),
    pytest.param(None, ("ECDHE-ECDSA-AES256-GCM-SHA384",), ssl.TLSVersion.TLSv1_3, None, True, id="1.3 has its own suites"),
]


@pytest.mark.parametrize(("minimum", "suites", "version", "ciphers", "works"), HANDSHAKES)
async def test_handshakes(
    minimum: TlsVersion | None, suites: tuple[str, ...], version: ssl.TLSVersion, ciphers: str | None, works: bool
) -> None:
    tls = self_signed()._replace(min_version=minimum, cipher_suites=suites)
    transport = NativeTransport()
    [port] = await transport.start(Dispatcher(), Settings(tls=tls), [Port("127.0.0.1", 0, secure=True)])
    try:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_context(version, ciphers))
        except (ssl.SSLError, ConnectionError):
            assert not works
        else:
            assert works
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            writer.transport.abort()
    finally:
        await transport.stop(0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"certificate": b"garbage"}, "the key pair cannot be used|not PEM", id="certificate"),
        pytest.param({"key": b"garbage"}, "the private key is not PEM", id="key"),
        pytest.param({"key": self_signed().key}, "the key pair cannot be used", id="key of another certificate"),
        pytest.param({"cipher_suites": ("AES128-SHA",)}, "does not offer the cipher suite AES128-SHA", id="suite"),
    ],
)
async def test_tls_that_cannot_be_used_changes_nothing(change: dict[str, Any], why: str) -> None:
    tls = self_signed()
    transport = NativeTransport()
    [port] = await transport.start(Dispatcher(), Settings(tls=tls), [Port("127.0.0.1", 0, secure=True)])
    try:
        with pytest.raises(UsageError, match=why):
            transport.configure(Settings(tls=tls._replace(**change)))
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_context(ssl.TLSVersion.TLSv1_3))
        writer.transport.abort()
    finally:
        await transport.stop(0)


def test_every_suite_that_is_offered_can_be_asked_for() -> None:
    assert set(cipher_suites()) <= set(CIPHER_SUITES.values())


async def test_a_message_above_the_memory_for_all_bodies_is_not_collected() -> None:
    """Far above a usual chunk, nobody waits for its end."""
    handler = PerStream(Script())
    async with loopback(NativeTransport, handler, SETTINGS._replace(max_buffered_bytes=MIB, max_body_bytes=0)) as running:
        client = Client(running.channel, FULL_DUPLEX)
        await client.send(RequestHeaders(HEADERS))
        await client.send(RequestBody(b"x" * 20 * MIB))
        assert await client.receive() is None
        assert (await client.call.code()) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.until_ended(1)
        assert running.transport.stats().buffered_bytes == 0
    assert not handler.recorders
