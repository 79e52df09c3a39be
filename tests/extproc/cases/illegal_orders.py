"""Message orders that the protocol forbids."""

from __future__ import annotations

from epp.extproc.messages import Invalid, ResponseBody, Status
from epp.seam import BodyState
from tests.extproc.cases.vocabulary import (
    PASS_REQ_T,
    REQ_B_END,
    REQ_H,
    REQ_T,
    ROUTED,
    RSP_H,
    RSP_T,
    STREAMED,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    rsp,
)
from tests.extproc.transcripts import FAILED, NATURAL, Case, Step, asked


def _illegal(name: str, *steps: Step) -> Case:
    return Case(f"illegal: {name}", steps, Status.INVALID_ARGUMENT)


ILLEGAL_ORDERS = (
    _illegal("request headers twice", Step(REQ_H), Step(REQ_H)),
    _illegal("request headers after the route", *ROUTED, Step(REQ_H, (), (FAILED,))),
    _illegal("request headers after the response began", Step(RSP_H, (TO_RSP_H,)), Step(REQ_H)),
    _illegal("request body first", Step(REQ_B_END)),
    _illegal("request trailers first", Step(REQ_T)),
    _illegal("request trailers twice", *ROUTED, Step(REQ_T, (PASS_REQ_T,)), Step(REQ_T, (), (FAILED,))),
    _illegal("response headers twice", *ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(RSP_H, (), (FAILED,))),
    _illegal("response headers after the body", *ROUTED, Step(ResponseBody(b"x"), (rsp(b"x"),)), Step(RSP_H, (), (FAILED,))),
    _illegal("not understood, first", Step(Invalid("garbage"))),
    _illegal("not understood, after the route", *ROUTED, Step(Invalid("garbage"), (), (FAILED,))),
    Case(
        "illegal: response trailers twice",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RSP_T, (TO_RSP_T,), (NATURAL,)),
            Step(RSP_T),
        ),
        Status.INVALID_ARGUMENT,
        STREAMED,
    ),
)
