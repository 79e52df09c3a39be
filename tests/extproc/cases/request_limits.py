"""Request bodies that are too large, too many, or stop coming."""

from __future__ import annotations

from epp.extproc.messages import BodyAnswer, Immediate, RequestBody, Status
from epp.seam import BodyState
from tests.extproc.cases.vocabulary import BODY, BUFFERED, PASS_REQ_H, REQ_B_END, REQ_H
from tests.extproc.transcripts import (
    DESTINATION,
    FAILED,
    PICKED,
    PICKED_METADATA,
    REFUSED,
    REPLIED,
    SETTINGS,
    Case,
    Late,
    Script,
    Step,
    Wait,
    asked,
    routed,
)

REQUEST_LIMITS = (
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
