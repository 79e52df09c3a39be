"""A request whose body came with a content coding: the decision reads it decoded, and it is forwarded as it came.

Only where the body has to change it goes on decoded, as one replacement of the whole, without the header that named the coding.
"""

from __future__ import annotations

import asyncio

from epp.errors import ErrorCode, RequestError
from epp.plugin_calls.step import MayWait
from epp.request.content_coding import decode
from epp.request.parse import NO_MEMORY
from epp.request.rewrite import Splices, spliced
from epp.seam import BodyState, Headers, Metadata, Request

INLINE_BYTES = 256 * 1024
INLINE_DECODED_BYTES = 1024 * 1024
"""What is decoded at once, before and after: some 4 ms at most. Anything larger goes to a thread, so that no other request
waits for it; the first megabyte is then decoded twice, which costs less than a thread for each small body."""


class DecodedBodies:
    """Counts the decoded bodies in memory, which may be many times as large as what came.

    Args:
        limit_bytes: of all together; 0 = none.
    """

    __slots__ = ("_limit_bytes", "held_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """One more is in memory.

        Raises:
            RequestError: SERVICE_UNAVAILABLE; it must not be.
        """
        self.check(size_bytes)
        self.held_bytes += size_bytes

    def check(self, size_bytes: int = 1) -> None:
        """There is room for so much. Raises as ``hold`` does."""
        if self._limit_bytes and self.held_bytes + size_bytes > self._limit_bytes:
            raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, NO_MEMORY)

    def let_go(self, size_bytes: int) -> None:
        """One is not in memory any more."""
        self.held_bytes -= size_bytes


class DecodedRequest:
    """A request as it would have come without its content coding; implements ``seam.Request``.

    Args:
        request: as it came.
        body: decoded.
        bodies: where it counts until ``let_go``.

    Raises:
        RequestError: as ``DecodedBodies.hold``.
    """

    __slots__ = ("_bodies", "at_s", "body", "body_state", "headers", "metadata", "read", "received_bytes")

    def __init__(self, request: Request, body: bytes, bodies: DecodedBodies) -> None:
        bodies.hold(len(body))
        self._bodies: DecodedBodies | None = bodies
        self.headers: Headers = request.headers
        self.metadata: Metadata = request.metadata
        self.at_s = request.at_s
        self.body_state: BodyState = request.body_state
        self.read = request.read
        self.body = memoryview(body)
        self.received_bytes = len(request.body)
        """Length of the body as it came."""

    def let_go(self) -> None:
        """It was decided about."""
        bodies, self._bodies = self._bodies, None
        if bodies is not None:
            bodies.let_go(len(self.body))

    def replacing(self, splices: Splices) -> Splices:
        """The changes of the decoded body as one of the body that came: all of it is replaced."""
        return ((0, self.received_bytes, spliced(self.body, splices)),)


async def decoded(
    request: Request, codings: tuple[str, ...], limit_bytes: int, waiter: MayWait, bodies: DecodedBodies
) -> DecodedRequest:
    """The request with its body decoded; a large one is decoded in a thread.

    Args:
        request: its body was seen whole.
        codings: at least one, as ``codings_of`` returns them.
        limit_bytes: of the decoded body; 0 = none but the ratio.
        waiter: of this request's decision.
        bodies: all that are in memory.

    Raises:
        RequestError: as ``decode`` and ``DecodedBodies.hold`` raise it.
        CancelledError: the stream has ended meanwhile, or the deadline has passed.
    """
    body = request.body
    bodies.check()
    if len(body) <= INLINE_BYTES:
        inline_bytes = min(limit_bytes or INLINE_DECODED_BYTES, INLINE_DECODED_BYTES)
        try:
            return DecodedRequest(request, decode(codings, body, inline_bytes), bodies)
        except RequestError as error:
            if error.code is not ErrorCode.PAYLOAD_TOO_LARGE or inline_bytes == limit_bytes:
                raise
    await waiter.enter()
    data = await asyncio.to_thread(decode, codings, body, limit_bytes)
    waiter.check()
    return DecodedRequest(request, data, bodies)
