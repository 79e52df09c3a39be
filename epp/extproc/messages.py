"""What the state machine of a stream takes and gives, as plain records.

Neutral on purpose: no protobuf, no gRPC. A codec translates; tests write them down as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from epp.seam import Chunk, Headers, Metadata, Outcome, Pairs, Reply, Request, ResponseHead


class Mode(IntEnum):
    """Body modes, with the numbers of ``ProcessingMode.BodySendMode``."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX = 4
    GRPC = 5


class WireHeaders(Headers, Protocol):
    """Headers as the machine needs them."""

    def names(self) -> AbstractSet[str]:
        """All names, lower case."""
        ...


# ── received ──


class Opening(NamedTuple):
    """What only the first message says about the stream."""

    request_mode: Mode = Mode.FULL_DUPLEX
    response_mode: Mode = Mode.FULL_DUPLEX
    configured: bool = False
    """The data plane sent its ``protocol_config``; without it full duplex is assumed."""
    observed: bool = False
    """``observability_mode``: nothing is answered."""


class RequestHeaders(NamedTuple):
    headers: WireHeaders
    end: bool = False
    metadata: Metadata | None = None


class RequestBody(NamedTuple):
    data: bytes
    end: bool = False
    metadata: Metadata | None = None
    compressed: bool = False
    """Of one gRPC message, mode GRPC only; echoed."""
    without_message: bool = False
    """The end of the stream came without a message, mode GRPC only; echoed."""


class RequestTrailers(NamedTuple):
    metadata: Metadata | None = None


class ResponseHeaders(NamedTuple):
    headers: WireHeaders
    end: bool = False
    metadata: Metadata | None = None


class ResponseBody(NamedTuple):
    data: bytes
    end: bool = False
    compressed: bool = False
    without_message: bool = False


class ResponseTrailers(NamedTuple):
    pass


class Invalid(NamedTuple):
    """A message that cannot be understood."""

    why: str


class Lost(Enum):
    """How the data plane left the stream."""

    HALF_CLOSED = "half-closed"
    CANCELLED = "cancelled"
    SEND_FAILED = "send failed"


Incoming = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers | Invalid | Lost


# ── sent ──


class HeadersAnswer(NamedTuple):
    """Answers request or response headers."""

    response: bool
    set: Pairs = ()
    remove: tuple[str, ...] = ()
    clear_route_cache: bool = False
    metadata: Metadata | None = None


class BodyAnswer(NamedTuple):
    """Answers one body message, in all modes but full duplex and GRPC."""

    response: bool
    set: Pairs = ()
    remove: tuple[str, ...] = ()
    clear_route_cache: bool = False
    metadata: Metadata | None = None
    body: bytes | memoryview | None = None
    """Replaces the message's body; None leaves it."""


class StreamedBody(NamedTuple):
    """One piece of a body in modes full duplex and GRPC."""

    response: bool
    data: bytes | memoryview
    end: bool = False
    metadata: Metadata | None = None
    compressed: bool = False
    without_message: bool = False


class TrailersAnswer(NamedTuple):
    """Answers trailers."""

    response: bool
    metadata: Metadata | None = None


class Immediate(NamedTuple):
    """Ends the stream: the data plane answers its client with this."""

    reply: Reply


Outgoing = HeadersAnswer | BodyAnswer | StreamedBody | TrailersAnswer | Immediate


# ── calls and the end ──


class CallRequest(NamedTuple):
    """Call ``RequestHandler.request``; the decision goes to ``Machine.answer``, now or later."""

    request: Request


class CallResponseHeaders(NamedTuple):
    """Call ``RequestHandler.response_headers``; its result goes to ``Machine.edited`` at once."""

    head: ResponseHead


class CallResponseBody(NamedTuple):
    """Tell ``RequestHandler.response_body``, once what precedes this effect is on its way."""

    chunks: Sequence[Chunk]


class CallFinished(NamedTuple):
    """Call ``RequestHandler.finished``, once what precedes this effect is on its way."""

    outcome: Outcome
    held: bool
    """The last answer waits: the result goes to ``Machine.released`` at once."""


class Status(Enum):
    """How the gRPC stream ends; names and numbers of gRPC."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    INTERNAL = 13
    UNAVAILABLE = 14


class Close(NamedTuple):
    """End the stream, after everything that precedes this effect was sent. Nothing follows."""

    status: Status
    details: str = ""


Call = CallRequest | CallResponseHeaders | CallResponseBody | CallFinished
Effect = Outgoing | Call | Close
