"""The message of a gRPC request, which must not be compressed.

Source: gRPC: doc/compression.md; a compression that is not supported is UNIMPLEMENTED, and the answer names what is.
"""

from __future__ import annotations

from epp.errors import ErrorCode, RequestError
from epp.framework.grpc_frames import single_message
from epp.framework.types import HeaderView

UNREADABLE = "invalid or unsupported gRPC payload"
_COMPRESSED = 1
"""The flag in front of the message."""


def read_message(headers: HeaderView, body: memoryview) -> memoryview:
    """The one message of a body.

    Raises:
        RequestError: UNSUPPORTED_MEDIA_TYPE; it is compressed.
        FrameError: the body is no frame, or more than one.
    """
    if len(body) and body[0] == _COMPRESSED:
        coding = (headers.get("grpc-encoding") or "not given")[:40]
        raise RequestError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"{UNREADABLE}: the message is compressed (grpc-encoding: {coding}); send it as it is, with grpc-encoding identity",
            headers=(("grpc-accept-encoding", "identity"),),
        )
    return single_message(body)
