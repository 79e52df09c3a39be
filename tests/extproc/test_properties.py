"""What holds for any order of messages, any cuts, any handler."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Invalid,
    Lost,
    Mode,
    Opening,
    Outgoing,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Status,
    StreamedBody,
    TrailersAnswer,
)
from epp.seam import Edits, Observe, Plan, Route
from tests.extproc.machines import MACHINES
from tests.extproc.transcripts import (
    EVICTED,
    REFUSED,
    Bare,
    Case,
    Does,
    Late,
    PlainHeaders,
    Script,
    Wait,
    routed,
)

MAX_PIECE = 62_000

MACHINE = pytest.mark.parametrize("make", MACHINES.values(), ids=list(MACHINES))

HEADERS = PlainHeaders((":path", "/v1/completions"), ("x-spoof", "1"))
HEADS = st.sampled_from(
    [
        PlainHeaders((":status", "200"), ("content-type", "application/json")),
        PlainHeaders((":status", "200"), ("content-type", "text/event-stream")),
        PlainHeaders(),
    ]
)
DATA = st.sampled_from([b"", b"x", b'{"model":"m"}', b"y" * 70_000])
PLANS = st.builds(
    Plan,
    ask_headers=st.booleans(),
    observe=st.sampled_from(Observe),
    hold_end=st.booleans(),
    streams=st.booleans(),
    skip=st.booleans(),
    readers=st.sampled_from([(), ("copy",)]),
)
ROUTES = st.builds(routed, PLANS)
ANSWERS = st.one_of(ROUTES, st.just(REFUSED), st.just(EVICTED))
SCRIPTS = st.builds(
    Script,
    answer=st.one_of(st.none(), ANSWERS, ROUTES, ROUTES),
    edits=st.sampled_from([None, Edits((("a", "b"),))]),
    at_headers=st.sampled_from([None, EVICTED]),
    metadata=st.sampled_from([None, {"n": {"k": "v"}}]),
)
OPENINGS = st.builds(
    Opening,
    st.sampled_from(Mode),
    st.sampled_from(Mode),
    configured=st.just(True),
    observed=st.sampled_from([False] * 9 + [True]),
) | st.just(Opening())
METADATA = st.sampled_from([None, {"n": {"k": "v"}}])
MESSAGES: st.SearchStrategy[Does] = st.one_of(
    st.builds(RequestHeaders, st.just(HEADERS), st.booleans(), METADATA),
    st.builds(RequestBody, DATA, st.booleans(), METADATA, st.booleans(), st.just(value=False)),
    st.builds(RequestTrailers, METADATA),
    st.builds(ResponseHeaders, HEADS, st.booleans(), st.none()),
    st.builds(ResponseBody, DATA, st.booleans(), st.booleans(), st.just(value=False)),
    st.just(ResponseTrailers()),
    st.builds(Late, ANSWERS),
    st.just(Wait(100.0)),
    st.just(Invalid("garbage")),
    st.sampled_from(Lost),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Does]:
    """Mostly what a data plane does, with anything in between, cut anywhere; in the end it leaves."""
    usual: list[Does] = [
        RequestHeaders(HEADERS),
        RequestBody(draw(DATA)),
        RequestBody(draw(DATA), True),
        ResponseHeaders(draw(HEADS)),
        ResponseBody(draw(DATA)),
        ResponseBody(draw(DATA), True),
    ]
    steps = usual[draw(st.integers(0, 4)) :] if draw(st.integers(0, 9)) == 0 else usual
    for _ in range(draw(st.integers(0, 4))):
        steps.insert(draw(st.integers(0, len(steps))), draw(MESSAGES))
    for _ in range(draw(st.integers(0, 2))):
        steps.pop(draw(st.integers(0, len(steps) - 1)))
    if draw(st.booleans()):
        del steps[draw(st.integers(0, len(steps))) :]
    return [*steps, draw(st.sampled_from(Lost)), Lost.CANCELLED]


def _can_be_done(bare: Bare, what: Does) -> bool:
    return not isinstance(what, Late) or bare.handler.stream is not None


@MACHINE
@settings(max_examples=400, deadline=None)
@given(opening=OPENINGS, script=SCRIPTS, steps=conversations())
def test_any_conversation_keeps_the_rules(make: type[Bare], opening: Opening, script: Script, steps: list[Does]) -> None:
    bare = make(Case("", (), opening=opening, script=script))
    sent: list[Outgoing] = []
    done: list[Does] = []
    for what in steps:
        if not _can_be_done(bare, what):
            continue
        closed_before = bare.session.closing
        new = bare.does(what)
        assert not (closed_before and new), "sent after the close"
        assert bare.session.closing is closed_before or closed_before is None
        if closed_before is None:
            done.append(what)
        sent += new
        if bare.session.closing is not None and closed_before is None and bare.session.closing.status is Status.OK:
            assert _may_close_cleanly(bare, opening, done, sent)
    assert bare.session.closing is not None
    _check_calls(bare)
    _check_order(sent)
    assert bare.budget.used_bytes == 0
    if opening.observed:
        assert not sent


def _check_calls(bare: Bare) -> None:
    """Once asked, once finished, and finished is last; the order of the calls is kept."""
    names = [call[0] for call in bare.handler.calls]
    assert names.count("request") == names.count("finished") <= 1
    assert names.count("response_headers") <= 1
    if names:
        assert names[0] == "request"
        assert names[-1] == "finished"
        order = [name for name in names if name != "response_body"]
        assert order in (["request", "finished"], ["request", "response_headers", "finished"])


def _check_order(sent: list[Outgoing]) -> None:
    """Per direction headers, bodies, trailers; nothing after a reply; pieces are legal; the end flag comes once."""
    ranks = {HeadersAnswer: 0, BodyAnswer: 1, StreamedBody: 1, TrailersAnswer: 2}
    if any(isinstance(answer, Immediate) for answer in sent):
        assert [isinstance(answer, Immediate) for answer in sent].index(True) == len(sent) - 1
    for response in (False, True):
        side = [answer for answer in sent if not isinstance(answer, Immediate) and answer.response is response]
        assert [ranks[type(answer)] for answer in side] == sorted(ranks[type(answer)] for answer in side)
        assert sum(isinstance(answer, HeadersAnswer) for answer in side) <= 1
        pieces = [answer for answer in side if isinstance(answer, StreamedBody)]
        assert not any(piece.end for piece in pieces[:-1])


def _may_close_cleanly(bare: Bare, opening: Opening, done: list[Does], sent: list[Outgoing]) -> bool:
    """Whether the data plane has got all it expects: written without a look at the machine's own state."""
    last = done[-1]
    if any(isinstance(answer, Immediate) for answer in sent):
        return True
    response = [what for what in done if isinstance(what, ResponseHeaders | ResponseBody | ResponseTrailers)]
    request = [what for what in done if isinstance(what, RequestHeaders | RequestBody | RequestTrailers)]
    if not request and not response:
        return last is Lost.HALF_CLOSED
    if opening.observed:
        return last is Lost.HALF_CLOSED
    whole = opening.response_mode is Mode.BUFFERED and any(isinstance(what, ResponseBody) for what in response)
    ended = whole or any(isinstance(what, ResponseTrailers) or what.end for what in response)
    if ended:
        if opening.request_mode is Mode.STREAMED and request and not _overtaken(sent):
            assert any(isinstance(what, RequestTrailers) or what.end for what in request), "the request is still coming"
        return any(not isinstance(answer, Immediate) and answer.response for answer in sent)
    if not any(isinstance(answer, HeadersAnswer | BodyAnswer) and not answer.response and answer.set for answer in sent):
        return False  # nobody routed it: a clean close would forward it as it came
    if not opening.configured:
        return True
    answer = bare.handler.script.answer
    answers = [answer, *(what.answer for what in done if isinstance(what, Late))]
    duplex = opening.response_mode in (Mode.FULL_DUPLEX, Mode.GRPC)
    skipped = not duplex and any(isinstance(answer, Route) and answer.plan.skip for answer in answers)
    unseen = opening.response_mode in (Mode.NONE, Mode.BUFFERED_PARTIAL)
    return skipped or (unseen and last is Lost.HALF_CLOSED)


