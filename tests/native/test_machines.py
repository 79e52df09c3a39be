"""Both machines do the same with the same messages, whatever these are."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epp.extproc.messages import Invalid, Lost, Opening, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders, Status
from epp.seam import Plan, Rename
from tests.extproc.test_properties import HEADERS, OPENINGS, SCRIPTS, conversations
from tests.extproc.transcripts import SETTINGS, Bare, Case, Does, Late, PlainHeaders, Script, Wait, routed
from tests.native.bare import TwinBare

SSE = PlainHeaders((":status", "200"), ("content-type", "text/event-stream"))


def _same(case: Case, steps: list[Does]) -> None:
    """Play on both machines and compare what each step sends and calls, and all that is told at the end."""
    reference, twin = Bare(case), TwinBare(case)
    for what in steps:
        if isinstance(what, Late) and reference.handler.stream is None:
            continue
        asked = len(reference.handler.requests)
        assert twin.does(what) == reference.does(what), what
        assert twin.handler.calls == reference.handler.calls, what
        if len(reference.handler.requests) > asked:  # what comes later is seen by the reference's handler only
            assert twin.handler.requests[0].metadata == reference.handler.requests[0].metadata, what
        assert _status(twin) is _status(reference), what
        assert twin.session.deadline_s == reference.session.deadline_s, what
        assert twin.budget.used_bytes == reference.budget.used_bytes, what
    _same_requests(reference, twin)
    for expected, outcome in zip(reference.handler.outcomes, twin.handler.outcomes, strict=True):
        _same_heads(expected.head, outcome.head)
        error = expected.error.replace("garbage", "the message is not a ProcessingRequest")
        assert outcome._replace(head=None, busy_s=0.0) == expected._replace(head=None, busy_s=0.0, error=error)


def _status(bare: Bare) -> Status | None:
    return None if bare.session.closing is None else bare.session.closing.status


def _same_requests(reference: Bare, twin: Bare) -> None:
    for expected, shown in zip(reference.handler.requests, twin.handler.requests, strict=True):
        assert shown.body_state is expected.body_state
        assert shown.body == expected.body
        assert shown.at_s == expected.at_s
        assert list(shown.headers.items()) == list(expected.headers.items())


def _same_heads(expected: object, shown: object) -> None:
    assert (shown is None) == (expected is None)
    if expected is not None:
        for name in ("status", "at_s"):
            assert getattr(shown, name) == getattr(expected, name)


@settings(max_examples=1000, deadline=None)
@given(opening=OPENINGS, script=SCRIPTS, steps=conversations())
def test_any_conversation(opening: Opening, script: Script, steps: list[Does]) -> None:
    first = next((step for step in steps if not isinstance(step, Late | Wait)), Lost.CANCELLED)
    assume(not isinstance(first, Invalid | Lost))  # only a message says how the stream is opened
    _same(Case("", (), opening=opening, script=script), [*steps, Lost.CANCELLED])


BYTES = st.sampled_from(
    [b'"model"', b":", b' "served"', b'"asked"', b"data: ", b"\n\n", b"x", b'{"usage":{"prompt_tokens":3}}']
)


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.lists(BYTES, max_size=4).map(b"".join), max_size=6),
    plan=st.builds(
        Plan,
        rename=st.sampled_from([None, Rename("model", "served", "asked")]),
        readers=st.sampled_from([(), ("openai-usage", "copy"), ("anthropic-usage",)]),
        hold_end=st.booleans(),
    ),
    events=st.booleans(),
)
def test_any_response(chunks: list[bytes], plan: Plan, events: bool) -> None:
    head = SSE if events else PlainHeaders((":status", "200"), ("content-type", "application/json"))
    steps: list[Does] = [RequestHeaders(HEADERS), RequestBody(b"{}", True), ResponseHeaders(head)]
    steps += [ResponseBody(chunk) for chunk in chunks]
    _same(
        Case("", (), script=Script(routed(plan), metadata={"n": {"k": [1.5, None, {"a": True}]}})),
        [*steps, ResponseBody(b"", True)],
    )


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
ODD = st.binary(max_size=6).map(lambda data: data.decode("utf-8", "surrogateescape"))
NAMES = st.sampled_from(["x-spoof", "X-Spoof", "cookie", ":path", "x-internal", "K"])


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(st.tuples(NAMES, ODD), max_size=6))
def test_any_headers(pairs: list[tuple[str, str]]) -> None:
    steps: list[Does] = [
        RequestHeaders(PlainHeaders(*pairs)),
        RequestBody(b"", True),
        ResponseHeaders(PlainHeaders(*pairs), True),
    ]
    _same(Case("", (), settings=SETTINGS), steps)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(metadata=st.dictionaries(TEXT, st.dictionaries(TEXT, JSON, max_size=3), max_size=3))
def test_any_metadata(metadata: dict[str, dict[str, object]]) -> None:
    """In with the request, out with the route and with the last answer."""
    route = routed(Plan(hold_end=True))._replace(metadata=metadata)
    steps: list[Does] = [RequestHeaders(HEADERS, metadata=metadata), RequestBody(b"", True), ResponseHeaders(SSE, True)]
    _same(Case("", (), script=Script(route, metadata=metadata)), steps)


@pytest.mark.parametrize(
    "metadata", [{"n": {"k": object()}}, {"n": {"k": "\ud800"}}, {1: {}}], ids=["object", "surrogate", "name"]
)
def test_metadata_that_cannot_be_sent_is_an_error(metadata: dict[str, dict[str, object]]) -> None:
    bare = TwinBare(Case("", (), script=Script(routed()._replace(metadata=metadata))))
    for what in (RequestHeaders(HEADERS), RequestBody(b"", True)):
        bare.does(what)
    assert bare.session.closing is not None
    assert bare.session.closing.status.name == "INTERNAL"
