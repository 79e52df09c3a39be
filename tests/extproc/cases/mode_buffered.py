"""Bodies that the data plane buffers, wholly or partly: one message is the whole body."""

from __future__ import annotations

from epp.extproc.messages import BodyAnswer, Immediate, RequestBody, ResponseBody, Status
from epp.seam import BodyState, Plan, Rename
from tests.extproc.cases.vocabulary import (
    BODY,
    BUFFERED,
    HALF_CLOSE,
    PARTIAL,
    PASS_REQ_H,
    PASS_REQ_T,
    PASS_RSP_B,
    REQ_B_END,
    REQ_H,
    REQ_H_END,
    REQ_T,
    RSP_H,
    RSP_T,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
)
from tests.extproc.transcripts import (
    DESTINATION,
    FAILED,
    NATURAL,
    PICKED,
    PICKED_METADATA,
    REFUSED,
    REPLIED,
    SETTINGS,
    UNSEEN_END,
    Case,
    Script,
    Step,
    asked,
    routed,
)

MODE_BUFFERED = (
    Case(
        "C101 buffered, body as it came",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                REQ_B_END,
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(BODY),),
            ),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"whole", True), (PASS_RSP_B,), (NATURAL,)),
        ),
        opening=BUFFERED,
    ),
    Case(
        "C101 buffered, body replaced: content-length follows",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                REQ_B_END,
                (
                    BodyAnswer(
                        False,
                        ((DESTINATION, PICKED), ("content-length", "15")),
                        ("x-spoof",),
                        True,
                        PICKED_METADATA,
                        b'{"model":"new"}',
                    ),
                ),
                (asked(BODY),),
            ),
        ),
        opening=BUFFERED,
        script=Script(routed(splices=((10, 11, b"new"),))),
        status=None,
    ),
    Case(
        "buffered with trailers: the one message is the whole body, whatever its end flag, both ways",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                RequestBody(BODY),
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(BODY),),
            ),
            Step(REQ_T, (PASS_REQ_T,)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"whole"), (PASS_RSP_B,), (NATURAL,)),
            Step(RSP_T, (TO_RSP_T,)),
        ),
        opening=BUFFERED,
        status=None,
    ),
    Case(
        "buffered with trailers but no body cannot be routed any more",
        (Step(REQ_H, (PASS_REQ_H,)), Step(REQ_T, (), (asked(b""), FAILED))),
        opening=BUFFERED,
        status=Status.INTERNAL,
    ),
    Case(
        "buffered, headers end the request",
        (Step(REQ_H_END, (TO_PICKED,), (asked(state=BodyState.ABSENT),)),),
        opening=BUFFERED,
        status=None,
    ),
    Case(
        "buffered, refused after the headers were answered",
        (Step(REQ_H, (PASS_REQ_H,)), Step(REQ_B_END, (Immediate(REFUSED),), (asked(BODY), REPLIED))),
        opening=BUFFERED,
        script=Script(REFUSED),
    ),
    Case(
        "C110 buffered, one large message",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                RequestBody(b"x" * 5_000_000, True),
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(b"x" * 5_000_000),),
            ),
        ),
        opening=BUFFERED,
        settings=SETTINGS._replace(max_body_bytes=0, max_buffered_bytes=0),
        status=None,
    ),
    Case(
        "buffered response, renamed: content-length follows",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                REQ_B_END,
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(BODY),),
            ),
            Step(RSP_H, (TO_RSP_H,)),
            Step(
                ResponseBody(b'{"model":"served"}', True),
                (BodyAnswer(True, (("content-length", "17"),), body=b'{"model":"asked"}'),),
                (NATURAL,),
            ),
        ),
        opening=BUFFERED,
        script=Script(routed(Plan(rename=Rename("model", "served", "asked")))),
    ),
    Case(
        "partly buffered, the whole body came",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                REQ_B_END,
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(BODY),),
            ),
        ),
        opening=PARTIAL,
        status=None,
    ),
    Case(
        "partly buffered, cut: the body is unseen, and so is the response's end",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(
                RequestBody(b"begin"),
                (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),),
                (asked(state=BodyState.UNSEEN),),
            ),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"begin"), (PASS_RSP_B,)),
            Step(HALF_CLOSE, (), (UNSEEN_END,)),
        ),
        opening=PARTIAL,
    ),
)
