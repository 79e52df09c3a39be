"""What transcripts share: the usual messages, the answers to them, the modes of a stream, and the usual beginning."""

from __future__ import annotations

from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Lost,
    Mode,
    Opening,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBody,
    TrailersAnswer,
)
from tests.extproc.transcripts import DESTINATION, PICKED, PICKED_METADATA, PlainHeaders, Step, asked

HEADERS = PlainHeaders((":method", "POST"), (":path", "/v1/completions"), ("x-spoof", "6.6.6.6:1"))
JSON = PlainHeaders((":status", "200"), ("content-type", "application/json"))
SSE = PlainHeaders((":status", "200"), ("content-type", "text/event-stream; charset=utf-8"))
NO_CONTENT = PlainHeaders((":status", "204"))
BODY = b'{"model":"m"}'

REQ_H = RequestHeaders(HEADERS)
REQ_H_END = RequestHeaders(HEADERS, end=True)
REQ_B_END = RequestBody(BODY, end=True)
REQ_T = RequestTrailers()
RSP_H = ResponseHeaders(JSON)
RSP_SSE = ResponseHeaders(SSE)
RSP_T = ResponseTrailers()
HALF_CLOSE, CANCEL, SEND_FAILED = Lost.HALF_CLOSED, Lost.CANCELLED, Lost.SEND_FAILED

TO_PICKED = HeadersAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA)
PASS_REQ_H = HeadersAnswer(False)
PASS_REQ_B = BodyAnswer(False)
PASS_REQ_T = TrailersAnswer(False)
TO_RSP_H = HeadersAnswer(True, (("x-went-into-resp-headers", "true"),))
PASS_RSP_B = BodyAnswer(True)
TO_RSP_T = TrailersAnswer(True)

NO_CONFIG = Opening()


def modes(request: Mode, response: Mode) -> Opening:
    return Opening(request, response, configured=True)


BUFFERED = modes(Mode.BUFFERED, Mode.BUFFERED)
PARTIAL = modes(Mode.BUFFERED_PARTIAL, Mode.BUFFERED_PARTIAL)
STREAMED = modes(Mode.STREAMED, Mode.STREAMED)
NONE = modes(Mode.NONE, Mode.NONE)
GRPC = modes(Mode.GRPC, Mode.GRPC)
BYPASS = modes(Mode.FULL_DUPLEX, Mode.NONE)


def req(data: bytes, end: bool = False) -> StreamedBody:
    return StreamedBody(False, data, end)


def rsp(data: bytes, end: bool = False) -> StreamedBody:
    return StreamedBody(True, data, end)


ROUTED = (
    Step(REQ_H),
    Step(REQ_B_END, (TO_PICKED, req(BODY, True)), (asked(BODY),)),
)
"""The usual beginning."""

LARGE = bytes(range(256)) * 586 + b"tail!" * 1 + b"x" * 4
assert len(LARGE) == 150_025
