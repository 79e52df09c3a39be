"""A server that sends what it is told byte by byte, both ways of reading from it, and the table of what they must give."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from socket import SO_LINGER, SOL_SOCKET

from epp.datalayer.page_rounds import NATIVE_MODULE, PageReader, make_page_reader
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.framework.types import Endpoint
from plugins.datalayer.metrics_source import MetricsSource
from tests.unit.datalayer import pages

WAYS = ("source", "native") if find_spec(NATIVE_MODULE) is not None else ("source",)
"""Each test of pages runs over all ways that are installed."""
PAGE = b"vllm:num_requests_waiting 3\n"
SHORT_S = 0.1
"""Time for answers that never come."""
PATIENCE_S = 10.0
POLL_S = 0.002
"""There is no event to wait for: pages are taken when the collector ticks."""


class Then(Enum):
    """What the server does after a reply."""

    KEEP = "wait for the next request"
    CLOSE = "close the connection"
    RESET = "reset the connection"
    HANG = "do nothing any more"


@dataclass(frozen=True)
class Reply:
    """What a request gets; pieces are sent one by one."""

    pieces: tuple[bytes, ...]
    then: Then = Then.KEEP


def raw(*pieces: bytes, then: Then = Then.KEEP) -> Reply:
    """These bytes."""
    return Reply(pieces, then)


def ok(body: bytes, *headers: str, status: str = "200 OK", then: Then = Then.KEEP) -> Reply:
    """A body with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return Reply(("\r\n".join(lines).encode(), body), then)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", then: Then = Then.KEEP) -> Reply:
    """A body in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Reply((head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), end), then)


def until_close(body: bytes, then: Then = Then.CLOSE) -> Reply:
    """A body that ends with the connection."""
    return Reply((b"HTTP/1.1 200 OK\r\n\r\n", body), then)


def redirect(location: str, status: int = 307) -> Reply:
    """To another place; ``{host}`` stands for the server."""
    return ok(b"moved\n", f"Location: {location}", status=f"{status} Elsewhere")


@dataclass(frozen=True)
class Case:
    """Replies to one request after another (the last one is repeated), and what the last fetch gives.

    Of errors ``{host}`` and ``{url}`` are replaced.
    """

    id: str
    replies: tuple[Reply, ...]
    page: bytes | None = None
    error: str = ""
    fetches: int = 1
    timeout_s: float = 5.0
    paths: tuple[str, ...] = ()
    """Paths that were asked for; () = not looked at."""


def _good(name: str, *replies: Reply, page: bytes = PAGE, fetches: int = 1, paths: tuple[str, ...] = ()) -> Case:
    return Case(name, replies, page=page, fetches=fetches, paths=paths)


def _bad(name: str, error: str, *replies: Reply, timeout_s: float = 5.0) -> Case:
    return Case(name, replies, error=error, timeout_s=timeout_s)


_LOST = "the connection to {url} was lost before its whole answer came"
_MALFORMED = "the answer of {url} is no HTTP"
_CUT = "the metrics page is cut off: its last line has no end"
_LATE = f"no whole answer within {SHORT_S:g} s from {{url}}"
_LARGE = f"the answer of {{url}} is larger than {MAX_PAGE_BYTES} bytes"
_HUGE = b"#" * (MAX_PAGE_BYTES - 1) + b"\n"
_FULL = pages.full_page().encode()
_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + PAGE

CASES = (
    *(
        _good(f"engine {name}", ok(text.encode()), page=text.encode())
        for name, text in {
            "vllm": pages.VLLM,
            "vllm, two": pages.VLLM_TWO_ENGINES,
            "sglang": pages.SGLANG,
            "sglang, older": pages.SGLANG_OLD,
            "trtllm": pages.TRTLLM,
            "triton with trtllm": pages.TRITON_TRTLLM,
            "triton": pages.TRITON,
            "vllm, 62 KB": pages.full_page(),
        }.items()
    ),
    # ── bodies ──
    _good("chunked", chunked(PAGE[:3], PAGE[3:])),
    _good("62 KB in chunks", chunked(*(_FULL[i : i + 1000] for i in range(0, len(_FULL), 1000))), page=_FULL),
    _good("chunked, extension and trailer", chunked(end=b"1c;x=y\r\n" + PAGE + b"\r\n0\r\nT: v\r\n\r\n")),
    _good("until the connection ends", until_close(PAGE)),
    _good("HTTP/1.0", raw(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE, then=Then.CLOSE)),
    _good("byte by byte", raw(*(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n" + PAGE))),
    _good("no reason phrase", raw(b"HTTP/1.1 200\r\ncontent-length: 28\r\n\r\n" + PAGE)),
    _good("after 100", raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n" + PAGE)),
    _good("after 103", raw(b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n" + PAGE)),
    _good("empty", ok(b""), page=b""),
    _good("empty, in chunks", chunked(), page=b""),
    _good("blank lines", ok(b" \n\t\r\n\n"), page=b" \n\t\r\n\n"),
    _good("OpenMetrics", ok(PAGE + b"# EOF"), page=PAGE + b"# EOF"),
    _good("as large as allowed", ok(_HUGE), page=_HUGE),
    # ── connections ──
    _good("kept", ok(PAGE), fetches=3),
    _good("to be closed", ok(PAGE, "Connection: close", then=Then.CLOSE), fetches=2),
    _good("closed after the answer", ok(PAGE, then=Then.CLOSE), fetches=2),
    _good("closed with the next request", ok(PAGE), raw(then=Then.CLOSE), ok(PAGE), fetches=2),
    _good("reset with the next request", ok(PAGE), raw(then=Then.RESET), ok(PAGE), fetches=2),
    _good("after an error", ok(b"", status="500 No"), ok(PAGE), fetches=2),
    _good("after a page that was cut", raw(_HALF, then=Then.CLOSE), ok(PAGE), fetches=2),
    _good("after a hanging answer in time", ok(PAGE), ok(PAGE, then=Then.HANG), fetches=2),
    # ── redirects ──
    _good("redirect", redirect("/metrics/"), ok(PAGE), paths=("/metrics", "/metrics/")),
    _good("redirect with host", redirect("http://{host}/m?a=b", 301), ok(PAGE), paths=("/metrics", "/m?a=b")),
    _good("redirect each time", redirect("/m"), ok(PAGE), redirect("/m"), ok(PAGE), fetches=2, paths=("/metrics", "/m") * 2),
    _good("three redirects", *(redirect(f"/{i}", 302) for i in range(3)), ok(PAGE)),
    _good("redirect that is not plain", redirect("x%20y/../z", 308), redirect("x%20y/../z"), ok(PAGE)),
    _bad("redirects without end", "too many redirects from {url}", redirect("/metrics", 303)),
    _bad("redirect to nowhere", "status 302 from {url}", ok(b"", status="302 Found")),
    _bad("redirect to an error", "status 404 from {url}", redirect("/m"), ok(b"", status="404 No")),
    # ── encodings ──
    _good("identity", ok(PAGE, "Content-Encoding: identity")),
    _good("gzip all the same", ok(gzip.compress(PAGE), "Content-Encoding: gzip")),
    # ── statuses ──
    *(
        _bad(
            f"status {status}", f"status {status} from {{url}}", ok(b"" if status in (204, 304) else PAGE, status=f"{status} X")
        )
        for status in (201, 203, 204, 304, 400, 401, 404, 500, 503)
    ),
    # ── no page ──
    _bad("cut", _CUT, ok(PAGE[:-1])),
    _bad("cut in a label set", _CUT, ok(PAGE + b"b{")),
    _bad("JSON", "this is no Prometheus text page: it begins with b'[{\"queue\": 3}]\\n'", ok(b'[{"queue": 3}]\n')),
    _bad(
        "HTML",
        "this is no Prometheus text page: it begins with b'\\n<html><body>it\\'s \"h'",
        ok(b'\n<html><body>it\'s "here"\n'),
    ),
    _bad("quotes", "this is no Prometheus text page: it begins with b\"'it is'\\n\"", ok(b"'it is'\n")),
    _bad("binary", "this is no Prometheus text page: it begins with b'\\x00\\x8f\\xff\\\\\\t\\n'", ok(b"\x00\x8f\xff\\\t\n")),
    _bad("too large", _LARGE, ok(b"#" + _HUGE)),
    _bad("too large, in chunks", _LARGE, chunked(_HUGE, _HUGE)),
    _bad("too large, until the end", _LARGE, until_close(b"#" + _HUGE)),
    # ── lost ──
    _bad("closed at once", _LOST, raw(then=Then.CLOSE)),
    _bad("reset at once", _LOST, raw(then=Then.RESET)),
    _bad("half a head", _LOST, raw(b"HTTP/1.1 200 OK\r\nContent-Le", then=Then.CLOSE)),
    _bad("half a page", _LOST, raw(_HALF, then=Then.CLOSE)),
    _bad("half a page, reset", _LOST, raw(_HALF, then=Then.RESET)),
    _bad("half a chunk", _LOST, raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + PAGE, then=Then.CLOSE)),
    _bad("no last chunk", _LOST, chunked(PAGE, end=b"", then=Then.CLOSE)),
    # ── malformed ──
    _bad("another protocol", _MALFORMED, raw(b"SSH-2.0-OpenSSH_9.6\r\n", then=Then.CLOSE)),
    _bad("no status line", _MALFORMED, raw(b"hello world\r\n\r\n", then=Then.CLOSE)),
    _bad("another version", _MALFORMED, raw(b"HTTP/9.1 200 OK\r\n\r\n", then=Then.CLOSE)),
    _bad("no header", _MALFORMED, raw(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n" + PAGE, then=Then.CLOSE)),
    _bad("no length", _MALFORMED, raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n" + PAGE, then=Then.CLOSE)),
    _bad("no chunk", _MALFORMED, chunked(end=b"zz\r\n" + PAGE + b"\r\n0\r\n\r\n", then=Then.CLOSE)),
    # ── late ──
    _bad("no answer", _LATE, raw(then=Then.HANG), timeout_s=SHORT_S),
    _bad("half a page, then nothing", _LATE, raw(_HALF, then=Then.HANG), timeout_s=SHORT_S),
    _bad("no end of the connection", _LATE, until_close(PAGE, then=Then.HANG), timeout_s=SHORT_S),
)


@dataclass
class RawServer:
    """Replies in order, whatever is asked and on whichever connection."""

    replies: Sequence[Reply]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    """Heads."""
    connections: int = 0
    """So far."""
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    """Open connections."""

    @property
    def host(self) -> str:
        """As clients call it."""
        return f"127.0.0.1:{self.port}"

    def endpoint(self) -> Endpoint:
        """The endpoint at which it listens."""
        return Endpoint.of("a", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving[task] = writer
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._reply(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                    pass
        finally:
            del self.serving[task]
            writer.close()

    async def _reply(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append(head)
        for piece in reply.pieces:
            writer.write(piece.replace(b"{host}", self.host.encode()) if len(piece) < 1000 else piece)
            await writer.drain()
        if reply.then is Then.RESET:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if reply.then is Then.HANG:
            await reader.read()
        return reply.then is Then.KEEP


@asynccontextmanager
async def raw_server(*replies: Reply) -> AsyncIterator[RawServer]:
    """A server on a free port, until the block ends."""
    server = RawServer(replies)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**16)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in server.serving.values():
            writer.transport.abort()
        await asyncio.gather(*server.serving)


class Fetching:
    """Fetches the page of one endpoint in one of the ways."""

    def __init__(self, way: str, timeout_s: float) -> None:
        self.source = MetricsSource(timeout_s=timeout_s)
        self.reader = make_page_reader(MAX_PAGE_BYTES, timeout_s) if way == "native" else None
        self._is_known = False

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """The page, as the collector gets it.

        Raises:
            OSError: with the text that the collector gets.
        """
        if self.reader is None:
            return await self.source.fetch(endpoint)
        if not self._is_known:
            self._is_known = True
            set_target(self.reader, self.source, endpoint)
        _, page, error = await taken(self.reader, 1)
        if error is not None:
            raise OSError(error)
        return page if page is not None else await self.source.fetch(endpoint)


def set_target(reader: PageReader, source: MetricsSource, endpoint: Endpoint) -> None:
    """Let ``reader`` read the whole page of an endpoint, by the key 1."""
    page = source.page(endpoint)
    assert page is not None
    reader.set_target(1, page.address, page.port, page.host, page.path, page.url, None)


@asynccontextmanager
async def fetching_by(way: str, timeout_s: float = 5.0) -> AsyncIterator[Fetching]:
    """A way to fetch, until the block ends."""
    fetching = Fetching(way, timeout_s)
    try:
        yield fetching
    finally:
        await fetching.source.close()
        if fetching.reader is not None:
            fetching.reader.close()


async def taken(reader: PageReader, key: int) -> tuple[int, bytes | None, str | None]:
    """What comes of asking once for this target."""
    came = reader.exchange([key])
    async with asyncio.timeout(PATIENCE_S):
        while not came:
            await asyncio.sleep(POLL_S)
            came = reader.exchange([])
    assert len(came) == 1
    return came[0]
