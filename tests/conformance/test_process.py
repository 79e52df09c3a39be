"""The process from outside: certificates that change, signals, exit codes. Cases C108 and C109."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.demo.picker import PickerProcess
from epp.transport.tls import self_signed
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body

NOBODY = "127.0.0.1:9"
"""An endpoint that is routed to; nobody answers there, and nobody needs to."""
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
StartServe = Callable[..., Awaitable[PickerProcess]]


@pytest_asyncio.fixture(loop_scope="package")
async def serve() -> AsyncIterator[StartServe]:
    """Factory: ``epp serve`` with these flags as a process of its own."""
    async with AsyncExitStack() as stack:

        async def start(*flags: str) -> PickerProcess:
            return await stack.enter_async_context(PickerProcess([f"--endpoint={NOBODY}", *flags]))

        yield start


@contextlib.asynccontextmanager
async def open_stream(picker: PickerProcess) -> AsyncIterator[Stream]:
    """A stream on a connection of its own."""
    async with aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield Stream(channel)


async def ask(stream: Stream) -> None:
    """Have a request routed."""
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    assert (await stream.routed()).target == NOBODY


# ── C108 ──


async def served_certificate(port: int) -> bytes:
    """The certificate of a new handshake, DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    handshake: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = handshake.getpeercert(binary_form=True)
    assert handshake.selected_alpn_protocol() == "h2"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert certificate is not None
    return certificate


def write_pair(folder: Path) -> bytes:
    """Put a new key pair into the folder, as a volume of secrets does: written aside, then renamed.

    Returns:
        The certificate, DER.
    """
    pair = self_signed()
    for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
        replace(folder / name, content)
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


def replace(path: Path, content: bytes) -> None:
    """Write aside, then rename."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


async def test_c108_certificate_is_replaced(serve: StartServe, tmp_path: Path) -> None:
    first = write_pair(tmp_path)
    picker = await serve(f"--cert-path={tmp_path}", "--enable-cert-reload", "--drain-timeout=0s")
    assert await served_certificate(picker.grpc_port) == first
    second = write_pair(tmp_path)
    async with asyncio.timeout(5):
        while await served_certificate(picker.grpc_port) != second:
            pass
    replace(tmp_path / "tls.crt", b"garbage")
    async with asyncio.timeout(5):
        while "certificate not reloaded" not in picker.log:
            assert await served_certificate(picker.grpc_port) == second
    assert await served_certificate(picker.grpc_port) == second


# ── C109 and other ends ──


async def test_c109_drain(serve: StartServe) -> None:
    """One stream open when SIGTERM comes, one that begins within the window; both are served to their end."""
    picker = await serve("--secure-serving=false", "--drain-timeout=1s")
    async with open_stream(picker) as old, aio.insecure_channel(f"127.0.0.1:{picker.grpc_health_port}") as channel:
        health = HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="inference-extension"))
        assert (await watch.read()).status == SERVING
        await ask(old)
        await respond(old, response_headers(content_type="text/event-stream"), response_body("data: 1\n\n", end=False))

        picker.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(0.5):  # 100 ms on an idle machine
            assert (await watch.read()).status == NOT_SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest(service="liveness"))).status == SERVING

        async with open_stream(picker) as new:
            await ask(new)
            await respond(new, response_headers(), response_body(b"{}"))
            await new.closes()
        with contextlib.suppress(aio.AioRpcError):
            while await watch.read() is not aio.EOF:
                pass  # until the window is over and the servers stop
        await respond(old, response_body("data: 2\n\n", end=False), response_body(b""))
        await old.closes()
    assert await picker.process.wait() == 0


async def test_streams_are_aborted_when_the_grace_is_over(serve: StartServe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never closed cleanly in the middle: the client must see that its response is cut."""
    monkeypatch.setenv("EPP_GRACEFUL_SHUTDOWN_TIMEOUT", "100ms")
    picker = await serve("--secure-serving=false", "--drain-timeout=0s")
    async with open_stream(picker) as stream:
        await ask(stream)
        await respond(stream, response_headers(content_type="text/event-stream"))
        picker.process.send_signal(signal.SIGTERM)
        await stream.ends(grpc.StatusCode.UNAVAILABLE)
    assert await picker.process.wait() == 0


async def test_sigint_skips_the_window_and_a_second_signal_ends_at_once(serve: StartServe) -> None:
    picker = await serve("--secure-serving=false", "--drain-timeout=1h")
    async with open_stream(picker) as stream, aio.insecure_channel(f"127.0.0.1:{picker.grpc_health_port}") as channel:
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        await ask(stream)
        picker.process.send_signal(signal.SIGINT)
        with contextlib.suppress(aio.AioRpcError):
            while await watch.read() is not aio.EOF:
                pass  # the window would have kept it open for an hour
        picker.process.send_signal(signal.SIGTERM)
        assert await picker.process.wait() == 128 + signal.SIGTERM


EXITS = [
    pytest.param(["--no-such-flag"], 2, "no-such-flag", id="unknown flag"),
    pytest.param([f"--endpoint={NOBODY}", "--config-text=kind: Wrong"], 1, "kind", id="bad configuration"),
]


@pytest.mark.parametrize(("flags", "status", "text"), EXITS)
def test_exit_codes(flags: list[str], status: int, text: str) -> None:
    command = [sys.executable, "-m", "epp", "serve", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == status
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
