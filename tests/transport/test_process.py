"""The process around a transport, from outside: signals in the middle of a hundred streams, children, blocked Python."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.demo.picker import PickerProcess
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body
from tests.transport.transports import TRANSPORTS

STREAMS = 100
PROMPTLY_S = 10.0
"""Far more than anything here takes, far less than any timeout that could end it by chance."""
OK, UNAVAILABLE, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED
SERVING = health_pb2.HealthCheckResponse.SERVING

NATIVE_ONLY = pytest.mark.skipif("native" not in TRANSPORTS, reason="needs the extension epp_native")


# ── streams ──


async def begin(stream: Stream) -> None:
    """Bring a stream into the middle of a streamed response."""
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await respond(stream, response_headers(content_type="text/event-stream"), response_body("data: 1\n\n", end=False))


async def end(stream: Stream) -> None:
    """Bring it to the end of its response."""
    await respond(stream, response_body("data: [DONE]\n\n"))


async def code_of(stream: Stream) -> grpc.StatusCode:
    """Read to the end; returns how it ended."""
    with contextlib.suppress(aio.AioRpcError, asyncio.CancelledError):
        while await stream.raw() is not None:
            pass
    code: grpc.StatusCode = await stream.call.code()
    return code


async def codes_of(streams: Sequence[Stream]) -> set[grpc.StatusCode]:
    """How these end, promptly."""
    async with asyncio.timeout(PROMPTLY_S):
        return set(await asyncio.gather(*(code_of(stream) for stream in streams)))


async def whole_stream(port: int) -> grpc.StatusCode:
    """A request with its response over a connection of its own; returns how it ended."""
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = Stream(channel)
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError, AssertionError):
            await begin(stream)
            await end(stream)
        return await code_of(stream)


async def until_refused(port: int) -> None:
    """Until nobody listens any more; streams before that are served or end with an error (grpc cancels some), none hangs."""
    async with asyncio.timeout(PROMPTLY_S):
        while await whole_stream(port) is not UNAVAILABLE:
            pass


async def exit_code(process: asyncio.subprocess.Process) -> int:
    """Of a process that ends now."""
    async with asyncio.timeout(PROMPTLY_S):
        return await process.wait()


# ── signals to the picker ──


@pytest.fixture(params=TRANSPORTS)
def flags(request: pytest.FixtureRequest) -> list[str]:
    """Of a picker with the transport under test."""
    return ["--endpoint=127.0.0.1:9", "--secure-serving=false", f"--transport={request.param}"]


@contextlib.asynccontextmanager
async def busy(flags: Sequence[str]) -> AsyncIterator[tuple[PickerProcess, list[Stream]]]:
    """A picker with a hundred streams, each in the middle of a streamed response."""
    async with PickerProcess(flags) as picker, aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        streams = [Stream(channel) for _ in range(STREAMS)]
        await asyncio.gather(*(begin(stream) for stream in streams))
        yield picker, streams


async def test_sigterm_lets_streams_end_and_refuses_new_ones(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "60s")
    async with busy([*flags, "--drain-timeout=0s"]) as (picker, streams):
        picker.process.send_signal(signal.SIGTERM)
        await until_refused(picker.grpc_port)
        await asyncio.gather(*(end(stream) for stream in streams))
        assert await codes_of(streams) == {OK}
        assert await exit_code(picker.process) == 0
        assert "Traceback" not in picker.log


async def test_sigterm_aborts_what_outlasts_the_grace(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream is closed as if all were well."""
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "100ms")
    async with busy([*flags, "--drain-timeout=0s"]) as (picker, streams):
        picker.process.send_signal(signal.SIGTERM)
        assert await codes_of(streams) == {UNAVAILABLE}
        assert await exit_code(picker.process) == 0
        assert "Traceback" not in picker.log
        assert "panicked" not in picker.log


async def until_draining(picker: PickerProcess) -> None:
    """Until the first signal has been seen."""
    async with aio.insecure_channel(f"127.0.0.1:{picker.grpc_health_port}") as channel:
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="inference-extension"))
        async with asyncio.timeout(PROMPTLY_S):
            while (await watch.read()).status == SERVING:
                pass


async def until_stopping(picker: PickerProcess) -> None:
    """Until the transport stops, with its streams still running."""
    await until_refused(picker.grpc_port)


@pytest.mark.parametrize(
    ("window", "until"),
    [
        pytest.param("60s", until_draining, id="in the drain window"),
        pytest.param("0s", until_stopping, id="in the grace"),
    ],
)
async def test_a_second_sigterm_ends_it_at_once(
    window: str, until: Callable[[PickerProcess], Any], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "60s")
    async with busy([*flags, f"--drain-timeout={window}"]) as (picker, streams):
        picker.process.send_signal(signal.SIGTERM)
        await until(picker)
        assert not any(stream.call.done() for stream in streams)
        picker.process.send_signal(signal.SIGTERM)
        assert await codes_of(streams) == {UNAVAILABLE}
        assert await exit_code(picker.process) == 128 + signal.SIGTERM


async def test_after_a_kill_clients_know_and_the_next_one_serves(flags: list[str]) -> None:
    async with busy(flags) as (picker, streams):
        picker.process.send_signal(signal.SIGKILL)
        assert await codes_of(streams) == {UNAVAILABLE}
        async with PickerProcess([*flags, f"--grpc-port={picker.grpc_port}"]) as successor:
            assert successor.grpc_port == picker.grpc_port
            assert await whole_stream(successor.grpc_port) is OK


