"""Bodies that are not there: absent, unseen, too large, late."""

from __future__ import annotations

from typing import Any

import pytest

from epp.errors import RequestError
from epp.seam import BodyState, Edits, Plan
from tests.unit.decision.rig import Plugin, Rig, hooks, outcome, request
from tests.unit.decision.vocabulary import DESTINATION, MODEL_HEADER, SUBSET, A, B, C, refusal, rule


def test_a_request_without_a_body_goes_anywhere() -> None:
    journal: list[str] = []
    rig = Rig(hooks(Plugin("p", journal)))
    stream = rig.send(request(state=BodyState.ABSENT, path="/v1/models"))
    assert stream.route == (Edits(((DESTINATION, A),)), {"envoy.lb": {DESTINATION: A}}, Plan(), ()), (
        "C41: header and metadata name one endpoint"
    )
    assert rig.director.response_headers(stream, outcome().head) is None  # type: ignore[arg-type]  # it has one
    assert rig.director.finished(stream, outcome()) is None
    assert journal == [], "C44, D16: no hook is told"
    assert rig.count("request_total") is None


def test_the_subset_hint_counts_without_a_body() -> None:
    route = Rig().send(request(state=BodyState.ABSENT, metadata=SUBSET)).route
    assert route.headers.set == ((DESTINATION, B),), "C43: the only endpoint of the subset"


def test_no_endpoints_without_a_body() -> None:
    status, text, headers = refusal(Rig(endpoints=""), state=BodyState.ABSENT)
    assert (status, text) == (503, "inference error: ServiceUnavailable - no pods available in datastore"), "C42: no endpoints"
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


def test_a_body_that_cannot_be_seen_is_scheduled_unread() -> None:
    rig = Rig(hooks(Plugin("p", []), slots=["complete"]))
    rig.objects.put(rule("r", "g"))
    route = rig.send(request(state=BodyState.UNSEEN)).route
    assert (route.headers.set, route.splices, route.plan) == (((DESTINATION, C),), (), Plan(hold_end=True))


@pytest.mark.parametrize(
    ("state", "headers", "status", "text"),
    [
        (BodyState.UNSEEN, MODEL_HEADER, 400, "BadRequest - request body not available for model rewrite"),
        (BodyState.TIMED_OUT, {}, 408, "RequestTimeout - request body incomplete"),
        (BodyState.TOO_LARGE, {}, 413, "PayloadTooLarge - request body is larger than this service accepts"),
        (BodyState.NO_MEMORY, {}, 503, "ServiceUnavailable - too many request bodies in memory, try again in a moment"),
    ],
)
def test_bodies_that_are_refused(state: BodyState, headers: dict[str, str], status: int, text: str) -> None:
    rig = Rig()
    assert refusal(rig, state=state, headers=headers)[:2] == (status, f"inference error: {text}")
    code = text.partition(" ")[0]
    assert rig.count("request_error_total", error_code=code) == 1


def test_refusals_keep_nothing_of_earlier_requests() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([])), slots=["screeners"]))
    raised: list[RequestError] = []
    keep_error = rig.director._refuse

    def refuse(flight: Any, error: RequestError) -> Any:
        raised.append(error)
        return keep_error(flight, error)

    rig.director._refuse = refuse  # type: ignore[method-assign]  # to see the exceptions
    for state in (BodyState.TIMED_OUT, BodyState.TIMED_OUT, BodyState.COMPLETE, BodyState.COMPLETE):
        rig.send(request(state=state))
    assert len({id(error) for error in raised}) == 4, "an exception that is raised again grows by a traceback each time"
