"""The transcripts: one table for each side of the stream. Ids ``Cnn`` are those of the project's conformance table."""

from __future__ import annotations

from epp.extproc.messages import (
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Invalid,
    Lost,
    Mode,
    Opening,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Status,
    StreamedBody,
    TrailersAnswer,
)
from epp.seam import BodyState, Edits, Observe, Plan, Rename
from tests.extproc.transcripts import (
    DESTINATION,
    DISCONNECTED,
    EVICTED,
    FAILED,
    NATURAL,
    PICKED,
    PICKED_METADATA,
    REFUSED,
    REPLIED,
    SETTINGS,
    UNSEEN_END,
    Case,
    Late,
    PlainHeaders,
    Script,
    Step,
    Wait,
    asked,
    routed,
)

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

REQUEST_CASES = (
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
    Case(
        "C111 body above the limit",
        (
            Step(REQ_H),
            Step(RequestBody(b"x" * 900_000)),
            Step(RequestBody(b"x" * 100_001), (Immediate(REFUSED),), (asked(state=BodyState.TOO_LARGE), REPLIED)),
        ),
        script=Script(REFUSED),
    ),
    Case(
        "C111 late refusal, the rest of the body is dropped",
        (
            Step(REQ_H),
            Step(RequestBody(b"x" * 1_000_001), (), (asked(state=BodyState.TOO_LARGE),)),
            Step(RequestBody(b"x", True)),
            Step(Late(REFUSED), (Immediate(REFUSED),), (REPLIED,)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "a request whose body is gone cannot be routed",
        (Step(REQ_H), Step(RequestBody(b"x" * 1_000_001), (), (asked(state=BodyState.TOO_LARGE), FAILED))),
        status=Status.INTERNAL,
    ),
    Case(
        "no memory for all bodies together",
        (
            Step(REQ_H),
            Step(RequestBody(b"x" * 11), (Immediate(REFUSED),), (asked(state=BodyState.NO_MEMORY), REPLIED)),
        ),
        script=Script(REFUSED),
        settings=SETTINGS._replace(max_buffered_bytes=10),
    ),
    Case(
        "C112 the body stops coming",
        (
            Step(REQ_H),
            Step(RequestBody(BODY)),
            Step(Wait(59.9)),
            Step(RequestBody(BODY)),
            Step(Wait(59.9)),
            Step(Wait(0.2), (Immediate(REFUSED),), (asked(state=BodyState.TIMED_OUT), REPLIED)),
        ),
        script=Script(REFUSED),
        wire=False,
    ),
    Case(
        "no deadline while nothing is due: buffered, header-only, deciding, routed",
        (
            Step(REQ_H, (PASS_REQ_H,)),
            Step(Wait(600)),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(Wait(600)),
            Step(Late(routed()), (BodyAnswer(False, ((DESTINATION, PICKED),), ("x-spoof",), True, PICKED_METADATA),)),
            Step(Wait(600)),
        ),
        opening=BUFFERED,
        script=Script(answer=None),
        status=None,
        wire=False,
    ),
)

MODE_CASES = (
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
    Case(
        "C105 observed: nothing is answered, nobody is told",
        (Step(REQ_H), Step(REQ_B_END), Step(RSP_H), Step(ResponseBody(b"x", True)), Step(HALF_CLOSE)),
        opening=Opening(observed=True, configured=True),
    ),
)

RESPONSE_CASES = (
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
        "C79 empty reply to a POST, metadata on the headers' answer",
        (*ROUTED, Step(ResponseHeaders(NO_CONTENT, True), (TO_RSP_H._replace(metadata={"n": {"k": "v"}}),), (NATURAL,))),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"k": "v"}}),
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
        "C84 metadata on the last piece only",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(
                ResponseBody(LARGE, True),
                (
                    rsp(LARGE[:62_000]),
                    rsp(LARGE[62_000:124_000]),
                    rsp(LARGE[124_000:], True)._replace(metadata={"n": {"cost": 10.0}}),
                ),
                (NATURAL,),
            ),
        ),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"cost": 10.0}}),
    ),
    Case(
        "metadata on the trailers' answer",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x"), (rsp(b"x"),)),
            Step(RSP_T, (TO_RSP_T._replace(metadata={"n": {"k": True}}),), (NATURAL,)),
        ),
        script=Script(routed(Plan(hold_end=True)), metadata={"n": {"k": True}}),
    ),
    Case(
        "the end is held, but there is nothing to say",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,))),
        script=Script(routed(Plan(hold_end=True)), metadata={}),
    ),
    Case(
        "the handler edits response headers",
        (
            *ROUTED,
            Step(
                ResponseHeaders(
                    PlainHeaders((":status", "201"), ("x-internal", "1"), ("server", "s"), ("x-session-token", "old"))
                ),
                (
                    HeadersAnswer(
                        True,
                        (("x-went-into-resp-headers", "true"), ("x-session-token", "new")),
                        ("server", "x-internal"),
                    ),
                ),
                (("response_headers", 201),),
            ),
        ),
        script=Script(
            routed(Plan(ask_headers=True)),
            Edits((("x-session-token", "new"),), frozenset({"server", "not-there", "x-session-token"})),
        ),
        status=None,
    ),
    Case(
        "the handler's edits win over the settings",
        (*ROUTED, Step(RSP_H, (HeadersAnswer(True, (("x-went-into-resp-headers", "no"),)),), (("response_headers", 200),))),
        script=Script(routed(Plan(ask_headers=True)), Edits((("x-went-into-resp-headers", "no"),))),
        status=None,
    ),
    Case(
        "asked, but there is nothing to edit",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,), (("response_headers", 200),))),
        script=Script(routed(Plan(ask_headers=True))),
        status=None,
    ),
    Case(
        "evicted at the response headers",
        (*ROUTED, Step(RSP_H, (TO_RSP_H, Immediate(EVICTED)), (("response_headers", 200), REPLIED))),
        script=Script(routed(Plan(ask_headers=True)), at_headers=EVICTED),
    ),
    Case(
        "the first chunk of a stream is told",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"a"), (rsp(b"a"),), (("response_body", b"a", False),)),
            Step(ResponseBody(b"b"), (rsp(b"b"),)),
            Step(ResponseBody(b"", True), (rsp(b"", True),), (NATURAL,)),
        ),
        script=Script(routed(Plan(observe=Observe.FIRST))),
    ),
    Case(
        "every chunk of a stream is told, the end comes last",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"a"), (rsp(b"a"),), (("response_body", b"a", False),)),
            Step(ResponseBody(b"b", True), (rsp(b"b", True),), (("response_body", b"b", True), NATURAL)),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY))),
    ),
    Case(
        "every chunk is told, the end is held",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(
                ResponseBody(b"b", True),
                (rsp(b"b", True)._replace(metadata={"n": {"k": None}}),),
                (("response_body", b"b", True), NATURAL),
            ),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY, hold_end=True)), metadata={"n": {"k": None}}),
    ),
    Case(
        "chunks of a plain response are not told",
        (*ROUTED, Step(RSP_H, (TO_RSP_H,)), Step(ResponseBody(b"a", True), (rsp(b"a", True),), (NATURAL,))),
        script=Script(routed(Plan(observe=Observe.EVERY))),
    ),
    Case(
        "a stream that was asked for is one whatever its type",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"a", True), (rsp(b"a", True),), (("response_body", b"a", True), NATURAL)),
        ),
        script=Script(routed(Plan(observe=Observe.EVERY, streams=True))),
    ),
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
    Case(
        "C97 skipped: closed once the request is answered",
        (Step(REQ_H), Step(REQ_B_END, (TO_PICKED, req(BODY, True)), (asked(BODY), UNSEEN_END))),
        opening=modes(Mode.FULL_DUPLEX, Mode.NONE),
        script=Script(routed(Plan(skip=True))),
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

END_CASES = (
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
        "C94 evicted before the response",
        (*ROUTED, Step(Late(EVICTED), (Immediate(EVICTED),), (REPLIED,))),
    ),
    Case(
        "evicted in the middle of a stream",
        (
            *ROUTED,
            Step(RSP_SSE, (TO_RSP_H,)),
            Step(ResponseBody(b"x"), (rsp(b"x"),)),
            Step(Late(EVICTED), (Immediate(EVICTED),), (REPLIED,)),
            Step(Late(EVICTED)),
        ),
    ),
    Case(
        "C95 evicted after the response",
        (
            *ROUTED,
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"x", True), (rsp(b"x", True),), (NATURAL,)),
            Step(Late(EVICTED)),
        ),
    ),
    Case(
        "C95 evicted between a buffered response and its trailers",
        (
            Step(REQ_H_END, (TO_PICKED,), (asked(state=BodyState.ABSENT),)),
            Step(RSP_H, (TO_RSP_H,)),
            Step(ResponseBody(b"whole"), (PASS_RSP_B,), (NATURAL,)),
            Step(Late(EVICTED)),
            Step(RSP_T, (TO_RSP_T,)),
        ),
        None,
        BUFFERED,
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
    Case(
        "the data plane's own 408 while the body comes: passed on, the handler never asked",
        (
            Step(REQ_H),
            Step(RequestBody(b"x")),
            Step(
                ResponseHeaders(PlainHeaders((":status", "408"), ("x-internal", "1"))),
                (TO_RSP_H._replace(remove=("x-internal",)),),
            ),
            Step(RequestBody(b"y", True)),
            Step(ResponseBody(b"timeout", True), (rsp(b"timeout", True),)),
        ),
    ),
    Case(
        "the data plane's own 413 while deciding: the decision is withdrawn",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(ResponseHeaders(PlainHeaders((":status", "413"))), (TO_RSP_H,), (DISCONNECTED,)),
            Step(Late(routed())),
            Step(ResponseBody(b"too large", True), (rsp(b"too large", True),)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "the data plane's own reply without a body while deciding",
        (
            Step(REQ_H),
            Step(REQ_B_END, (), (asked(BODY),)),
            Step(ResponseHeaders(PlainHeaders((":status", "503")), True), (TO_RSP_H,), (DISCONNECTED,)),
        ),
        script=Script(answer=None),
    ),
    Case(
        "gone in the middle of the data plane's own reply",
        (Step(REQ_H), Step(RSP_H, (TO_RSP_H,)), Step(HALF_CLOSE)),
        Status.CANCELLED,
    ),
)


def _illegal(name: str, *steps: Step) -> Case:
    return Case(f"illegal: {name}", steps, Status.INVALID_ARGUMENT)


ILLEGAL_CASES = (
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

CASES = (*REQUEST_CASES, *MODE_CASES, *RESPONSE_CASES, *END_CASES, *ILLEGAL_CASES)
