"""A client of the metrics port, and sources for a server to show."""

from __future__ import annotations

import ssl
from typing import NamedTuple

import aiohttp
import orjson

from epp.telemetry.metrics import Metrics
from epp.transport.http_server import HttpOptions, HttpSources, reading

LOCAL = HttpOptions(host="127.0.0.1", port=0)
PATHS = ["/debug/config", "/debug/endpoints", "/debug/plugins/state", "/debug/queues", "/healthz", "/metrics", "/readyz"]


def sources(metrics: Metrics | None = None, not_ready: list[str] | None = None) -> HttpSources:
    reasons = not_ready if not_ready is not None else []
    return HttpSources(
        metrics=metrics or Metrics(),
        not_ready=lambda: reasons,
        pages={
            "/debug/endpoints": reading(lambda: [{"name": "pod-a", "labels": {"role": "decode"}}]),
            "/debug/config": reading(lambda: {"sha256": "abc", "plugins": ["queue-scorer"]}),
            "/debug/plugins/state": reading(lambda: {"timestamp": "now", "plugins": {}}),
            "/debug/queues": reading(lambda: {"enabled": False}),
        },
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        found: dict[str, object] = orjson.loads(self.body)
        return found


class Client:
    """Asks one server; nothing is decompressed."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._base = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        self._context = context

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connector = aiohttp.TCPConnector(ssl=self._context or True)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(method, self._base + path, headers=named, skip_auto_headers=["Accept-Encoding"]) as response,
        ):
            return Answer(response.status, dict(response.headers), await response.read())
