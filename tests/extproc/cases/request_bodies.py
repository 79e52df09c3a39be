"""Request bodies: where they end, how they are cut, the request without one, and splices."""

from __future__ import annotations

from epp.extproc.messages import RequestBody, ResponseHeaders, Status
from epp.seam import BodyState
from tests.extproc.cases.vocabulary import (
    BODY,
    LARGE,
    NO_CONTENT,
    PASS_REQ_T,
    REQ_B_END,
    REQ_H,
    REQ_H_END,
    REQ_T,
    ROUTED,
    RSP_H,
    TO_PICKED,
    TO_RSP_H,
    req,
)
from tests.extproc.transcripts import FAILED, NATURAL, Case, Late, Script, Step, asked, routed

REQUEST_BODIES = (
    Case("plain request, end on the only chunk", (*ROUTED,), status=None),
    Case(
        "C06 empty last chunk",
        (Step(REQ_H), Step(RequestBody(BODY)), Step(RequestBody(b"", True), (TO_PICKED, req(BODY, True)), (asked(BODY),))),
        status=None,
    ),
    Case(
        "C07 end of stream twice",
        (*ROUTED, Step(RequestBody(b"", True)), Step(RequestBody(b"more")), Step(RSP_H, (TO_RSP_H,))),
        status=None,
    ),
    Case(
        "C08 trailers end the body",
        (
            Step(REQ_H),
            Step(RequestBody(BODY)),
            Step(REQ_T, (TO_PICKED, req(BODY), PASS_REQ_T), (asked(BODY),)),
            Step(RSP_H, (TO_RSP_H,)),
        ),
        status=None,
    ),
    Case("C09 trailers after the end of the body", (*ROUTED, Step(REQ_T, (PASS_REQ_T,))), status=None),
    Case(
        "trailers while deciding",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(REQ_T),
            Step(Late(routed()), (TO_PICKED, req(BODY, True), PASS_REQ_T)),
        ),
        script=Script(answer=None),
        status=None,
    ),
    Case(
        "trailers without a body",
        (Step(REQ_H), Step(REQ_T, (TO_PICKED, req(b""), PASS_REQ_T), (asked(b""),))),
        status=None,
    ),
    Case(
        "C10 150,025 bytes in chunks of 16,384",
        (
            Step(REQ_H),
            *(Step(RequestBody(LARGE[start : start + 16_384])) for start in range(0, len(LARGE), 16_384)),
            Step(
                RequestBody(b"", True),
                (TO_PICKED, req(LARGE[:62_000]), req(LARGE[62_000:124_000]), req(LARGE[124_000:], True)),
                (asked(LARGE),),
            ),
        ),
        status=None,
    ),
    Case(
        "C11 exactly 62,000 bytes",
        (
            Step(REQ_H),
            Step(RequestBody(LARGE[:62_000], True), (TO_PICKED, req(LARGE[:62_000], True)), (asked(LARGE[:62_000]),)),
        ),
        status=None,
    ),
    Case(
        "C11 exactly 124,000 bytes",
        (
            Step(REQ_H),
            Step(
                RequestBody(LARGE[:124_000], True),
                (TO_PICKED, req(LARGE[:62_000]), req(LARGE[62_000:124_000], True)),
                (asked(LARGE[:124_000]),),
            ),
        ),
        status=None,
    ),
    Case(
        "empty body",
        (Step(REQ_H), Step(RequestBody(b"", True), (TO_PICKED, req(b"", True)), (asked(b""),))),
        status=None,
    ),
    Case(
        "C44 request without a body, 204",
        (
            Step(REQ_H_END, (TO_PICKED,), (asked(state=BodyState.ABSENT),)),
            Step(ResponseHeaders(NO_CONTENT, True), (TO_RSP_H,), (NATURAL,)),
        ),
    ),
    Case(
        "splices replace spans",
        (
            Step(REQ_H),
            Step(
                RequestBody(b'{"model":"a","x":1}', True),
                (TO_PICKED, req(b'{"model":"bcd","x":22}', True)),
                (asked(b'{"model":"a","x":1}'),),
            ),
        ),
        script=Script(routed(splices=((10, 11, b"bcd"), (17, 18, b"22")))),
        status=None,
    ),
    Case(
        "splices that overlap abort",
        (Step(REQ_H), Step(REQ_B_END, (), (asked(BODY), FAILED))),
        script=Script(routed(splices=((2, 5, b""), (4, 6, b"")))),
        status=Status.INTERNAL,
    ),
)
