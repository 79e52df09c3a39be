"""Scheduling as arithmetic: totals are plain sums, and neither units of weights nor the order of endpoints matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from epp.errors import SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.results import ProfileRunResult
from epp.framework.testing import make_candidates, make_request
from epp.framework.types import InferenceRequest
from tests.unit.scheduling.doubles import Does, keep, make_profile

REQUEST = make_request()


class ByName:
    """A scorer that gives each endpoint its score, wherever it stands."""

    def __init__(self, scores: dict[str, float]) -> None:
        self._scores = scores

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        return [self._scores[endpoint.name] for endpoint in candidates]


@dataclass(frozen=True)
class Case:
    """Scores by scorer and endpoint, what a filter keeps, and weights."""

    names: list[str]
    kept: list[str]
    scores: list[list[float]]
    weights: list[float]

    def run(self, *, scale: float = 1.0, order: Sequence[int] | None = None) -> ProfileRunResult:
        candidates = make_candidates(len(self.names))
        if order is not None:
            candidates = candidates.select(order)
        scorers: list[tuple[object, float]] = [
            (ByName(dict(zip(self.names, row, strict=True))), weight * scale)
            for row, weight in zip(self.scores, self.weights, strict=True)
        ]
        return make_profile(filters=[keep(*self.kept)], scorers=scorers).run(REQUEST, candidates)


odd_scores = st.one_of(
    st.floats(0, 1), st.floats(-2, 3), st.sampled_from([math.nan, math.inf, -math.inf, -0.0]), st.integers(-1, 2)
)
scalable_scores = st.one_of(st.floats(1e-9, 1), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 2.0]))
"""Without the smallest floats, whose products are not exact."""
sensible_scores = st.sampled_from([i / 8 for i in range(9)])


@st.composite
def cases(draw: st.DrawFn, scores: st.SearchStrategy[float]) -> Case:
    size = draw(st.integers(1, 7))
    names = [endpoint.name for endpoint in make_candidates(size)]
    kept = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    count = draw(st.integers(0, 4))
    rows = draw(st.lists(st.lists(scores, min_size=size, max_size=size), min_size=count, max_size=count))
    weights = draw(st.lists(st.just(0.0) | st.floats(1e-9, 100), min_size=count, max_size=count))
    return Case(names, kept, rows, weights)


def clamped(score: float) -> float:
    return 0.0 if math.isnan(score) else min(1.0, max(0.0, score))


@given(cases(odd_scores))
def test_totals_equal_a_naive_sum(case: Case) -> None:
    result = case.run()
    assert len(result.candidates) == len(result.totals) == len(case.kept)
    for endpoint, total in zip(result.candidates, result.totals, strict=True):
        place = case.names.index(endpoint.name)
        expected = 0.0
        for row, weight in zip(case.scores, case.weights, strict=True):
            expected += clamped(row[place]) * weight
        assert total == expected, "in double precision, in the order of the scorers"
        assert 0 <= total <= sum(case.weights) * (1 + 1e-12)


@given(cases(scalable_scores), st.integers(-8, 8))
def test_scaling_all_weights_by_a_power_of_two_keeps_the_pick(case: Case, exponent: int) -> None:
    plain, scaled = case.run(), case.run(scale=2.0**exponent)
    assert scaled.targets == plain.targets
    assert list(scaled.totals) == [total * 2.0**exponent for total in plain.totals]


@given(cases(sensible_scores), st.data())
def test_the_order_of_endpoints_changes_no_total(case: Case, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(case.names))))
    plain, permuted = case.run(), case.run(order=order)
    totals = {endpoint.name: total for endpoint, total in zip(plain.candidates, plain.totals, strict=True)}
    assert {e.name: t for e, t in zip(permuted.candidates, permuted.totals, strict=True)} == totals
    assert totals[permuted.targets[0].name] == totals[plain.targets[0].name] == max(totals.values())


@given(cases(sensible_scores), st.lists(st.integers(-2, 8), max_size=4))
def test_only_candidates_are_picked_and_each_once(case: Case, positions: list[int]) -> None:
    candidates = make_candidates(len(case.names))
    profile = make_profile(picker=Does(positions))
    valid = bool(positions) and len(set(positions)) == len(positions) and all(0 <= p < len(candidates) for p in positions)
    try:
        targets = profile.run(REQUEST, candidates).targets
    except SchedulingError:
        assert not valid
    else:
        assert valid
        assert targets == tuple(candidates[position] for position in positions)
