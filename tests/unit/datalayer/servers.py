"""Model servers that misbehave, on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.framework.types import Endpoint

Respond = Callable[[web.BaseRequest, asyncio.Event], Awaitable[web.StreamResponse]]
"""(request, set when the server is about to close) → response."""
PAGE = "vllm:num_requests_waiting 3\n"


async def page(request: web.BaseRequest, closing: asyncio.Event) -> web.Response:
    """A whole page."""
    return web.Response(text=PAGE)


async def hang(request: web.BaseRequest, closing: asyncio.Event) -> web.Response:
    """No answer, as long as the server is there."""
    await closing.wait()
    return web.Response()


async def dribble(request: web.BaseRequest, closing: asyncio.Event) -> web.StreamResponse:
    """The beginning of a page, and nothing more."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(PAGE.encode())
    await closing.wait()
    return response


async def reset(request: web.BaseRequest, closing: asyncio.Event) -> web.Response:
    """The connection ends without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def answer(body: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> Respond:
    """Always the same answer."""

    async def respond(request: web.BaseRequest, closing: asyncio.Event) -> web.Response:
        data = body.encode() if isinstance(body, str) else body
        return web.Response(body=data, status=status, headers=headers)

    return respond


async def stop_half_way(request: web.BaseRequest, closing: asyncio.Event) -> web.StreamResponse:
    """The first half of what the length promises, then the end of the connection."""
    response = web.StreamResponse(headers={"content-length": str(2 * len(PAGE))})
    await response.prepare(request)
    await response.write(PAGE.encode())
    assert request.transport is not None
    request.transport.close()
    return response


class Server:
    """A model server whose behaviour can be exchanged, and that counts what it is asked."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[web.BaseRequest] = []
        self.port = 0
        self.closing = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Count, then behave."""
        self.requests.append(request)
        return await self.respond(request, self.closing)

    def endpoint(self, name: str = "a", **labels: str) -> Endpoint:
        """The endpoint at which it listens."""
        return Endpoint.of(name, "127.0.0.1", self.port, labels)


@asynccontextmanager
async def serving(respond: Respond = page, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on a free port, until the block ends."""
    server = Server(respond)
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.closing.set()
        await runner.cleanup()


def certificate(directory: Path, name: str = "server") -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
