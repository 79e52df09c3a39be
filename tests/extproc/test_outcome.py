"""What a finished stream tells: counts, times, readers; and what a request shows."""

from __future__ import annotations

import pytest

from epp.extproc.body import Body, Budget, Frame, pieces, splice, splice_frames
from epp.extproc.messages import Lost, Mode, Opening, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders, Status
from epp.extproc.readers import BodyCopy
from epp.seam import BodyState, Edits, End, Outcome, Plan
from tests.extproc.transcripts import SETTINGS, Bare, Case, PlainHeaders, Script, routed

HEADERS = PlainHeaders((":path", "/v1/chat/completions"))
SSE = PlainHeaders((":status", "200"), ("content-type", "text/event-stream"))


def _stream(make: type[Bare], plan: Plan, chunks: list[tuple[float, bytes]], headers: PlainHeaders = SSE) -> Outcome:
    """Chunks with the pause before each; the last one ends the response."""
    bare = make(Case("", (), script=Script(routed(plan))))
    bare.does(RequestHeaders(HEADERS))
    bare.does(RequestBody(b"{}", True))
    bare.does(ResponseHeaders(headers))
    for index, (pause_s, data) in enumerate(chunks):
        bare.now += pause_s - 0.001
        bare.does(ResponseBody(data, index == len(chunks) - 1))
    return bare.handler.outcomes[0]


def test_a_stream_counts_chunks_bytes_and_gaps(make: type[Bare]) -> None:
    outcome = _stream(make, Plan(), [(1.0, b"aa"), (0.5, b"b"), (0.25, b""), (0.5, b"c"), (3.0, b"d"), (1.0, b"")])
    assert outcome.streaming
    assert (outcome.chunks, outcome.size_bytes) == (4, 5)
    assert outcome.gaps == (1, 1, 1), "0.5 s is within the first bound; 0.75 s; 3 s is above all"
    assert outcome.gaps_s == pytest.approx(4.25)
    assert outcome.first_s is not None
    assert outcome.last_s is not None
    assert outcome.last_s - outcome.first_s == pytest.approx(4.25)
    assert outcome.end_s - outcome.last_s == pytest.approx(1.0)
    assert outcome.head is not None
    assert outcome.head.status == 200
    assert outcome.head.at_s == pytest.approx(outcome.first_s - 1.0)


def test_a_plain_response_has_no_gaps(make: type[Bare]) -> None:
    outcome = _stream(make, Plan(), [(1.0, b"aa"), (1.0, b"b")], PlainHeaders((":status", "200")))
    assert not outcome.streaming
    assert (outcome.gaps, outcome.gaps_s, outcome.chunks) == ((), 0.0, 2)


def test_one_chunk_has_no_gaps(make: type[Bare]) -> None:
    assert _stream(make, Plan(), [(1.0, b"aa")]).gaps == ()


def test_readers_are_fed_and_their_results_keep_the_order(make: type[Bare]) -> None:
    outcome = _stream(make, Plan(readers=("openai-usage", "copy")), [(0.1, b"data: 1\n\n"), (0.1, b"data: [DONE]\n\n")])
    assert len(outcome.read) == 2
    assert outcome.read[1] == BodyCopy(b"data: 1\n\ndata: [DONE]\n\n", truncated=False)


def test_readers_get_nothing_of_a_compressed_body(make: type[Bare]) -> None:
    headers = PlainHeaders(("content-encoding", "gzip"))
    assert _stream(make, Plan(readers=("copy",)), [(0.1, b"\x1f\x8b")], headers).read == (BodyCopy(b"", truncated=False),)


@pytest.mark.parametrize(
    ("pieces", "limit", "state", "read"),
    [
        pytest.param([b"ab", b"cd"], 100, BodyState.COMPLETE, b"abcd", id="in pieces"),
        pytest.param([b""], 100, BodyState.COMPLETE, b"", id="empty"),
        pytest.param([b"ab", b"cdef"], 4, BodyState.TOO_LARGE, b"ab", id="up to the piece that was too much"),
    ],
)
def test_request_readers_see_the_request_body(
    make: type[Bare], pieces: list[bytes], limit: int, state: BodyState, read: bytes
) -> None:
    bare = make(Case("", (), settings=SETTINGS._replace(request_readers=("copy",), max_body_bytes=limit)))
    bare.does(RequestHeaders(HEADERS))
    for piece in pieces:
        bare.does(RequestBody(piece, piece is pieces[-1]))
    [shown] = bare.handler.requests
    assert (shown.body_state, shown.read) == (state, (BodyCopy(read, truncated=False),))


def test_request_readers_have_results_without_a_body(make: type[Bare]) -> None:
    bare = make(Case("", (), settings=SETTINGS._replace(request_readers=("copy",))))
    bare.does(RequestHeaders(HEADERS, end=True))
    assert bare.handler.requests[0].read == (BodyCopy(b"", truncated=False),)


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        pytest.param([(":status", "204")], 204, id="pseudo header"),
        pytest.param([("status", "503")], 503, id="without colon"),
        pytest.param([], 0, id="none"),
        pytest.param([(":status", "abc")], 0, id="no number"),
        pytest.param([(":status", "²")], 0, id="a digit of another alphabet"),
    ],
)
def test_status(make: type[Bare], pairs: list[tuple[str, str]], status: int) -> None:
    outcome = _stream(make, Plan(), [(0.1, b"x")], PlainHeaders(*pairs))
    assert outcome.head is not None
    assert outcome.head.status == status


