"""The seam between moving bytes and deciding: what any transport calls, and what it gets back.

A transport owns the wire: which answer is due when, in which message and how large; echoing, trailers, doubled ends, late
messages; half-close and cancel; TLS, health, keepalive; clocks and counts. It never knows models, endpoints, plugins,
priorities, metrics or error texts. A handler owns every decision and gives the rest as data (``Plan``): no body chunk waits
for Python, except the last where the plan says so.

Calls of one stream, in this order: ``request``, ``response_headers``, ``response_body``*, ``finished``. ``finished`` comes
exactly once for each ``request`` and last. All calls are made on the event loop, one at a time, never inside ``answer``.

Times are seconds of ``time.monotonic()``. Header names are lower case; values are ``str``, UTF-8 with surrogateescape.
Records are ``NamedTuple``s: they are built once per request and cost 0.4 of a frozen dataclass. ``total(handler)`` makes
a handler that never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

Names = frozenset[str]
Pairs = tuple[tuple[str, str], ...]
Metadata = Mapping[str, Mapping[str, object]]
"""Namespace → values, as in Envoy's dynamic metadata."""


class BodyState(StrEnum):
    """What is known of the request body when ``request`` is called."""

    COMPLETE = "complete"
    ABSENT = "absent"
    """The request headers ended the request (GET, HEAD, ``content-length: 0``)."""
    UNSEEN = "unseen"
    """There may be a body that we do not get (modes NONE and STREAMED, a cut BUFFERED_PARTIAL body)."""
    TIMED_OUT = "timed-out"
    TOO_LARGE = "too-large"
    """Longer than ``Settings.max_body_bytes``."""
    NO_MEMORY = "no-memory"
    """All bodies together are above ``Settings.max_buffered_bytes``."""


class Observe(IntEnum):
    """Which chunks of a streaming response ``response_body`` is told about."""

    OFF = 0
    FIRST = 1
    EVERY = 2


class End(StrEnum):
    """How a stream ended, as seen on the wire; the handler derives the cause."""

    NATURAL = "natural"
    DISCONNECTED = "disconnected"
    REPLIED = "replied"
    FAILED = "failed"


class Headers(Protocol):
    """Read-only headers, decoded on access: what nobody reads costs nothing."""

    def get(self, name: str) -> str | None:
        """The last value of ``name`` (lower case), or None."""
        ...

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs in wire order, names lower-cased, duplicates kept."""
        ...


class Request(Protocol):
    """One HTTP request, complete as far as it will ever be seen. Read-only."""

    @property
    def headers(self) -> Headers: ...
    @property
    def metadata(self) -> Metadata:
        """The last non-empty metadata context that came with any request message."""
        ...

    @property
    def at_s(self) -> float:
        """When the request headers came."""
        ...

    @property
    def body(self) -> memoryview:
        """The whole body if ``body_state`` is COMPLETE, else empty; the transport's only copy."""
        ...

    @property
    def body_state(self) -> BodyState: ...
    @property
    def read(self) -> tuple[object, ...]:
        """Results of ``Settings.request_readers``, in their order."""
        ...


class ResponseHead(Protocol):
    """The response headers."""

    @property
    def status(self) -> int:
        """HTTP status; 0 if the data plane sent none."""
        ...

    @property
    def headers(self) -> Headers: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def at_s(self) -> float: ...


class Edits(NamedTuple):
    """Changes of headers: a set name replaces all its values and wins over removal; removing an absent name is free."""

    set: Pairs = ()
    remove: Names = frozenset()


class Rename(NamedTuple):
    """Replace the string member ``member`` of JSON objects from ``old`` to ``new`` in the response body."""

    member: str
    old: str
    new: str


