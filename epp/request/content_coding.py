"""Undo the content coding of a request body (gzip, deflate, zstd), within bounds.

Bytes that decompress to much more than they are cost their sender nothing and us memory, so the size is checked while the
output grows, never afterwards.

Source: RFC 9110, sections 8.4 and 15.5.16; RFC 7694; RFC 9659 for the window of zstd.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from epp.errors import ErrorCode, RequestError
from epp.seam import Headers

CONTENT_ENCODING = "content-encoding"
ACCEPTED = ("gzip", "deflate", "zstd")
MOST_CODINGS = 2
"""Applied to one body; a second one is a mistake of a proxy, a third one an attack."""
MAX_RATIO = 100
"""Times that a body may grow: JSON shrinks to a third or a tenth, and only made-up text to less than a hundredth."""
ALWAYS_ALLOWED_BYTES = 1024 * 1024
"""A body may grow to this size at any ratio."""

MOST_MEMBERS = 1024
"""Members of a gzip body, or frames of a zstd one; programs that write several make them of 64 KiB or more."""

_SLICE_BYTES, _PIECE_BYTES = 64 * 1024, 1024 * 1024
"""Read and written at a time."""
_ZSTD_WINDOW_LOG = 23
"""8 MiB, the window that RFC 9659 allows for this content coding."""
_ALIASES = {"x-gzip": "gzip"}
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""``wbits`` of zlib."""


def codings_of(headers: Headers) -> tuple[str, ...]:
    """The codings of a body in the order in which they were applied; () for none.

    Raises:
        RequestError: UNSUPPORTED_MEDIA_TYPE; one is unknown, or there are too many.
    """
    if headers.get(CONTENT_ENCODING) is None:
        return ()
    values = [value for name, value in headers.items() if name == CONTENT_ENCODING]
    named = [name.strip().lower() for value in values for name in value.split(",")]
    codings = tuple([_ALIASES.get(name, name) for name in named if name not in ("", "identity")])
    unknown = next((coding for coding in codings if coding not in ACCEPTED), None)
    if unknown is not None:
        raise _unsupported(f"content-encoding {unknown[:40]!r} is not supported")
    if len(codings) > MOST_CODINGS:
        raise _unsupported(f"content-encoding names {len(codings)} codings and may name {MOST_CODINGS}")
    return codings


def decode(codings: tuple[str, ...], data: bytes | memoryview, limit_bytes: int) -> bytes:
    """The bytes that were encoded. CPU work that releases the interpreter lock.

    Args:
        codings: as ``codings_of`` returns them.
        data: the body as it came.
        limit_bytes: of the result; 0 = none but the ratio.

    Raises:
        RequestError: PAYLOAD_TOO_LARGE; the result is longer, or more than ``MAX_RATIO`` times as long as ``data``.
            BAD_REQUEST; it is not encoded so.
    """
    by_ratio = max(len(data) * MAX_RATIO, ALWAYS_ALLOWED_BYTES)
    is_by_ratio = not limit_bytes or by_ratio < limit_bytes
    bound = _Bound(by_ratio if is_by_ratio else limit_bytes, is_by_ratio)
    for coding in reversed(codings):
        try:
            data = _DECODERS[coding](data, bound)
        except (zlib.error, zstd.ZstdError) as error:
            raise _undecodable(coding, str(error)) from error
    return bytes(data)


class _Bound:
    """What the output may not exceed."""

    def __init__(self, limit_bytes: int, is_by_ratio: bool) -> None:
        self._limit_bytes = limit_bytes
        self._is_by_ratio = is_by_ratio

    def check(self, size: int) -> None:
        if size <= self._limit_bytes:
            return
        why = f"more than {MAX_RATIO} times its size" if self._is_by_ratio else f"more than {self._limit_bytes} bytes"
        raise RequestError(ErrorCode.PAYLOAD_TOO_LARGE, f"the request body decodes to {why}; send it without content-encoding")


def _gzip(data: bytes | memoryview, bound: _Bound) -> bytes:
    return _inflate(data, bound, "gzip", _GZIP)


def _deflate(data: bytes | memoryview, bound: _Bound) -> bytes:
    """With the zlib header that the RFC asks for, or without it as some clients send it."""
    try:
        return _inflate(data, bound, "deflate", _ZLIB)
    except zlib.error as error:
        try:
            return _inflate(data, bound, "deflate", _RAW)
        except zlib.error:
            raise error from None


def _inflate(data: bytes | memoryview, bound: _Bound, coding: str, wbits: int) -> bytes:
    source, output = _Source(data, coding), bytearray()
    while True:
        member = zlib.decompressobj(wbits)
        pending = b""
        while not member.eof:
            piece = member.decompress(pending or source.next(), _PIECE_BYTES)
            pending = member.unconsumed_tail
            output += piece
            bound.check(len(output))
            if not piece and not pending and not member.eof:
                source.more()
        source.put_back(member.unused_data)
        if source.is_over:
            return bytes(output)
        if coding != "gzip":
            raise _undecodable(coding, "something follows its end")


def _unzstd(data: bytes | memoryview, bound: _Bound) -> bytes:
    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}
    source, output = _Source(data, "zstd"), bytearray()
    while True:
        frame = zstd.ZstdDecompressor(options=options)
        while not frame.eof:
            if frame.needs_input:
                source.more()
            output += frame.decompress(source.next() if frame.needs_input else b"", _PIECE_BYTES)
            bound.check(len(output))
        source.put_back(frame.unused_data)
        if source.is_over:
            return bytes(output)


class _Source:
    """Hands out the encoded bytes in small slices: what lies behind the end of a member is copied for each member."""

    def __init__(self, data: bytes | memoryview, coding: str) -> None:
        self._view = memoryview(data)
        self._position = 0
        self._coding = coding
        self._members = 0

    @property
    def is_over(self) -> bool:
        return self._position == len(self._view)

    def next(self) -> memoryview:
        slice_ = self._view[self._position : self._position + _SLICE_BYTES]
        self._position += len(slice_)
        return slice_

    def more(self) -> None:
        """There must be a next slice."""
        if self.is_over:
            raise _undecodable(self._coding, "it is cut off")

    def put_back(self, unused: bytes) -> None:
        """A member has ended before these bytes."""
        self._position -= len(unused)
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise _undecodable(self._coding, f"it has more than {MOST_MEMBERS} members")


_DECODERS: dict[str, Callable[[bytes | memoryview, _Bound], bytes]] = {"gzip": _gzip, "deflate": _deflate, "zstd": _unzstd}


def _undecodable(coding: str, why: str) -> RequestError:
    return RequestError(ErrorCode.BAD_REQUEST, f"the request body is not {coding}, as content-encoding says: {why}")


def _unsupported(what: str) -> RequestError:
    accepted = ", ".join(ACCEPTED)
    message = f"{what}; accepted are {accepted}, and no coding at all"
    return RequestError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, headers=(("accept-encoding", accepted),))
