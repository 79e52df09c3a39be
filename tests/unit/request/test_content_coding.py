"""Bodies with a content coding: decoded within bounds, or refused with what is wrong and what is accepted."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.testing import FakeHeaders
from epp.request import content_coding
from epp.request.content_coding import ALWAYS_ALLOWED_BYTES, MAX_RATIO, MOST_MEMBERS, codings_of, decode
from tests.unit.request.encoding import raw_deflate, zstd_compress

MIB = 1024 * 1024
TEXT = b'{"model":"m","prompt":"hello"}'
NOISE = random.Random(7).randbytes(3 * MIB)
"""Does not shrink, so that several slices are read."""
CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate with the header of zlib": ("deflate", zlib.compress),
    "deflate without it": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd_compress),
}
coders = pytest.mark.parametrize(("coding", "encode"), CODERS.values(), ids=CODERS)


def refused(codings: tuple[str, ...], data: bytes, limit_bytes: int = 64 * MIB) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(codings, data, limit_bytes)
    return caught.value


@coders
@pytest.mark.parametrize("text", [TEXT, b"", NOISE], ids=["short", "empty", "several slices"])
def test_what_was_encoded_comes_back(coding: str, encode: Callable[[bytes], bytes], text: bytes) -> None:
    assert decode((coding,), memoryview(encode(text)), 64 * MIB) == text


@pytest.mark.parametrize(
    ("data", "coding"),
    [(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), "gzip"), (zstd_compress(TEXT[:9]) + zstd_compress(TEXT[9:]), "zstd")],
    ids=["members of gzip", "frames of zstd"],
)
def test_several_in_one_body_are_one(data: bytes, coding: str) -> None:
    assert decode((coding,), data, 0) == TEXT


def test_two_codings_are_undone_in_reverse() -> None:
    assert decode(("zstd", "gzip"), gzip.compress(zstd_compress(TEXT)), 0) == TEXT


@coders
def test_no_more_than_the_limit_is_written(coding: str, encode: Callable[[bytes], bytes]) -> None:
    data = encode(NOISE)
    assert decode((coding,), data, len(NOISE)) == NOISE
    error = refused((coding,), data, len(NOISE) - 1)
    assert error.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert error.message == (f"the request body decodes to more than {len(NOISE) - 1} bytes; send it without content-encoding")


@coders
def test_a_bomb_is_refused_long_before_it_is_whole(coding: str, encode: Callable[[bytes], bytes]) -> None:
    allowed = b"x" * ALWAYS_ALLOWED_BYTES
    assert decode((coding,), encode(allowed), 0) == allowed, "a little text may shrink to nothing"
    bomb = encode(bytes(70 * MIB))
    error = refused((coding,), bomb)
    assert error.code is ErrorCode.PAYLOAD_TOO_LARGE
    expected = f"more than {MAX_RATIO} times its size" if len(bomb) * MAX_RATIO < 64 * MIB else f"more than {64 * MIB} bytes"
    assert expected in error.message


def test_a_bomb_within_a_bomb() -> None:
    error = refused(("gzip", "gzip"), gzip.compress(gzip.compress(bytes(8 * MIB))))
    assert error.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_of_endless_empty_members(coding: str) -> None:
    encode = gzip.compress if coding == "gzip" else zstd_compress
    empty = encode(b"")
    assert decode((coding,), empty * MOST_MEMBERS, 0) == b""
    error = refused((coding,), empty * (MOST_MEMBERS + 1))
    assert error.code is ErrorCode.BAD_REQUEST
    assert error.message.endswith(f"it has more than {MOST_MEMBERS} members")


@coders
@pytest.mark.parametrize("text", [TEXT, NOISE], ids=["short", "several slices"])
def test_what_is_cut_off(coding: str, encode: Callable[[bytes], bytes], text: bytes) -> None:
    error = refused((coding,), encode(text)[:-3])
    assert error.code is ErrorCode.BAD_REQUEST
    assert error.message.startswith(f"the request body is not {coding}, as content-encoding says: ")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("data", [TEXT, b"", b"\0" * 100], ids=["JSON", "empty", "zeros"])
def test_what_is_not_encoded_so(coding: str, data: bytes) -> None:
    error = refused((coding,), data)
    assert error.code is ErrorCode.BAD_REQUEST
    assert error.message.startswith(f"the request body is not {coding}, as content-encoding says: ")


def test_what_follows_the_end() -> None:
    assert refused(("deflate",), zlib.compress(TEXT) + b"more").message.endswith("something follows its end")
    assert refused(("gzip",), gzip.compress(TEXT) + b"more").code is ErrorCode.BAD_REQUEST


def test_a_window_of_zstd_that_is_larger_than_the_coding_allows() -> None:
    data = zstd_compress(NOISE, window_log=24)
    assert refused(("zstd",), data).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("values", "codings"),
    [
        ((), ()),
        (("identity",), ()),
        (("",), ()),
        (("gzip",), ("gzip",)),
        ((" GZip ",), ("gzip",)),
        (("x-gzip",), ("gzip",)),
        (("deflate",), ("deflate",)),
        (("zstd",), ("zstd",)),
        (("zstd, gzip",), ("zstd", "gzip")),
        (("zstd", "gzip"), ("zstd", "gzip")),
        (("gzip, identity,",), ("gzip",)),
    ],
    ids=str,
)
def test_the_header(values: tuple[str, ...], codings: tuple[str, ...]) -> None:
    assert codings_of(FakeHeaders([("content-encoding", value) for value in values])) == codings


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("br", "content-encoding 'br' is not supported"),
        ("gzip, br", "content-encoding 'br' is not supported"),
        ("gzip;q=1", "content-encoding 'gzip;q=1' is not supported"),
        ("x" * 1000, f"content-encoding {'x' * 40!r} is not supported"),
        ("gzip, gzip, gzip", "content-encoding names 3 codings and may name 2"),
    ],
)
def test_codings_that_are_not_accepted(value: str, what: str) -> None:
    with pytest.raises(RequestError) as caught:
        codings_of(FakeHeaders({"content-encoding": value}))
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
    assert caught.value.message == f"{what}; accepted are gzip, deflate, zstd, and no coding at all"
    assert caught.value.headers == (("accept-encoding", "gzip, deflate, zstd"),)


def test_the_header_is_looked_at_once_where_there_is_none() -> None:
    class Counting(FakeHeaders):
        looked = 0

        def get(self, name: str) -> str | None:
            Counting.looked += 1
            return super().get(name)

    assert content_coding.codings_of(Counting()) == ()
    assert Counting.looked == 1