class Plan(NamedTuple):
    """What the response needs; the default forwards it and asks nobody."""

    ask_headers: bool = False
    """Call ``response_headers`` before the response headers are answered."""
    observe: Observe = Observe.OFF
    """Call ``response_body`` for the first non-empty or for every chunk of a streaming response."""
    hold_end: bool = False
    """The last answer waits for ``finished`` and carries the metadata that it returns."""
    rename: Rename | None = None
    readers: tuple[str, ...] = ()
    """Names of ``readers.READERS``; their results are ``Outcome.read``, in this order."""
    streams: bool = False
    """The request asked for a stream; a response of type text/event-stream is one in any case."""
    skip: bool = False
    """Close the stream once the request part is answered, and the response passes by; not where response bodies come in
    full duplex, because Envoy loses what it has sent by then."""


class Route(NamedTuple):
    """Forward the request, with these changes."""

    headers: Edits
    metadata: Metadata
    plan: Plan = Plan()
    splices: tuple[tuple[int, int, bytes], ...] = ()
    """Spans ``(start, end, replacement)`` of a COMPLETE body, ascending, not overlapping; () leaves it as it came."""


class Reply(NamedTuple):
    """Answer the client ourselves (``ImmediateResponse``), exactly as given."""

    status: int
    body: bytes
    headers: Pairs = ()
    grpc_status: int | None = None
    details: str = ""


class Chunk(NamedTuple):
    """One non-empty piece of a streaming response that has been forwarded."""

    data: bytes
    end: bool
    at_s: float
    read: tuple[object, ...]
    """Results of the plan's readers so far."""


class Outcome(NamedTuple):
    """The facts of a finished stream."""

    end: End
    complete: bool
    """The response's own end was seen."""
    error: str
    """For the log; empty unless FAILED."""
    head: ResponseHead | None
    streaming: bool
    chunks: int
    """Non-empty chunks of the response body."""
    size_bytes: int
    """Response body bytes received."""
    read: tuple[object, ...]
    first_s: float | None
    """When the first non-empty chunk came."""
    last_s: float | None
    end_s: float
    busy_s: float
    """Time spent on the response by the transport."""
    gaps: tuple[int, ...]
    """Gaps between the non-empty chunks of a streaming response, counted per bucket of ``Settings.gap_bounds_s`` and
    one more for all above: shape ``(len(gap_bounds_s) + 1,)``; () if there was none."""
    gaps_s: float
    """Sum of these gaps."""


class Stream(Protocol):
    """One HTTP request as the transport knows it: the key of all its state, as request ids repeat."""

    state: object
    """The handler's own slot; None at first."""

    def answer(self, answer: Route | Reply) -> None:
        """Decide; inside ``request`` or later.

        Only records: no call of the handler happens inside it. After a Route, a Reply cuts the response wherever it is
        (eviction). What comes too late is dropped, and ``finished`` says what was.
        """
        ...


class RequestHandler(Protocol):
    """What a transport calls. Plain functions on the event loop; they must not block."""

    def request(self, stream: Stream, request: Request) -> None:
        """A request is here, once, with all that will ever be seen of it; call ``stream.answer`` now or later."""
        ...

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        """The response headers came, and the plan asked; the returned changes are applied before they go on."""
        ...

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        """Chunks of a streaming response were forwarded; they can be neither changed nor delayed."""
        ...

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        """The stream is over; the returned metadata is sent if the plan said ``hold_end``."""
        ...


class TlsVersion(StrEnum):
    """Names of Go's crypto/tls, as operators write them."""

    TLS10 = "VersionTLS10"
    TLS11 = "VersionTLS11"
    TLS12 = "VersionTLS12"
    TLS13 = "VersionTLS13"


class Tls(NamedTuple):
    """A key pair in PEM form, and what the handshake allows."""

    certificate: bytes
    key: bytes
    min_version: TlsVersion | None = None
    cipher_suites: tuple[str, ...] = ()
    """OpenSSL names; empty means the library's default."""


