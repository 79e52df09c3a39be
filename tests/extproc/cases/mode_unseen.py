"""Bodies that never come (none, bypass), and streams that are only observed."""

from __future__ import annotations

from epp.extproc.messages import Immediate, Mode, Opening, ResponseBody, Status
from epp.seam import BodyState, Plan
from tests.extproc.cases.vocabulary import (
    BODY,
    BYPASS,
    CANCEL,
    HALF_CLOSE,
    NONE,
    REQ_B_END,
    REQ_H,
    ROUTED,
    RSP_H,
    RSP_T,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    modes,
    req,
)
from tests.extproc.transcripts import EVICTED, NATURAL, REPLIED, UNSEEN_END, Case, Late, Script, Step, asked, routed

MODE_UNSEEN = (
    Case(
        "C103 no bodies",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(HALF_CLOSE, (), (UNSEEN_END,)),
        ),
        opening=NONE,
    ),
    Case(
        "C104 bypass: open until the response is over",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(HALF_CLOSE, (), (UNSEEN_END,))),
        opening=BYPASS,
    ),
    Case(
        "bypass, cancelled at the end",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(CANCEL, (), (UNSEEN_END,))),
        Status.CANCELLED,
        BYPASS,
    ),
    Case("bypass without response headers", (*ROUTED, Step(HALF_CLOSE, (), (UNSEEN_END,))), Status.OK, BYPASS),
    Case(
        "bypass, the upstream sends trailers",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(RSP_T, (TO_RSP_T,), (NATURAL,))),
        opening=BYPASS,
    ),
    Case(
        "bypass, evicted",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(Late(EVICTED), (Immediate(EVICTED),), (REPLIED,))),
        opening=BYPASS,
    ),
    Case(
        "C105 observed: nothing is answered, nobody is told",
        (Step(REQ_H), Step(REQ_B_END), Step(RSP_H), Step(ResponseBody(b"x", True)), Step(HALF_CLOSE)),
        opening=Opening(observed=True, configured=True),
    ),
    Case(
        "C97 skipped: closed once the request is answered",
        (Step(REQ_H), Step(REQ_B_END, (TO_PICKED, req(BODY, True)), (asked(BODY), UNSEEN_END))),
        opening=modes(Mode.FULL_DUPLEX, Mode.NONE),
        script=Script(routed(Plan(skip=True))),
    ),
)