# ── mischief within the process ──


class Server:
    """``process_server`` with some mischief."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def says(self) -> Any:
        """The next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PROMPTLY_S):
            return json.loads(await self.process.stdout.readline())

    def unblock(self) -> None:
        """Let a blocked event loop go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b".")

    async def ends(self) -> dict[str, int]:
        """Its last words; it must end by itself, without complaints."""
        words = await self.says()
        assert await exit_code(self.process) == 0
        assert self.process.stderr is not None
        assert (await self.process.stderr.read()).decode() == ""
        assert isinstance(words, dict)
        return words


@contextlib.asynccontextmanager
async def serving(transport: str, mischief: str, streams: int = STREAMS) -> AsyncIterator[tuple[Server, list[Stream]]]:
    """The server, and so many streams that have not begun."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.transport.process_server", transport, mischief), stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    try:
        server = Server(process, json.loads(await process.stdout.readline()))
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, [Stream(channel) for _ in range(streams)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate(b"")  # closes its input, too, which ends an heir


def gone_later(pid: int) -> asyncio.Future[None]:
    """Done when the process itself is gone, whoever holds its pipes."""
    loop = asyncio.get_running_loop()
    gone, descriptor = loop.create_future(), os.pidfd_open(pid)

    def ready() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        gone.set_result(None)

    loop.add_reader(descriptor, ready)
    return gone


async def ask(streams: Sequence[Stream]) -> None:
    """Send whole requests; nobody waits for answers."""
    for stream in streams:
        await stream.send(request_headers(), request_body(std_body("m", "p")))


@pytest.mark.parametrize(
    ("transport", "mischief"),
    [
        pytest.param("grpcio", "spawn", id="grpcio, a program"),
        pytest.param("native", "spawn", marks=NATIVE_ONLY, id="native, a program"),
        pytest.param("native", "fork", marks=NATIVE_ONLY, id="native, a fork"),  # grpc's own threads do not survive forks
    ],
)
async def test_children_of_an_executor_disturb_no_stream(transport: str, mischief: str) -> None:
    async with serving(transport, mischief) as (server, streams):
        await asyncio.gather(*(begin(stream) for stream in streams))
        await asyncio.gather(*(end(stream) for stream in streams))
        assert await codes_of(streams) == {OK}
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == {"requests": STREAMS, "finished": STREAMS}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_child_that_outlives_the_process_keeps_no_socket(transport: str) -> None:
    async with serving(transport, "leave-heir") as (server, streams):
        await asyncio.gather(*(begin(stream) for stream in streams))
        gone = gone_later(server.process.pid)
        server.process.send_signal(signal.SIGKILL)
        assert await codes_of(streams) == {UNAVAILABLE}
        async with asyncio.timeout(PROMPTLY_S):
            await gone
        successor = await asyncio.start_server(lambda *_: None, "127.0.0.1", server.port)
        successor.close()
        assert server.process.stdout is not None
        assert not server.process.stdout.at_eof()  # the child holds it


@pytest.mark.parametrize("mischief", ["block", "block-all"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_sigterm_while_a_call_blocks(transport: str, mischief: str) -> None:
    """Half of the clients leave meanwhile; once the call returns, every request still gets its one end and the process ends."""
    async with serving(transport, mischief) as (server, streams):
        await ask(streams)
        assert await server.says() == "blocked"
        server.process.send_signal(signal.SIGTERM)
        for stream in streams[1::2]:
            stream.call.cancel()
        assert await codes_of(streams[1::2]) == {CANCELLED}
        server.unblock()
        assert await codes_of(streams[::2]) <= {UNAVAILABLE, CANCELLED}  # grpc cancels what it had not handed over yet
        words = await server.ends()
        assert words["requests"] == words["finished"] >= 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_streams_that_begin_while_a_call_blocks_are_served_later(transport: str) -> None:
    """More than the thousand above which grpc would refuse some of them, were it not told otherwise."""
    async with serving(transport, "block", streams=1500) as (server, streams):
        await ask(streams)
        assert await server.says() == "blocked"
        server.unblock()
        await asyncio.gather(*(stream.routed() for stream in streams))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_python_that_blocks_while_the_transport_stops(transport: str) -> None:
    async with serving(transport, "block-stop") as (server, streams):
        await asyncio.gather(*(begin(stream) for stream in streams))
        server.process.send_signal(signal.SIGTERM)
        assert await server.says() == "blocked"
        if transport == "native":  # the I/O thread needs no Python to keep the grace
            assert await codes_of(streams) == {UNAVAILABLE}
        server.unblock()
        assert await codes_of(streams) == {UNAVAILABLE}
        assert await server.ends() == {"requests": STREAMS, "finished": STREAMS}


@NATIVE_ONLY
async def test_health_is_answered_while_python_blocks() -> None:
    async with serving("native", "block-all") as (server, streams):
        await ask(streams)
        assert await server.says() == "blocked"
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel, asyncio.timeout(PROMPTLY_S):
            assert (await HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status == SERVING
        server.unblock()
        server.process.send_signal(signal.SIGTERM)
        assert await codes_of(streams) == {UNAVAILABLE}


@NATIVE_ONLY
async def test_a_process_that_does_not_stop_its_transport_ends_nevertheless() -> None:
    async with serving("native", "leave") as (server, streams):
        await asyncio.gather(*(begin(stream) for stream in streams))
        server.process.send_signal(signal.SIGTERM)
        assert await codes_of(streams) == {UNAVAILABLE}
        assert await exit_code(server.process) == 0
