"""Responses that pass as they came: without a request, in chunks, empty, and those of gRPC."""

from __future__ import annotations

from epp.extproc.messages import RequestBody, ResponseBody, ResponseHeaders
from epp.seam import Plan
from tests.extproc.cases.vocabulary import (
    BODY,
    LARGE,
    NO_CONFIG,
    REQ_B_END,
    REQ_H,
    ROUTED,
    RSP_H,
    RSP_T,
    TO_PICKED,
    TO_RSP_H,
    TO_RSP_T,
    req,
    rsp,
)
from tests.extproc.transcripts import NATURAL, Case, PlainHeaders, Script, Step, asked, routed

RESPONSE_PASSING = (
    Case(
        "C62 response only",
        (
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b'{"a":'), (rsp(b'{"a":'),)),
            Step(ResponseBody(b"1}", True), (rsp(b"1}", True),)),
        ),
        opening=NO_CONFIG,
    ),
    Case(
        "C63 C64 response only, not JSON, empty last chunk",
        (
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"no json"), (rsp(b"no json"),)),
            Step(ResponseBody(b"", True), (rsp(b"", True),)),
        ),
    ),
    Case(
        "response only, internal headers are removed",
        (
            Step(
                ResponseHeaders(PlainHeaders(("x-internal", "1"), ("set-cookie", "a"), ("set-cookie", "b"))),
                (TO_RSP_H._replace(remove=("x-internal",)),),
            ),
        ),
        status=None,
    ),
    Case(
        "the response's chunks pass at once, also of a plain response",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"one"), (rsp(b"one"),)),
            Step(ResponseBody(b""), ()),
            Step(ResponseBody(b"two", True), (rsp(b"two", True),), (NATURAL,)),
        ),
    ),
    Case(
        "a large chunk is cut",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(
                ResponseBody(LARGE, True),
                (rsp(LARGE[:62_000]), rsp(LARGE[62_000:124_000]), rsp(LARGE[124_000:], True)),
                (NATURAL,),
            ),
        ),
    ),
    Case(
        "C80 gRPC reply: trailers end it, no piece has the end flag",
        (
            Step(REQ_H),
            Step(RequestBody(b"\0\0")),
            Step(RequestBody(b"\0\0\1x", True), (TO_PICKED, req(b"\0\0\0\0\1x", True)), (asked(b"\0\0\0\0\1x"),)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"12"), (rsp(b"12"),)),
            Step(ResponseBody(b"34"), (rsp(b"34"),)),
            Step(RSP_T, (TO_RSP_T,), (NATURAL,)),
        ),
    ),
    Case(
        "C83 gRPC error in the headers",
        (*ROUTED, Step(ResponseHeaders(PlainHeaders((":status", "200"), ("grpc-status", "8")), True), (TO_RSP_H,), (NATURAL,))),
    ),
    Case(
        "skipped, but the response body comes in full duplex: passed on",
        (
            Step(REQ_H),
            Step(REQ_B_END, (TO_PICKED, req(BODY, True)), (asked(BODY),)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,)),
        ),
        script=Script(routed(Plan(skip=True))),
    ),
    Case(
        "body without response headers",
        (*ROUTED, Step(ResponseBody(b"x"), (rsp(b"x"),)), Step(ResponseBody(b"", True), (rsp(b"", True),), (NATURAL,))),
    ),
)
