"""What a plan asks to be told or held: response headers, chunks, and metadata at the end."""

from __future__ import annotations

from epp.extproc.messages import HeadersAnswer, Immediate, ResponseBody, ResponseHeaders
from epp.seam import Edits, Observe, Plan
from tests.extproc.cases.vocabulary import LARGE, NO_CONTENT, ROUTED, RSP_H, RSP_SSE, RSP_T, TO_RSP_H, TO_RSP_T, rsp
from tests.extproc.transcripts import EVICTED, NATURAL, REPLIED, Case, PlainHeaders, Script, Step, routed

RESPONSE_HOOKS = (
    Case(
        "C79 empty reply to a POST, metadata on the headers' answer",
        (*ROUTED, Step(ResponseHeaders(NO_CONTENT, True), (TO_RSP_H._replace(metadata={"n": {"k": "v"}}),), (NATURAL,))),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"k": "v"}}),
    ),
    Case(
        "C84 metadata on the last piece only",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(
                ResponseBody(LARGE, True),
                (
                    rsp(LARGE[:62_000]),
                    rsp(LARGE[62_000:124_000]),
                    rsp(LARGE[124_000:], True)._replace(metadata={"n": {"cost": 10.0}}),
                ),
                (NATURAL,),
            ),
        ),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"cost": 10.0}}),
    ),
    Case(
        "metadata on the trailers' answer",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x"), (rsp(b"x"),)),
            Step(RSP_T, (TO_RSP_T._replace(metadata={"n": {"k": True}}),), (NATURAL,)),
        ),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"k": True}}),
    ),
    Case(
        "the end is held, but there is nothing to say",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,))),
        script=Script(routed(Plan(hold_end=True)), metadata={}),
    ),
    Case(
        "the handler edits response headers",
        (
            *ROUTED,
            Step(
                ResponseHeaders(
                    PlainHeaders((":status", "201"), ("x-internal", "1"), ("server", "s"), ("x-session-token", "old"))
                ),
                (
                    HeadersAnswer(
                        True,
                        (("x-went-into-resp-headers", "true"), ("x-session-token", "new")),
                        ("server", "x-internal"),
                    ),
                ),
                (("response_headers", 201),),
            ),
        ),
        script=Script(
            routed(Plan(ask_headers=True)),
            Edits((("x-session-token", "new"),), frozenset({"server", "not-there", "x-session-token"})),
        ),
        status=None,
    ),
    Case(
        "the handler's edits win over the settings",
        (*ROUTED, Step(RSP_H, (HeadersAnswer(True, (("x-went-into-resp-headers", "no"),)),), (("response_headers", 200),))),
        script=Script(routed(Plan(ask_headers=True)), Edits((("x-went-into-resp-headers", "no"),))),
        status=None,
    ),
    Case(
        "asked, but there is nothing to edit",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,), (("response_headers", 200),))),
        script=Script(routed(Plan(ask_headers=True))),
        status=None,
    ),
    Case(
        "evicted at the response headers",
        (*ROUTED, Step(RSP_H, (TO_RSP_H, Immediate(EVICTED)), (("response_headers", 200), REPLIED))),
        script=Script(routed(Plan(ask_headers=True)), at_headers=EVICTED),
    ),
    Case(
        "the first chunk of a stream is told",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"a"), (rsp(b"a"),), (("response_body", b"a", False),)),
            Step(ResponseBody(b"b"), (rsp(b"b"),)),
            Step(ResponseBody(b"", True), (rsp(b"", True),), (NATURAL,)),
        ),
        script=Script(routed(Plan(observe=Observe.FIRST))),
    ),
    Case(
        "every chunk of a stream is told, the end comes last",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"a"), (rsp(b"a"),), (("response_body", b"a", False),)),
            Step(ResponseBody(b"b", True), (rsp(b"b", True),), (("response_body", b"b", True), NATURAL)),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY))),
    ),
    Case(
        "every chunk is told, the end is held",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(
                ResponseBody(b"b", True),
                (rsp(b"b", True)._replace(metadata={"n": {"k": None}}),),
                (("response_body", b"b", True), NATURAL),
            ),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY, hold_end=True)), metadata={"n": {"k": None}}),
    ),
    Case(
        "chunks of a plain response are not told",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(ResponseBody(b"a", True), (rsp(b"a", True),), (NATURAL,))),
        script=Script(routed(Plan(observe=Observe.EVERY))),
    ),
    Case(
        "a stream that was asked for is one whatever its type",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"a", True), (rsp(b"a", True),), (("response_body", b"a", True), NATURAL)),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY, streams=True))),
    ),
)
