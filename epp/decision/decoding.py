"""A request whose body came with a content coding: the decision reads it decoded, and it is forwarded as it came.

Only where the body has to change it goes on decoded, as one replacement of the whole, without the header that named the coding.
"""

from __future__ import annotations

import asyncio

from epp.errors import ErrorCode, RequestError
from epp.plugin_calls.step import MayWait
from epp.request.content_coding import decode
from epp.request.rewrite import Splices, spliced
from epp.seam import BodyState, Headers, Metadata, Request

INLINE_BYTES = 256 * 1024
INLINE_DECODED_BYTES = 1024 * 1024
"""What is decoded at once, before and after: some 4 ms at most. Anything larger goes to a thread, so that no other request
waits for it; the first megabyte is then decoded twice, which costs less than a thread for each small body."""


class DecodedRequest:
    """A request as it would have come without its content coding; implements ``seam.Request``.

    Args:
        request: as it came.
        body: decoded.
    """

    __slots__ = ("at_s", "body", "body_state", "headers", "metadata", "read", "received_bytes")

    def __init__(self, request: Request, body: bytes) -> None:
        self.headers: Headers = request.headers
        self.metadata: Metadata = request.metadata
        self.at_s = request.at_s
        self.body_state: BodyState = request.body_state
        self.read = request.read
        self.body = memoryview(body)
        self.received_bytes = len(request.body)
        """Length of the body as it came."""

    def replacing(self, splices: Splices) -> Splices:
        """The changes of the decoded body as one of the body that came: all of it is replaced."""
        return ((0, self.received_bytes, spliced(self.body, splices)),)


async def decoded(request: Request, codings: tuple[str, ...], limit_bytes: int, waiter: MayWait) -> DecodedRequest:
    """The request with its body decoded; a large one is decoded in a thread.

    Args:
        request: its body was seen whole.
        codings: at least one, as ``codings_of`` returns them.
        limit_bytes: of the decoded body; 0 = none but the ratio.
        waiter: of this request's decision.

    Raises:
        RequestError: as ``decode`` raises it.
        CancelledError: the stream has ended meanwhile, or the deadline has passed.
    """
    body = request.body
    if len(body) <= INLINE_BYTES:
        inline_bytes = min(limit_bytes or INLINE_DECODED_BYTES, INLINE_DECODED_BYTES)
        try:
            return DecodedRequest(request, decode(codings, body, inline_bytes))
        except RequestError as error:
            if error.code is not ErrorCode.PAYLOAD_TOO_LARGE or inline_bytes == limit_bytes:
                raise
    await waiter.enter()
    data = await asyncio.to_thread(decode, codings, body, limit_bytes)
    waiter.check()
    return DecodedRequest(request, data)
