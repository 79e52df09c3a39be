"""All that ``epp doctor`` asks the network: pages over HTTP, what a TLS port shows, whether a port speaks ZeroMQ."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp
import orjson
from cryptography import x509

from epp.doctor.certificates import Served
from epp.doctor.engines import EventPort
from epp.errors import EppError

_MOST_BYTES = 256 * 1024 * 1024
"""A dump of a mesh's Envoy has some ten megabytes."""
_ZMTP_SIGNATURE_BYTES = 10
"""``0xFF``, eight bytes, ``0x7F``; a peer sends it as soon as a connection is there. Source: rfc.zeromq.org/spec/23."""


class UnreadableError(EppError):
    """An address gave nothing that can be used; the message tells which one and why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A page."""

    status: int
    body: bytes
    took_s: float
    skew_s: float | None
    """The server's clock less ours, to about a second; None = it does not tell."""

    def json(self, url: str) -> Mapping[str, Any]:
        """The body as an object.

        Raises:
            UnreadableError: it is none.
        """
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise UnreadableError(f"{url} answers {self.status} with something that is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise UnreadableError(f"{url} answers with JSON that is no object")
        return document


class Pages:
    """Reads pages; an async context manager.

    Args:
        timeout_s: of each page.
        token: bearer token; empty = none.
        tls: how certificates of https pages are verified; None = by the system's authorities.
    """

    def __init__(self, timeout_s: float, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls: ssl.SSLContext | bool = tls or True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, *, accept: tuple[int, ...] = (200,)) -> Answer:
        """A page.

        Raises:
            UnreadableError: it cannot be had, or its status is not one of ``accept``.
        """
        if self._session is None:
            raise RuntimeError("Pages is used outside of its context; write `async with Pages(...) as pages`")
        began_s, at = time.monotonic(), time.time()
        try:
            async with self._session.get(url, ssl=self._tls, allow_redirects=False) as response:
                took_s = time.monotonic() - began_s
                body = await response.content.read(_MOST_BYTES)
                while chunk := await response.content.read(_MOST_BYTES):
                    body += chunk
        except TimeoutError as error:
            raise UnreadableError(f"{url} does not answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnreadableError(f"{url} cannot be read: {str(error) or type(error).__name__}") from error
        if response.status not in accept:
            hint = "; give a token with --token-file" if response.status in (401, 403) else ""
            raise UnreadableError(f"{url} answers {response.status}{hint}")
        return Answer(response.status, body, took_s, _skew_s(response.headers.get("Date"), at + took_s / 2))


def _skew_s(date: str | None, now: float) -> float | None:
    """``Date`` is cut to whole seconds."""
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - now
    except (TypeError, ValueError):
        return None


async def served_certificate(host: str, port: int, timeout_s: float) -> Served:
    """What a port shows to a client that wants TLS and verifies nothing."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if problem := await _unreachable(host, port, timeout_s):
        return Served(address, error=problem)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
    except (OSError, EOFError, TimeoutError):  # not TLS: it answers otherwise, hangs up or waits for more
        return Served(address)
    try:
        data = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        await _closed(writer)
    if not data:
        return Served(address, speaks_tls=True)
    certificate = x509.load_der_x509_certificate(data)
    return Served(
        address,
        speaks_tls=True,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_self_signed=certificate.issuer == certificate.subject,
    )


async def _unreachable(host: str, port: int, timeout_s: float) -> str:
    """Why there is no connection; empty if there is one."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no connection within {timeout_s:g} s"
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return f"no connection: {reason}"
    await _closed(writer)
    return ""


async def event_port(host: str, port: int, timeout_s: float) -> EventPort:
    """Whether a ZeroMQ socket listens."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return EventPort.CLOSED
    try:
        async with asyncio.timeout(timeout_s):
            signature = await reader.readexactly(_ZMTP_SIGNATURE_BYTES)
    except (OSError, EOFError, TimeoutError):
        return EventPort.OTHER
    finally:
        await _closed(writer)
    return EventPort.ZEROMQ if signature[0] == 0xFF and signature[-1] == 0x7F else EventPort.OTHER


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, EOFError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
