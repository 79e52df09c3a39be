"""Replies that cut a stream short: our evictions, and the data plane's own replies."""

from __future__ import annotations

from epp.extproc.messages import Immediate, RequestBody, ResponseBody, ResponseHeaders, Status
from epp.seam import BodyState
from tests.extproc.cases.vocabulary import (
    BODY,
    BUFFERED,
    HALF_CLOSE,
    PASS_RSP_B,
    REQ_B_END,
    REQ_H,
    REQ_H_END,
    ROUTED,
    RSP_H,
    RSP_SSE,
    RSP_T,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    rsp,
)
from tests.extproc.transcripts import (
    DISCONNECTED,
    EVICTED,
    NATURAL,
    REPLIED,
    Case,
    Late,
    PlainHeaders,
    Script,
    Step,
    asked,
    routed,
)

INTERRUPTING_REPLIES = (
    Case(
        "C94 evicted before the response",
        (*ROUTED, Step(Late(EVICTED), (Immediate(EVICTED),), (REPLIED,))),
    ),
    Case(
        "evicted in the middle of a stream",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"x"), (rsp(b"x"),)),
            Step(Late(EVICTED), (Immediate(EVICTED),), (REPLIED,)),
            Step(Late(EVICTED)),
        ),
    ),
    Case(
        "C95 evicted after the response",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,)),
            Step(Late(EVICTED)),
        ),
    ),
    Case(
        "C95 evicted between a buffered response and its trailers",
        (
            Step(REQ_H_END, (TO_PICKED,), (asked(state=BodyState.ABSENT),)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"whole"), (PASS_RSP_B,), (NATURAL,)),
            Step(Late(EVICTED)),
            Step(RSP_T, (TO_RSP_T,)),
        ),
        None,
        BUFFERED,
    ),
    Case(
        "the data plane's own 408 while the body comes: passed on, the handler never asked",
        (
            Step(REQ_H),
            Step(RequestBody(b"x")),
            Step(
                ResponseHeaders(PlainHeaders((":status", "408"), ("x-internal", "1"))),
                (TO_RSP_H._replace(remove=("x-internal",)),),
            ),
            Step(RequestBody(b"y", True)),
            Step(ResponseBody(b"timeout", True), (rsp(b"timeout", True),)),
        ),
    ),
    Case(
        "the data plane's own 413 while deciding: the decision is withdrawn",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(ResponseHeaders(PlainHeaders((":status", "413"))), (TO_RSP_H,), (DISCONNECTED,)),
            Step(Late(routed())),
            Step(ResponseBody(b"too large", True), (rsp(b"too large", True),)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "the data plane's own reply without a body while deciding",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(ResponseHeaders(PlainHeaders((":status", "503")), True), (TO_RSP_H,), (DISCONNECTED,)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "gone in the middle of the data plane's own reply",
        (Step(REQ_H), Step(RSP_H, (TO_RSP_H,)), Step(HALF_CLOSE)),
        Status.CANCELLED,
    ),
)