def test_the_last_metadata_that_is_not_empty_counts(make: type[Bare]) -> None:
    bare = make(Case("", ()))
    bare.does(RequestHeaders(HEADERS, metadata={"n": {"k": 1}}))
    bare.does(RequestBody(b"a", metadata={"n": {"k": 2}}))
    bare.does(RequestBody(b"b", True))
    assert bare.handler.requests[0].metadata == {"n": {"k": 2}}
    assert bare.handler.requests[0].at_s == pytest.approx(1000.001)


def test_a_single_chunk_is_not_copied() -> None:
    bare = Bare(Case("", ()))
    data = b"x" * 1000
    bare.does(RequestHeaders(HEADERS))
    sent = bare.does(RequestBody(data, True))
    assert bare.handler.requests[0].body.obj is data
    assert sent[1].data.obj is data  # type: ignore[union-attr]


def test_failed_outcome_says_why(make: type[Bare]) -> None:
    bare = make(Case("", ()))
    bare.does(RequestHeaders(HEADERS))
    bare.does(RequestBody(b"", True))
    bare.session.abort(Status.UNAVAILABLE, "server is stopping", bare.now)
    assert bare.handler.outcomes[0].end is End.FAILED
    assert bare.handler.outcomes[0].error == "server is stopping"
    assert bare.session.closing is not None
    assert bare.session.closing.status is Status.UNAVAILABLE


def test_abort_after_everything_was_said_is_a_clean_close(make: type[Bare]) -> None:
    bare = make(Case("", (), opening=Opening(Mode.BUFFERED, Mode.BUFFERED, configured=True)))
    for message in (
        RequestHeaders(HEADERS),
        RequestBody(b""),
        ResponseHeaders(SSE),
        ResponseBody(b"x"),  # trailers may follow, so the stream is still open
    ):
        bare.does(message)
    bare.session.abort(Status.UNAVAILABLE, "server is stopping", bare.now)
    assert bare.session.closing is not None
    assert bare.session.closing.status is Status.OK
    assert [outcome.end for outcome in bare.handler.outcomes] == [End.NATURAL]


class _Broken:
    """A handler whose named method raises."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.method:
            raise RuntimeError(name)

    def request(self, stream: object, request: object) -> None:
        self._call("request")
        stream.answer(routed(Plan(ask_headers=True, hold_end=True)))  # type: ignore[attr-defined]

    def response_headers(self, stream: object, head: object) -> Edits | None:
        self._call("response_headers")
        return None

    def response_body(self, stream: object, chunks: object) -> None:
        self._call("response_body")

    def finished(self, stream: object, outcome: object) -> None:
        self._call("finished")


@pytest.mark.parametrize("method", ["request", "response_headers", "finished"])
def test_a_handler_that_raises_ends_its_stream_with_an_error(
    make: type[Bare], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    bare = make(Case("", ()))
    broken = _Broken(method)
    bare.session._handler = broken
    for message in (RequestHeaders(HEADERS), RequestBody(b"", True), ResponseHeaders(SSE), ResponseBody(b"", True)):
        bare.does(message)
    assert bare.session.closing is not None
    assert bare.session.closing.status is Status.INTERNAL
    assert broken.calls.count("finished") == 1
    assert broken.calls[-1] == "finished"
    assert "defect" in caplog.text


def test_budget_is_shared_and_given_back() -> None:
    budget = Budget(10)
    first, second = Body(budget, 0), Body(budget, 0)
    assert first.add(b"123456") is None
    assert second.add(b"12345") is BodyState.NO_MEMORY
    assert budget.used_bytes == 6
    first.release()
    first.release()
    assert budget.used_bytes == 0
    assert second.add(b"1234567890") is None


def test_the_memory_of_a_body_is_given_back_when_it_was_forwarded(make: type[Bare]) -> None:
    bare = make(Case("", (), script=Script(answer=None)))
    bare.does(RequestHeaders(HEADERS))
    bare.does(RequestBody(b"x" * 100, True))
    assert bare.budget.used_bytes == 100
    bare.does(Lost.CANCELLED)
    assert bare.budget.used_bytes == 0


def test_pieces_of_a_large_body_share_its_memory() -> None:
    data = bytes(130_000)
    parts = pieces(data)
    assert [len(part) for part in parts] == [62_000, 62_000, 6_000]
    assert all(isinstance(part, memoryview) and part.obj is data for part in parts)


def test_no_splices_return_the_same_body() -> None:
    body = memoryview(b"abc")
    assert splice(body, ()) is body


def test_splices_across_grpc_messages_are_refused() -> None:
    frames = [Frame(0, 3, False, False, False), Frame(3, 6, True, False, False)]
    with pytest.raises(ValueError, match="1 of 1 splices are not within one gRPC message"):
        list(splice_frames(memoryview(b"abcdef"), frames, ((2, 4, b"x"),)))