def _overtaken(sent: list[Outgoing]) -> bool:
    """The response began before anything was routed, so that the request is over whatever came of it."""
    return not any(isinstance(answer, HeadersAnswer) and not answer.response and answer.set for answer in sent)


def _cuts(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(data)) for place in at})
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


@MACHINE
@settings(max_examples=150, deadline=None)
@given(
    size=st.sampled_from([0, 1, 61_999, 62_000, 62_001, 124_000, 150_025]),
    cuts=st.lists(st.integers(0, 150_025), max_size=6),
    trailers=st.booleans(),
    empty_end=st.booleans(),
)
def test_cuts_of_a_body_change_nothing(make: type[Bare], size: int, cuts: list[int], trailers: bool, empty_end: bool) -> None:
    data = bytes(index % 251 for index in range(size))
    bare = make(Case("", ()))
    sent: list[Outgoing] = [*bare.does(RequestHeaders(HEADERS))]
    chunks = _cuts(data, cuts) + ([b""] if empty_end else [])
    for index, chunk in enumerate(chunks):
        sent += bare.does(RequestBody(chunk, end=index == len(chunks) - 1 and not trailers))
    if trailers:
        sent += bare.does(RequestTrailers())
    _check_body(sent, data, ends=not trailers)
    assert bytes(bare.handler.requests[0].body) == data
    sent = [*bare.does(ResponseHeaders(PlainHeaders((":status", "200"))))]
    for index, chunk in enumerate(chunks):
        sent += bare.does(ResponseBody(chunk, end=index == len(chunks) - 1 and not trailers))
    if trailers:
        sent += bare.does(ResponseTrailers())
    _check_body(sent, data, ends=not trailers, empty_needed=not trailers)
    outcome = bare.handler.outcomes[0]
    assert outcome.size_bytes == size
    assert outcome.chunks == sum(bool(chunk) for chunk in chunks)


