"""Tests of the example, with the builders that every plugin may use."""

from __future__ import annotations

import pytest
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Cause, Completion, Endpoint, EndpointChange, Usage
from recent_errors import PLUGIN, RecentErrorsScorer

CANDIDATES = make_candidates(2)
GOOD, BAD = CANDIDATES.endpoints
RESULT = SchedulingResult("default", {"default": ProfileRunResult((BAD,), CANDIDATES, [0.0, 0.0])}, (BAD,))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def scorer(clock: FakeClock) -> RecentErrorsScorer:
    made: RecentErrorsScorer = make_plugin(PLUGIN, {"halfLife": "10s"}, make_context(clock=clock))
    return made


def answers(scorer: RecentErrorsScorer, endpoint: Endpoint, status: int) -> None:
    completion = Completion(Cause.NATURAL, status, endpoint, Usage(), True, None, 1.0, 0, False)
    scorer.response_complete(make_request(), RESULT, completion)


def test_an_error_counts_and_fades(scorer: RecentErrorsScorer, clock: FakeClock) -> None:
    answers(scorer, GOOD, 200)
    answers(scorer, BAD, 503)
    assert scorer.score(make_request(), CANDIDATES) == [1.0, 0.5]
    clock.advance(10)
    assert scorer.score(make_request(), CANDIDATES) == [1.0, pytest.approx(2 / 3)]


def test_an_endpoint_that_comes_back_begins_anew(scorer: RecentErrorsScorer) -> None:
    answers(scorer, BAD, 500)
    scorer.endpoints_changed(EndpointChange(removed=(BAD,)))
    assert scorer.score(make_request(), CANDIDATES) == [1.0, 1.0]
    assert scorer.debug_state() == {}
