"""What the handler answers to a request: header edits, refusals, and answers that come late or twice."""

from __future__ import annotations

from epp.extproc.messages import HeadersAnswer, Immediate, RequestHeaders, ResponseBody
from epp.seam import BodyState, Edits
from tests.extproc.cases.vocabulary import BODY, REQ_B_END, REQ_H, REQ_H_END, ROUTED, RSP_H, TO_PICKED, TO_RSP_H, req, rsp
from tests.extproc.transcripts import (
    DESTINATION,
    NATURAL,
    PICKED,
    PICKED_METADATA,
    REFUSED,
    REPLIED,
    Case,
    Late,
    PlainHeaders,
    Script,
    Step,
    asked,
    routed,
)

REQUEST_ANSWERS = (
    Case(
        "C26 duplicates are neither set nor removed; control headers that came are removed, others are not",
        (
            Step(
                RequestHeaders(
                    PlainHeaders(("x-multi", "a"), ("x-multi", "b"), ("cookie", "1"), ("cookie", "2"), ("x-own", "v")), True
                ),
                (HeadersAnswer(False, ((DESTINATION, PICKED), ("k", "v")), ("x-own",), True, PICKED_METADATA),),
                (asked(state=BodyState.ABSENT),),
            ),
        ),
        script=Script(routed(headers=Edits((("k", "v"),), frozenset({"x-own", "x-not-there", "k"})))),
        status=None,
    ),
    Case(
        "a header that is set wins over its removal",
        (
            Step(
                REQ_H_END,
                (HeadersAnswer(False, ((DESTINATION, PICKED), ("x-spoof", "ours")), (), True, PICKED_METADATA),),
                (asked(state=BodyState.ABSENT),),
            ),
        ),
        script=Script(routed(headers=Edits((("x-spoof", "ours"),), frozenset({"x-spoof"})))),
        status=None,
    ),
    Case(
        "refused",
        (Step(REQ_H), Step(REQ_B_END, (Immediate(REFUSED),), (asked(BODY), REPLIED))),
        script=Script(REFUSED),
    ),
    Case(
        "refused at the headers",
        (Step(REQ_H_END, (Immediate(REFUSED),), (asked(state=BodyState.ABSENT), REPLIED)),),
        script=Script(REFUSED),
    ),
    Case(
        "the answer comes later",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(Late(routed()), (TO_PICKED, req(BODY, True))),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"ok", True), (rsp(b"ok", True),), (NATURAL,)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "the refusal comes later",
        (Step(REQ_H), Step(REQ_B_END, (), (asked(BODY),)), Step(Late(REFUSED), (Immediate(REFUSED),), (REPLIED,))),
        script=Script(answer=None),
    ),
    Case(
        "a second route is dropped",
        (*ROUTED, Step(Late(routed())), Step(RSP_H, (TO_RSP_H,))),
        status=None,
    ),
)
