"""Bodies in pieces with one answer for each: streamed and gRPC."""

from __future__ import annotations

from epp.extproc.messages import Mode, RequestBody, ResponseBody, ResponseHeaders, Status, StreamedBody
from epp.seam import BodyState, Plan
from tests.extproc.cases.vocabulary import (
    GRPC,
    HALF_CLOSE,
    NO_CONTENT,
    PASS_REQ_B,
    PASS_REQ_T,
    PASS_RSP_B,
    REQ_H,
    REQ_T,
    RSP_H,
    RSP_T,
    STREAMED,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    modes,
)
from tests.extproc.transcripts import DISCONNECTED, NATURAL, UNSEEN_END, Case, Late, Script, Step, asked, routed

MODE_STREAMED = (
    Case(
        "C102 streamed",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RequestBody(b"a"), (PASS_REQ_B,)),
            Step(RequestBody(b"b", True), (PASS_REQ_B,)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"c"), (PASS_RSP_B,)),
            Step(ResponseBody(b"d", True), (PASS_RSP_B,), (NATURAL,)),
        ),
        opening=STREAMED,
    ),
    Case(
        "streamed, body messages while deciding are answered after the headers",
        (
            Step(REQ_H, (), (asked(state=BodyState.UNSEEN),)),
            Step(RequestBody(b"a")),
            Step(RequestBody(b"b")),
            Step(REQ_T),
            Step(Late(routed()), (TO_PICKED, PASS_REQ_B, PASS_REQ_B, PASS_REQ_T)),
        ),
        opening=STREAMED,
        script=Script(answer=None),
        status=None,
    ),
    Case(
        "streamed, a body message after the trailers is dropped",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(REQ_T, (PASS_REQ_T,)),
            Step(RequestBody(b"late", True)),
            Step(RSP_H, (TO_RSP_H,)),
        ),
        opening=STREAMED,
        status=None,
    ),
    Case(
        "streamed, the response is over before the request: the stream stays open",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(ResponseHeaders(NO_CONTENT, True), (TO_RSP_H,), (NATURAL,)),
            Step(RequestBody(b"b", True), (PASS_REQ_B,)),
            Step(HALF_CLOSE),
        ),
        opening=STREAMED,
    ),
    Case(
        "streamed, skipped: closed once the last body message is answered",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RequestBody(b"a"), (PASS_REQ_B,)),
            Step(RequestBody(b"", True), (PASS_REQ_B,), (UNSEEN_END,)),
        ),
        opening=STREAMED,
        script=Script(routed(Plan(skip=True))),
    ),
    Case(
        "streamed, client gone while it sends",
        (
            Step(REQ_H, (TO_PICKED,), (asked(state=BodyState.UNSEEN),)),
            Step(RequestBody(b"a"), (PASS_REQ_B,)),
            Step(HALF_CLOSE, (), (DISCONNECTED,)),
        ),
        opening=modes(Mode.STREAMED, Mode.NONE),
        status=Status.CANCELLED,
    ),
    Case(
        "grpc mode: one answer for each message, flags echoed",
        (
            Step(REQ_H),
            Step(RequestBody(b"one", compressed=True)),
            Step(RequestBody(b"two")),
            Step(
                RequestBody(b"", True, without_message=True),
                (
                    TO_PICKED,
                    StreamedBody(False, b"one", compressed=True),
                    StreamedBody(False, b"TWO"),
                    StreamedBody(False, b"", True, without_message=True),
                ),
                (asked(b"onetwo"),),
            ),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"re", compressed=True), (StreamedBody(True, b"re", compressed=True),)),
            Step(RSP_T, (TO_RSP_T,), (NATURAL,)),
        ),
        opening=GRPC,
        script=Script(routed(splices=((3, 6, b"TWO"),))),
    ),
)
