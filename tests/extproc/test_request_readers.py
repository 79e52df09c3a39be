"""Readers of request bodies: fed while the body comes, by the machine itself where it has the reader."""

from __future__ import annotations

import pytest

from epp.extproc.messages import Mode, Opening, RequestBody, RequestHeaders, RequestTrailers
from epp.extproc.readers import REQUEST_READERS, BodyCopy
from epp.seam import BodyState, ResponseHead
from tests.extproc.transcripts import FULL_DUPLEX, SETTINGS, Bare, Case, Does, PlainHeaders, Wait

HEADERS = PlainHeaders((":path", "/v1/completions"))
COPY = SETTINGS._replace(request_readers=("copy",), max_body_bytes=10, max_buffered_bytes=8)


class Pieces:
    """A reader that no extension has: how long each piece was that it was fed, and the headers it was made with."""

    def __init__(self, head: ResponseHead) -> None:
        self.path = head.headers.get(":path")
        self.lengths: tuple[int, ...] = ()

    def feed(self, data: bytes) -> None:
        self.lengths += (len(data),)

    def result(self) -> object:
        return self.path, self.lengths


@pytest.fixture(autouse=True)
def _only_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REQUEST_READERS, "pieces", Pieces)  # type: ignore[arg-type]


BUFFERED, PARTIAL, STREAMED, GRPC = (
    Opening(mode, Mode.NONE, configured=True) for mode in (Mode.BUFFERED, Mode.BUFFERED_PARTIAL, Mode.STREAMED, Mode.GRPC)
)
BODIES = [
    pytest.param(FULL_DUPLEX, [RequestBody(b"ab"), RequestBody(b"cd", True)], BodyState.COMPLETE, b"abcd", id="complete"),
    pytest.param(FULL_DUPLEX, [RequestBody(b"ab"), RequestTrailers()], BodyState.COMPLETE, b"ab", id="ended by trailers"),
    pytest.param(BUFFERED, [RequestBody(b"ab", True)], BodyState.COMPLETE, b"ab", id="buffered"),
    pytest.param(GRPC, [RequestBody(b"ab", True)], BodyState.COMPLETE, b"ab", id="grpc"),
    pytest.param(FULL_DUPLEX, [RequestBody(b"ab"), Wait(61.0)], BodyState.TIMED_OUT, b"ab", id="what came in time"),
    pytest.param(
        FULL_DUPLEX, [RequestBody(b"ab"), RequestBody(b"x" * 9)], BodyState.TOO_LARGE, b"ab", id="what was within its limit"
    ),
    pytest.param(
        FULL_DUPLEX, [RequestBody(b"ab"), RequestBody(b"x" * 7)], BodyState.NO_MEMORY, b"ab", id="what was within the memory"
    ),
    pytest.param(PARTIAL, [RequestBody(b"ab", False)], BodyState.UNSEEN, b"ab", id="the part that was sent"),
    pytest.param(STREAMED, [], BodyState.UNSEEN, b"", id="nothing of a body not shown"),
]


def _read(make: type[Bare], names: tuple[str, ...], opening: Opening, *steps: Does) -> tuple[BodyState, tuple[object, ...]]:
    bare = make(Case("", (), opening=opening, settings=COPY._replace(request_readers=names)))
    for step in steps:
        bare.does(step)
    [request] = bare.handler.requests
    return request.body_state, request.read


@pytest.mark.parametrize(("opening", "steps", "state", "read"), BODIES)
def test_what_came_of_the_body_was_read(
    make: type[Bare], opening: Opening, steps: list[Does], state: BodyState, read: bytes
) -> None:
    """Also where the body itself is gone: it was read as it came."""
    assert _read(make, ("copy",), opening, RequestHeaders(HEADERS), *steps) == (state, (BodyCopy(read, truncated=False),))


def test_a_request_without_a_body_has_results(make: type[Bare]) -> None:
    found = _read(make, ("copy", "pieces"), FULL_DUPLEX, RequestHeaders(HEADERS, True))
    assert found == (BodyState.ABSENT, (BodyCopy(b"", truncated=False), ("/v1/completions", ())))


def test_nothing_of_a_compressed_body_is_read(make: type[Bare]) -> None:
    headers = PlainHeaders((":path", "/"), ("content-encoding", "gzip"))
    found = _read(make, ("copy", "pieces"), FULL_DUPLEX, RequestHeaders(headers), RequestBody(b"\x1f\x8b", True))
    assert found == (BodyState.COMPLETE, (BodyCopy(b"", truncated=False), ("/", ())))


def test_results_are_in_the_order_of_the_names(make: type[Bare]) -> None:
    """A reader that the extension has no twin of reads the whole body there, once that is complete."""
    steps = (RequestHeaders(HEADERS), RequestBody(b"ab"), RequestBody(b"cde", True))
    _, read = _read(make, ("pieces", "copy"), FULL_DUPLEX, *steps)
    pieces = (2, 3) if make is Bare else (5,)
    assert read == (("/v1/completions", pieces), BodyCopy(b"abcde", truncated=False))


def test_a_reader_without_twin_sees_a_lost_body_in_python_only(make: type[Bare]) -> None:
    state, read = _read(make, ("pieces",), FULL_DUPLEX, RequestHeaders(HEADERS), RequestBody(b"ab"), Wait(61.0))
    assert state is BodyState.TIMED_OUT
    assert read == (("/v1/completions", (2,) if make is Bare else ()),)
