"""active-request-scorer: formula, what is counted, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointChange
from plugins.scorers import active_request
from plugins.scorers.active_request import ActiveRequestScorer
from tests.unit.plugins.flights import begin, decided, end


def make_scorer(clock: FakeClock | None = None, **parameters: Any) -> ActiveRequestScorer:
    scorer = make_plugin(active_request.PLUGIN, parameters, make_context(clock=clock))
    assert isinstance(scorer, ActiveRequestScorer)
    return scorer


def load(scorer: ActiveRequestScorer, candidates: Candidates, counts: list[int]) -> None:
    for endpoint, count in zip(candidates, counts, strict=True):
        for _ in range(count):
            begin(scorer, make_request(), decided(endpoint))


def active(scorer: ActiveRequestScorer) -> dict[str, int]:
    state = scorer.debug_state()
    assert isinstance(state, dict)
    return dict(state["active"])


@pytest.mark.parametrize(
    ("counts", "idle", "busy", "expected"),
    [
        pytest.param([0, 3, 6], 0, 1.0, [1, 0.5, 0], id="C10 linear"),
        pytest.param([1, 2, 4], 1, 0.5, [1, 0.25, 0], id="C11 idle threshold and busy score"),
        pytest.param([5, 0, 10], 2, 0.5, [0.25, 1, 0], id="C12 one idle of three"),
        pytest.param([2, 2], 0, 1.0, [0, 0], id="C13 all equally busy"),
        pytest.param([3], 0, 1.0, [0], id="C13 one busy endpoint"),
        pytest.param([0, 0], 0, 1.0, [1, 1], id="C13 nothing in flight"),
        pytest.param([4, 8], 0, 0.0, [0, 0], id="busy score 0 is honoured"),
    ],
)
def test_score(counts: list[int], idle: int, busy: float, expected: list[float]) -> None:
    candidates = make_candidates(len(counts))
    scorer = make_scorer(idleThreshold=idle, maxBusyScore=busy)
    load(scorer, candidates, counts)
    assert scorer.score(make_request(), candidates) == pytest.approx(expected)


def test_scoring_looks_past_requests_whose_time_is_over_and_leaves_them() -> None:
    clock = FakeClock()
    scorer = make_scorer(clock, requestTimeout="10s")
    candidates = make_candidates(2)
    load(scorer, candidates, [1, 0])
    clock.advance(5)
    load(scorer, candidates, [1, 1])
    clock.advance(6)
    assert scorer.score(make_request(), candidates) == [0.0, 0.0]
    assert len(scorer._flights) == 3, "scoring has no effect"
    assert active(scorer) == {"default/a": 1, "default/b": 1}


def test_only_the_candidates_set_the_scale() -> None:
    everyone = make_candidates(3)
    scorer = make_scorer()
    load(scorer, everyone, [1, 2, 100])
    assert scorer.score(make_request(), everyone.select([0, 1])) == [0.5, 0.0]


def test_the_first_target_of_every_profile_counts() -> None:
    a, b, c = make_candidates(3)
    scorer = make_scorer()
    request, result = make_request(), decided(a, b, prefill=c, encode=None)
    begin(scorer, request, result)
    assert active(scorer) == {a.id: 1, c.id: 1}, "C14: decode and prefill count, until the request is complete"
    end(scorer, request, result)
    assert active(scorer) == {}
    end(scorer, request, result)
    assert active(scorer) == {}


def test_requests_with_the_same_id_are_counted_apart() -> None:
    (a,) = make_candidates(1)
    scorer = make_scorer()
    first, second = make_request(request_id="same"), make_request(request_id="same")
    for request in (first, second):
        begin(scorer, request, decided(a))
    assert active(scorer) == {a.id: 2}
    end(scorer, first, decided(a))
    assert active(scorer) == {a.id: 1}


def test_a_request_that_is_decided_twice_counts_once() -> None:
    a, b = make_candidates(2)
    scorer = make_scorer()
    request = make_request()
    begin(scorer, request, decided(a))
    begin(scorer, request, decided(b))
    assert active(scorer) == {b.id: 1}


def test_a_request_counts_until_its_deadline() -> None:
    clock = FakeClock()
    candidates = make_candidates(2)
    scorer = make_scorer(clock)
    late = make_request()
    begin(scorer, late, decided(candidates[0]))
    clock.advance(119.9)
    assert scorer.score(make_request(), candidates) == [0.0, 1.0]
    clock.advance(0.1)
    assert scorer.score(make_request(), candidates) == [1.0, 1.0], "C15: no longer counted after its time"
    end(scorer, late, decided(candidates[0]))
    assert active(scorer) == {}


def test_deadlines_are_per_request() -> None:
    clock = FakeClock()
    a, b = candidates = make_candidates(2)
    scorer = make_scorer(clock, requestTimeout="10s")
    begin(scorer, make_request(), decided(a))
    clock.advance(6)
    begin(scorer, make_request(), decided(b))
    clock.advance(6)
    assert scorer.score(make_request(), candidates) == [1.0, 0.0]
    assert active(scorer) == {b.id: 1}


def test_a_removed_endpoint_begins_at_zero_again() -> None:
    (a,) = make_candidates(1)
    scorer = make_scorer()
    old, new = make_request(), make_request()
    begin(scorer, old, decided(a))
    scorer.endpoints_changed(EndpointChange(removed=(a,)))
    assert active(scorer) == {}
    begin(scorer, new, decided(a))
    end(scorer, old, decided(a))
    assert active(scorer) == {a.id: 1}
    end(scorer, new, decided(a))
    assert active(scorer) == {}


def test_removing_an_unknown_endpoint_is_nothing() -> None:
    scorer = make_scorer()
    scorer.endpoints_changed(EndpointChange(removed=(make_candidates(1)[0],)))
    assert active(scorer) == {}


def test_no_candidates() -> None:
    scorer = make_scorer()
    load(scorer, make_candidates(1), [1])
    assert scorer.score(make_request(), make_candidates(0)) == []


@pytest.mark.parametrize(
    ("parameters", "warning"),
    [
        pytest.param({"requestTimeout": "abc"}, "'abc' is not a duration", id="timeout is no duration"),
        pytest.param({"requestTimeout": "0s"}, "'0s' is not positive; 2m is used", id="timeout zero"),
        pytest.param({"requestTimeout": "-5s"}, "'-5s' is not positive; 2m is used", id="timeout negative"),
        pytest.param({"idleThreshold": -1}, "-1 is negative; 0 is used", id="idle threshold negative"),
        pytest.param({"maxBusyScore": 1.5}, "1.5 is outside [0, 1]; 1.0 is used", id="busy score above 1"),
        pytest.param({"maxBusyScore": -0.5}, "-0.5 is outside [0, 1]; 1.0 is used", id="busy score below 0"),
    ],
)
def test_unusable_parameters_become_the_default(parameters: dict[str, Any], warning: str) -> None:
    clock = FakeClock()
    context = make_context(clock=clock)
    scorer = make_plugin(active_request.PLUGIN, parameters, context)
    ((name, text),) = context.warnings
    assert name == next(iter(parameters))
    assert warning in text
    assert text.endswith("used")
    candidates = make_candidates(3)
    load(scorer, candidates, [0, 1, 2])
    clock.advance(119)
    assert scorer.score(make_request(), candidates) == [1.0, 0.5, 0.0]
    clock.advance(1)
    assert scorer.score(make_request(), candidates) == [1.0, 1.0, 1.0]
