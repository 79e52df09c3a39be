"""Model names in responses: renamed to the client's, also across chunks."""

from __future__ import annotations

from epp.extproc.messages import RequestBody, ResponseBody, ResponseHeaders
from epp.seam import BodyState, Plan, Rename
from tests.extproc.cases.vocabulary import (
    PASS_REQ_B,
    PASS_RSP_B,
    REQ_H,
    ROUTED,
    RSP_H,
    RSP_T,
    STREAMED,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    rsp,
)
from tests.extproc.transcripts import NATURAL, Case, PlainHeaders, Script, Step, asked, routed

RESPONSE_NAMES = (
    Case(
        "C76 renamed across chunks; only the tail that may begin the member is held back",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b'{"id":1,"model":"ser'), (rsp(b'{"id":1,'),)),
            Step(ResponseBody(b'ved","x":2'), (rsp(b'"model":"asked","x":2'),)),
            Step(ResponseBody(b"}", True), (rsp(b"}", True),), (NATURAL,)),
        ),
        script=Script(routed(Plan(rename=Rename("model", "served", "asked")))),
    ),
    Case(
        "renamed, trailers release the tail",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b'{"model":"ser'), (rsp(b"{"),)),
            Step(RSP_T, (rsp(b'"model":"ser'), TO_RSP_T), (NATURAL,)),
        ),
        script=Script(routed(Plan(rename=Rename("model", "served", "asked")))),
    ),
    Case(
        "renaming leaves compressed bodies",
        (
            *ROUTED,
            Step(
                ResponseHeaders(PlainHeaders(("content-type", "application/json"), ("content-encoding", "gzip"))), (TO_RSP_H,)
            ),
            Step(ResponseBody(b'{"model":"served"}', True), (rsp(b'{"model":"served"}', True),), (NATURAL,)),
        ),
        script=Script(routed(Plan(rename=Rename("model", "served", "asked")))),
    ),
    Case(
        "streamed mode leaves names: a tail could not be given back at trailers",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RequestBody(b"", True), (PASS_REQ_B,)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b'{"model":"served"}', True), (PASS_RSP_B,), (NATURAL,)),
        ),
        opening=STREAMED,
        script=Script(routed(Plan(rename=Rename("model", "served", "asked")))),
    ),
)
