"""The process with its I/O thread, from outside: signals in the middle of a hundred streams, forks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from epp.demo.picker import PickerProcess
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body

STREAMS = 100
FLAGS = ["--endpoint=127.0.0.1:9", "--secure-serving=false", "--transport=native"]


@contextlib.asynccontextmanager
async def busy(*flags: str) -> AsyncIterator[tuple[PickerProcess, list[Stream]]]:
    """A picker with a hundred streams, each in the middle of a streamed response."""
    async with PickerProcess([*FLAGS, *flags]) as picker, aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        streams = [Stream(channel) for _ in range(STREAMS)]
        await asyncio.gather(*(_begin(stream) for stream in streams))
        yield picker, streams


async def _begin(stream: Stream) -> None:
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await respond(stream, response_headers(content_type="text/event-stream"), response_body("data: 1\n\n", end=False))


async def _codes(streams: list[Stream]) -> set[grpc.StatusCode]:
    async def code(stream: Stream) -> grpc.StatusCode:
        with contextlib.suppress(aio.AioRpcError):
            while await stream.raw() is not None:
                pass
        found: grpc.StatusCode = await stream.call.code()
        return found

    return set(await asyncio.gather(*(code(stream) for stream in streams)))


async def test_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream is closed as if all were well."""
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "100ms")
    async with busy("--drain-timeout=0s") as (picker, streams):
        picker.process.send_signal(signal.SIGTERM)
        assert await _codes(streams) == {grpc.StatusCode.UNAVAILABLE}
        assert await picker.process.wait() == 0
        assert "Traceback" not in picker.log
        assert "panicked" not in picker.log


async def test_sigterm_waits_for_streams_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "20s")
    async with busy("--drain-timeout=0s") as (picker, streams):
        picker.process.send_signal(signal.SIGTERM)
        for stream in streams:
            await respond(stream, response_body("data: [DONE]\n\n"))
        assert await _codes(streams) == {grpc.StatusCode.OK}
        assert await picker.process.wait() == 0


async def test_kill() -> None:
    async with busy() as (picker, streams):
        picker.process.send_signal(signal.SIGKILL)
        assert await _codes(streams) == {grpc.StatusCode.UNAVAILABLE}
        async with (
            PickerProcess([*FLAGS, f"--grpc-port={picker.grpc_port}"]) as next_one,
            aio.insecure_channel(f"127.0.0.1:{next_one.grpc_port}") as channel,
        ):
            await _begin(Stream(channel))


_FORKS = """
import asyncio, os, sys
from epp.extproc.handler import Port
from epp.transport.native import NativeTransport
from tests.extproc.transcripts import SETTINGS, Recorder, Script
from tests.extproc.wire import Dispatcher

async def main():
    dispatcher = Dispatcher()
    dispatcher.recorder = Recorder(Script())
    transport = NativeTransport()
    [port] = await transport.start(dispatcher, SETTINGS, [Port("127.0.0.1", 0, secure=False)])
    child = os.fork()
    if child == 0:
        del transport
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    settings = await asyncio.wait_for(reader.readexactly(9), 10)
    assert settings[3] == 4, settings
    writer.close()
    await transport.stop(0)
    print("served")

asyncio.run(main())
"""


def test_a_forked_child_ends_and_the_parent_serves_on() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "served", done.stderr