def _check_body(sent: list[Outgoing], data: bytes, ends: bool, empty_needed: bool = True) -> None:
    pieces = [answer for answer in sent if isinstance(answer, StreamedBody)]
    assert b"".join(piece.data for piece in pieces) == data
    assert all(len(piece.data) <= MAX_PIECE for piece in pieces)
    if empty_needed or data:
        assert [piece.end for piece in pieces] == [False] * (len(pieces) - 1) + [ends]


@MACHINE
@settings(max_examples=100, deadline=None)
@given(
    body=st.binary(max_size=40),
    spans=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.binary(max_size=5)), max_size=4),
)
def test_splices_are_applied_or_the_stream_is_aborted(
    make: type[Bare], body: bytes, spans: list[tuple[int, int, bytes]]
) -> None:
    bare = make(Case("", (), script=Script(routed(splices=tuple(spans)))))
    bare.does(RequestHeaders(HEADERS))
    sent = bare.does(RequestBody(body, True))
    legal = all(start <= stop <= len(body) for start, stop, _ in spans)
    legal = legal and all(before[1] <= after[0] for before, after in pairwise(spans))
    if not legal:
        assert bare.session.closing is not None
        assert bare.session.closing.status is Status.INTERNAL
        assert not sent
        return
    expected = body
    for start, stop, new in reversed(spans):
        expected = expected[:start] + new + expected[stop:]
    assert b"".join(answer.data for answer in sent if isinstance(answer, StreamedBody)) == expected
