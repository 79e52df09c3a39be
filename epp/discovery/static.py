"""Endpoints from the command line: ``--endpoint HOST:PORT[,label=value...]``."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from epp.errors import ConfigError, Finding, UsageError
from epp.framework.interfaces import EndpointNotifier
from epp.framework.types import Endpoint

Resolve = Callable[[str, int], Awaitable[str]]
"""(host name, port) → IP address."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class StaticEndpoint:
    """One ``--endpoint`` as it was given."""

    host: str
    """IP address without brackets, or a host name."""
    port: int
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``<host>-<port>``, the same after every start and in every order of the flags."""
        return _NOT_IN_NAMES.sub("-", f"{self.host.lower()}-{self.port}").strip("-")


def parse_endpoints(texts: Sequence[str]) -> list[StaticEndpoint]:
    """Read the values of all ``--endpoint`` flags.

    Raises:
        UsageError: with one sentence for each wrong value.
    """
    endpoints: list[StaticEndpoint] = []
    problems: list[str] = []
    for text in texts:
        try:
            endpoint = _parse(text)
        except ValueError as error:
            problems.append(f"--endpoint {text}: {error}")
            continue
        if any(known.name == endpoint.name for known in endpoints):
            problems.append(f"--endpoint {text}: {endpoint.host}:{endpoint.port} is given twice")
        endpoints.append(endpoint)
    if problems:
        raise UsageError(problems)
    return endpoints


def _parse(text: str) -> StaticEndpoint:
    target, *pairs = text.split(",")
    host, colon, port = target.strip().rpartition(":")
    if not colon or not host:
        raise ValueError("write HOST:PORT, with an IPv6 address in brackets")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} is not an integer from 1 to 65535")
    return StaticEndpoint(_host(host), int(port), _labels(pairs))


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return str(ipaddress.IPv6Address(text[1:-1]))
    if ":" in text:
        raise ValueError("an IPv6 address must be in brackets: [::1]:8000")
    if text.replace(".", "").isdigit():
        return str(ipaddress.IPv4Address(text))
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is neither an IP address nor a host name")
    return text


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.strip().partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} is not a label; write name=value")
        if name in labels:
            raise ValueError(f"label {name!r} is given twice")
        labels[name] = value
    return labels


class StaticDiscovery:
    """Reports a fixed list of endpoints; names are resolved once, at the start. Implements ``EndpointDiscovery``.

    Args:
        endpoints: what to report, in this order.
        resolve: replaced in tests; default: the system's resolver, whose first answer counts.
    """

    def __init__(self, endpoints: Sequence[StaticEndpoint], resolve: Resolve | None = None) -> None:
        self.ready = asyncio.Event()
        self._endpoints = tuple(endpoints)
        self._resolve = resolve or _system_resolve

    async def run(self, notifier: EndpointNotifier) -> None:
        """Report the endpoints once.

        Raises:
            ConfigError: with one finding for each name that cannot be resolved.
        """
        answers = await asyncio.gather(*(self._address(endpoint) for endpoint in self._endpoints))
        findings = [answer for answer in answers if isinstance(answer, Finding)]
        if findings:
            raise ConfigError(findings)
        notifier.replace_all([answer for answer in answers if isinstance(answer, Endpoint)])
        self.ready.set()
        await asyncio.Event().wait()

    def reload(self) -> None:
        """Nothing to do: the command line does not change."""

    async def _address(self, endpoint: StaticEndpoint) -> Endpoint | Finding:
        try:
            address = str(ipaddress.ip_address(endpoint.host))
        except ValueError:
            try:
                address = await self._resolve(endpoint.host, endpoint.port)
            except OSError as error:
                return Finding(
                    "EPS001",
                    "--endpoint",
                    f"host name {endpoint.host!r} cannot be resolved: {error.strerror or error}",
                    "check the name, or give the IP address",
                    f"{endpoint.host}:{endpoint.port}",
                )
        return Endpoint.of(endpoint.name, address, endpoint.port, endpoint.labels)


async def _system_resolve(host: str, port: int) -> str:
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(answers[0][4][0])
