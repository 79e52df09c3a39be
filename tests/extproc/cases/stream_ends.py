"""Streams that end: the client leaves, the data plane half-closes or cancels, a send fails."""

from __future__ import annotations

from epp.extproc.messages import Immediate, RequestBody, RequestHeaders, ResponseBody, Status
from tests.extproc.cases.vocabulary import (
    BODY,
    BYPASS,
    CANCEL,
    HALF_CLOSE,
    NO_CONFIG,
    REQ_B_END,
    REQ_H,
    ROUTED,
    RSP_H,
    RSP_SSE,
    RSP_T,
    SEND_FAILED,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    req,
    rsp,
)
from tests.extproc.transcripts import (
    DISCONNECTED,
    NATURAL,
    REFUSED,
    REPLIED,
    UNSEEN_END,
    Case,
    Late,
    PlainHeaders,
    Script,
    Step,
    asked,
    routed,
)

STREAM_ENDS = (
    Case(
        "C90 after the response the data plane half-closes",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,)),
            Step(HALF_CLOSE),
        ),
    ),
    Case(
        "C90 after the response the data plane cancels",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,)), Step(CANCEL)),
    ),
    Case("C91 cancelled before the response", (*ROUTED, Step(CANCEL, (), (DISCONNECTED,))), Status.CANCELLED),
    Case("C91 half-closed before the response", (*ROUTED, Step(HALF_CLOSE, (), (DISCONNECTED,))), Status.CANCELLED),
    Case(
        "C92 cancelled in the middle of a stream",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"data: 1\n\n"), (rsp(b"data: 1\n\n"),)),
            Step(CANCEL, (), (DISCONNECTED,)),
        ),
        Status.CANCELLED,
    ),
    Case(
        "half-closed in the middle of a response, no protocol_config",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(HALF_CLOSE, (), (DISCONNECTED,))),
        Status.CANCELLED,
        NO_CONFIG,
    ),
    Case("C93 cancelled while the body comes", (Step(REQ_H), Step(RequestBody(b"x")), Step(CANCEL)), Status.CANCELLED),
    Case("C93 half-closed while the body comes", (Step(REQ_H), Step(RequestBody(b"x")), Step(HALF_CLOSE)), Status.CANCELLED),
    Case(
        "half-closed while the body comes, no protocol_config",
        (Step(REQ_H), Step(RequestBody(b"x")), Step(HALF_CLOSE)),
        Status.CANCELLED,
        NO_CONFIG,
    ),
    Case(
        "C93 cancelled while deciding",
        (Step(REQ_H), Step(REQ_B_END, (), (asked(BODY),)), Step(CANCEL, (), (DISCONNECTED,)), Step(Late(routed()))),
        Status.CANCELLED,
        script=Script(answer=None),
    ),
    Case(
        "C93 half-closed while deciding",
        (Step(REQ_H), Step(REQ_B_END, (), (asked(BODY),)), Step(HALF_CLOSE, (), (DISCONNECTED,)), Step(Late(routed()))),
        Status.CANCELLED,
        script=Script(answer=None),
    ),
    Case(
        "C96 half-closed at once, no protocol_config: the answer is finished, then closed",
        (
            Step(RequestHeaders(PlainHeaders(("Content-Type", "application/json"), ("X-Spoof", "1")))),
            Step(REQ_B_END, (TO_PICKED, req(BODY, True)), (asked(BODY),)),
            Step(HALF_CLOSE, (), (UNSEEN_END,)),
        ),
        opening=NO_CONFIG,
    ),
    Case(
        "C96 half-closed while deciding, no protocol_config",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(HALF_CLOSE),
            Step(Late(routed()), (TO_PICKED, req(BODY, True)), (UNSEEN_END,)),
        ),
        opening=NO_CONFIG,
        script=Script(answer=None),
    ),
    Case(
        "C96 refused after the half-close, no protocol_config",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(HALF_CLOSE),
            Step(Late(REFUSED), (Immediate(REFUSED),), (REPLIED,)),
        ),
        opening=NO_CONFIG,
        script=Script(answer=None),
    ),
    Case(
        "C96 half-closed, then cancelled, no protocol_config",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(HALF_CLOSE),
            Step(CANCEL, (), (DISCONNECTED,)),
        ),
        Status.CANCELLED,
        NO_CONFIG,
        Script(answer=None),
    ),
    Case(
        "cancelled after the answer, no protocol_config",
        (*ROUTED, Step(CANCEL, (), (UNSEEN_END,))),
        Status.CANCELLED,
        NO_CONFIG,
    ),
    Case(
        "C98 body after the trailers",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(RSP_T, (TO_RSP_T,), (NATURAL,)), Step(ResponseBody(b"late"))),
        wire=False,
    ),
    Case(
        "C100 a send fails",
        (*ROUTED, Step(SEND_FAILED, (), (DISCONNECTED,)), Step(CANCEL)),
        Status.CANCELLED,
        wire=False,
    ),
    Case(
        "a send fails in bypass",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(SEND_FAILED, (), (DISCONNECTED,))),
        Status.CANCELLED,
        BYPASS,
        wire=False,
    ),
    Case("nothing but a half-close", (Step(HALF_CLOSE),)),
)
