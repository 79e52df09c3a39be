"""What ports show → findings, and looking at real ports."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zmq

from epp.doctor.certificates import Served, check_agreement, check_served
from epp.doctor.engines import EventPort
from epp.doctor.probes import event_port, served_certificate
from epp.transport.tls import self_signed

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TLS = Served("p:9002", speaks_tls=True, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=100))
PLAIN = Served("p:9002")
GONE = Served("p:9002", error="no connection")

VALIDITY: list[tuple[str, Served, list[str]]] = [
    ("valid", TLS, []),
    ("no TLS", PLAIN, []),
    ("unreachable", GONE, ["CRT006"]),
    ("two weeks left", replace(TLS, not_after=NOW + timedelta(days=14)), []),
    ("less than two weeks left", replace(TLS, not_after=NOW + timedelta(days=14, seconds=-1)), ["CRT003"]),
    ("expired now", replace(TLS, not_after=NOW), ["CRT001"]),
    ("not valid yet", replace(TLS, not_before=NOW + timedelta(seconds=1)), ["CRT002"]),
    ("valid since now", replace(TLS, not_before=NOW), []),
]


@pytest.mark.parametrize(("served", "expected"), [case[1:] for case in VALIDITY], ids=[case[0] for case in VALIDITY])
def test_how_long_a_certificate_holds(served: Served, expected: list[str]) -> None:
    findings = list(check_served(served, NOW))
    assert [found.code for found in findings] == expected
    assert all(found.fix and found.file == "p:9002" for found in findings)


AGREEMENT: list[tuple[str, Served, bool, bool, list[str]]] = [
    ("both with TLS", TLS, True, False, []),
    ("both without", PLAIN, False, False, []),
    ("only Envoy", PLAIN, True, False, ["CRT004"]),
    ("only the picker", TLS, False, False, ["CRT005"]),
    ("nobody knows", GONE, True, True, []),
    ("verified, self-signed", replace(TLS, is_self_signed=True), True, True, ["CRT007"]),
    ("not verified, self-signed", replace(TLS, is_self_signed=True), True, False, []),
    ("verified, of an authority", TLS, True, True, []),
]


@pytest.mark.parametrize(
    ("served", "encrypts", "verifies", "expected"), [case[1:] for case in AGREEMENT], ids=[case[0] for case in AGREEMENT]
)
def test_whether_envoy_and_picker_agree(served: Served, encrypts: bool, verifies: bool, expected: list[str]) -> None:
    found = list(check_agreement(served, "clusters[epp]", envoy_encrypts=encrypts, envoy_verifies=verifies))
    assert [each.code for each in found] == expected
    assert all(each.fix and each.path == "clusters[epp]" for each in found)


@asynccontextmanager
async def listening(greeting: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port that says something, and hangs up at the first byte that it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_certificate_of_a_port_is_read_without_verifying_it(tmp_path: Path) -> None:
    pair = self_signed()
    (tmp_path / "c").write_bytes(pair.certificate)
    (tmp_path / "k").write_bytes(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    async with listening(tls=context) as port:
        served = await served_certificate("127.0.0.1", port, 5.0)
    assert (served.error, served.speaks_tls, served.is_self_signed) == ("", True, True)
    assert served.not_after is not None
    assert list(check_served(served, datetime.now(UTC))) == []


async def test_a_port_without_tls_is_known() -> None:
    async with listening() as port:
        assert await served_certificate("127.0.0.1", port, 5.0) == Served(f"127.0.0.1:{port}")


async def test_a_port_that_says_something_else_is_known() -> None:
    async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert await served_certificate("127.0.0.1", port, 5.0) == Served(f"127.0.0.1:{port}")


async def test_a_closed_port_is_told_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    served = await served_certificate("127.0.0.1", port, 5.0)
    assert served.error == "no connection: Connection refused"
    assert await event_port("127.0.0.1", port, 5.0) is EventPort.CLOSED


async def test_a_socket_of_zeromq_is_known_by_its_greeting() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        assert await event_port("127.0.0.1", port, 5.0) is EventPort.ZEROMQ


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff1234567"], ids=["another", "cut"])
async def test_what_does_not_greet_as_zeromq_is_something_else(greeting: bytes) -> None:
    async with listening(greeting) as port:
        assert await event_port("127.0.0.1", port, 0.5) is EventPort.OTHER


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {code for case in VALIDITY for code in case[2]} | {code for case in AGREEMENT for code in case[4]}