class Settings(NamedTuple):
    """What a transport needs to know; frozen and replaced whole. Open streams and connections keep theirs."""

    request_strip: Names = frozenset()
    """Request headers always removed, on every stream, also one that nobody routed."""
    response_strip: Names = frozenset()
    response_set: Pairs = ()
    max_body_bytes: int = 64 * 1024 * 1024
    """0 = no limit."""
    max_buffered_bytes: int = 1024 * 1024 * 1024
    """For all request bodies together; 0 = no limit."""
    body_idle_s: float = 60.0
    """Longest silence while body messages are due."""
    gap_bounds_s: tuple[float, ...] = ()
    request_readers: tuple[str, ...] = ()
    tls: Tls | None = None
    max_send_bytes: int = -1
    max_receive_bytes: int = 65 * 1024 * 1024


class Port(NamedTuple):
    """Where to listen; ``port`` 0 lets the system choose."""

    host: str
    port: int
    secure: bool
    extproc: bool = True
    """Serve ExternalProcessor here."""
    health: bool = True
    """Serve grpc.health.v1 here."""


class HealthStatus(IntEnum):
    """Numbers of grpc.health.v1.HealthCheckResponse.ServingStatus."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class HealthTable(NamedTuple):
    """Answers of Check, List and Watch, by service name."""

    statuses: Mapping[str, HealthStatus]
    default: HealthStatus
    """For names that are not listed."""


class TransportStats(NamedTuple):
    """Read when scraped."""

    open_streams: int
    ended: Mapping[str, int]
    """By gRPC code name (``OK``, ``CANCELLED``, ...)."""
    hold_counts: tuple[int, ...]
    """Stream durations per bucket of the transport's ``HOLD_BOUNDS_S``, one more for all above."""
    hold_sum_s: float
    buffered_bytes: int
    handover_counts: tuple[int, ...] = ()
    """How long calls waited for the event loop, per bucket of the transport's ``HANDOVER_BOUNDS_S``, one more for all above;
    empty if the transport has no queue in between."""
    handover_sum_s: float = 0.0


class Transport(Protocol):
    """An implementation of the wire."""

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        """Listen on all ports and serve.

        Returns:
            The port numbers bound, in the order of ``ports``.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings are not usable.
        """
        ...

    def configure(self, settings: Settings) -> None:
        """Use these settings for new streams and new connections."""
        ...

    def set_health(self, table: HealthTable) -> None: ...
    def stats(self) -> TransportStats: ...
    async def stop(self, grace_s: float | None) -> None:
        """GOAWAY, wait up to ``grace_s`` (None = for ever), then UNAVAILABLE. No call comes after it returns."""
        ...


class _Total:
    """A handler in which an exception becomes 500 (before the answer) or nothing (after it)."""

    def __init__(self, inner: RequestHandler, on_error: Callable[[str, Exception], None]) -> None:
        self._inner = inner
        self._on_error = on_error

    def request(self, stream: Stream, request: Request) -> None:
        try:
            self._inner.request(stream, request)
        except Exception as error:  # noqa: BLE001 — the one place where a defect is turned into an answer
            self._on_error("request", error)
            stream.answer(INTERNAL_ERROR)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        try:
            return self._inner.response_headers(stream, head)
        except Exception as error:  # noqa: BLE001
            self._on_error("response_headers", error)
            return None

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        try:
            self._inner.response_body(stream, chunks)
        except Exception as error:  # noqa: BLE001
            self._on_error("response_body", error)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        try:
            return self._inner.finished(stream, outcome)
        except Exception as error:  # noqa: BLE001
            self._on_error("finished", error)
            return None


INTERNAL_ERROR = Reply(
    status=500,
    body=(
        b'{"error":{"message":"inference error: Internal - internal error",'
        b'"type":"server_error","param":null,"code":"Internal"}}'
    ),
    headers=(("content-type", "application/json"),),
    details="epp_internal",
)
"""What a client gets when our own code failed."""


def total(handler: RequestHandler, on_error: Callable[[str, Exception], None]) -> RequestHandler:
    """A handler that never raises: an exception in ``request`` becomes 500, elsewhere nothing.

    Args:
        handler: the handler to guard.
        on_error: told the method's name and the exception, to log and count it.
    """
    return _Total(handler, on_error)
