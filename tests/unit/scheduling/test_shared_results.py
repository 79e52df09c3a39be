"""What needs no request runs once for each snapshot: leading filters and all scorers of that kind, and nothing else."""

from __future__ import annotations

import pytest

from epp.errors import SchedulingError
from epp.framework.testing import make_candidates, make_request
from epp.plugin_calls.guard import Guard
from epp.telemetry.decision_record import ProfileRecord
from tests.unit.scheduling.doubles import Does, Reports, keep, make_profile

REQUEST = make_request()


def test_scorers_run_once_for_each_snapshot_and_others_for_each_request() -> None:
    shared, own, late = Does([0.5, 0.25]), Does([0.0, 0.5]), Does([0.125, 0.0])
    profile = make_profile(scorers=[(shared, 1.0), (own, 2.0), (late, 4.0)], per_snapshot={"s1", "s3"})
    one, two = make_candidates(2), make_candidates(2)
    results = [profile.run(make_request(), candidates) for candidates in (one, one, two, two, two)]
    assert [list(result.totals) for result in results] == [[1.0, 1.25]] * 5
    assert [len(scorer.given) for scorer in (shared, own, late)] == [2, 5, 2]


def test_leading_filters_run_once_and_what_they_leave_is_one_view() -> None:
    shared, own, behind, scorer = keep("a", "b"), keep("b", "a"), keep("a", "b"), Does([0.5, 1.0])
    filters, per_snapshot = [shared, own, behind], {"f1", "f3", "s1"}
    profile = make_profile(filters=filters, scorers=[(scorer, 1.0)], per_snapshot=per_snapshot)
    candidates = make_candidates(3)
    first, second = profile.run(REQUEST, candidates), profile.run(REQUEST, candidates)
    assert first.candidates is second.candidates, "the second filter dropped nothing"
    assert [len(plugin.given) for plugin in (shared, own, behind, scorer)] == [1, 2, 2, 1]


def test_profiles_do_not_share_with_each_other() -> None:
    one = make_profile("one", filters=[keep("a")], scorers=[(Does([1.0]), 1.0)], per_snapshot={"f1", "s1"})
    two = make_profile("two", filters=[keep("b")], scorers=[(Does([0.5]), 1.0)], per_snapshot={"f1", "s1"})
    candidates = make_candidates(2)
    for _ in range(2):
        results = [profile.run(REQUEST, candidates) for profile in (one, two)]
        assert [([e.name for e in r.targets], list(r.totals)) for r in results] == [(["a"], [1.0]), (["b"], [0.5])]


def test_a_record_is_made_of_a_run_and_lists_scorers_as_declared() -> None:
    shared, own = Does([0.5, 0.25]), Does([0.0, 0.5])
    profile = make_profile(scorers=[(own, 1.0), (shared, 1.0)], per_snapshot={"s2"})
    candidates = make_candidates(2)
    profile.run(REQUEST, candidates)
    record = ProfileRecord("default")
    result = profile.run(REQUEST, candidates, record)
    assert [(scored.plugin, list(scored.scores.values())) for scored in record.scorers] == [
        ("s1", [0, 0.5]),
        ("s2", [0.5, 0.25]),
    ]
    assert list(record.totals.values()) == list(result.totals) == [0.5, 0.75]


@pytest.mark.parametrize("outcome", [ZeroDivisionError("by zero"), [0.5]], ids=["raises", "too short"])
def test_a_scorer_that_fails_is_asked_again(outcome: object) -> None:
    broken, sound, reports = Does(outcome), Does([0.5, 0.25]), Reports()
    scorers = [(broken, 1.0), (sound, 1.0)]
    profile = make_profile(scorers=scorers, reports=reports, per_snapshot={"s1", "s2"})
    candidates = make_candidates(2)
    assert [list(profile.run(REQUEST, candidates).totals) for _ in range(3)] == [[0.5, 0.25]] * 3
    assert len(broken.given) == len(reports.seen) == 3


def test_a_filter_that_fails_is_asked_again() -> None:
    broken = Does(KeyError("label"))
    profile = make_profile(filters=[broken], per_snapshot={"f1"})
    candidates = make_candidates(2)
    for _ in range(2):
        with pytest.raises(SchedulingError):
            profile.run(REQUEST, candidates)
    assert len(broken.given) == 2


class _Out:
    def overran(self) -> None: ...
    def skipped(self) -> None: ...
    def put_out(self, elapsed_s: float) -> None: ...
    def taken_back(self) -> None: ...
    def stays_slow(self, elapsed_s: float) -> None: ...


def test_totals_without_a_scorer_that_was_left_out_are_not_kept() -> None:
    now = [100.0]
    guard = Guard(_Out(), may_skip=True, clock=lambda: now[0])
    scorer = Does([0.5, 0.25])
    profile = make_profile(scorers=[(scorer, 1.0)], guard=guard, per_snapshot={"s1"})
    candidates = make_candidates(2)
    guard.is_out = True
    assert guard.refuses() is False, "a trial, so that calls of the next 30 s are left out"
    assert list(profile.run(REQUEST, candidates).totals) == [0, 0]
    now[0] += 31
    assert list(profile.run(REQUEST, candidates).totals) == [0.5, 0.25], "the next trial"
    assert list(profile.run(REQUEST, candidates).totals) == [0.5, 0.25]
    assert len(scorer.given) == 1
