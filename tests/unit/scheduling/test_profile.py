"""A profile filters, adds up weighted scores and picks; plugins that misbehave cost their part and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from epp.errors import DropReason, SchedulingError
from epp.framework.interfaces import Role
from epp.framework.testing import make_candidates, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from epp.telemetry.decision_record import FilterRecord, ProfileRecord, ScoreRecord
from plugins.scorers import kv_cache_utilization, queue
from tests.unit.scheduling.doubles import Best, Does, Reports, keep, make_profile

REQUEST = make_request()
NAN, INF = math.nan, math.inf


def metrics(queues: Sequence[int], usages: Sequence[float]) -> list[EndpointMetrics]:
    return [EndpointMetrics(waiting_queue=q, kv_cache_usage=u) for q, u in zip(queues, usages, strict=True)]


@pytest.mark.parametrize(
    ("queue_weight", "kv_weight", "third", "rows", "totals", "picked"),
    [
        pytest.param(2, 2, ([0.8, 0], 3), metrics([0, 5], [0.5, 0.1]), [5.4, 1.8], "a", id="S1 three scorers"),
        pytest.param(1, 1, None, metrics([2, 4, 3], [0.2, 0.2, 0.9]), [1.8, 0.8, 0.6], "a", id="S2 equal weights"),
        pytest.param(0.5, 1.5, None, metrics([0, 10], [0.9, 0.3]), [0.65, 1.05], "b", id="S3 weights with fractions"),
        pytest.param(0, 1, None, metrics([0, 10], [0.9, 0.3]), [0.1, 0.7], "b", id="S4 weight 0 adds nothing"),
        pytest.param(1, 0, None, metrics([0, 4], [0, 0]), [1, 0], "a", id="S5 queue alone"),
    ],
)
def test_totals_are_weighted_sums(
    queue_weight: float,
    kv_weight: float,
    third: tuple[list[float], float] | None,
    rows: list[EndpointMetrics],
    totals: list[float],
    picked: str,
) -> None:
    scorers: list[tuple[object, float]] = [
        (make_plugin(queue.PLUGIN), queue_weight),
        (make_plugin(kv_cache_utilization.PLUGIN), kv_weight),
    ]
    if third is not None:
        scorers.append((Does(third[0]), third[1]))
    result = make_profile(scorers=scorers).run(REQUEST, make_candidates(rows))
    assert result.totals == pytest.approx(totals)
    assert [e.name for e in result.targets] == [picked]


@pytest.mark.parametrize(
    ("scores", "counted", "defects"),
    [
        pytest.param([-0.4, 1.7], [0, 1], [], id="S6 outside 0 to 1"),
        pytest.param([NAN, 0.5], [0, 0.5], ["returned NaN, which counts as 0"], id="S7 NaN"),
        pytest.param([INF, -INF], [1, 0], [], id="infinities"),
        pytest.param([NAN, INF], [0, 1], ["returned NaN, which counts as 0"], id="NaN beside infinity"),
        pytest.param([True, 0], [1, 0], [], id="integers and booleans are numbers"),
        pytest.param((0.25, 0.5), [0.25, 0.5], [], id="a tuple"),
        pytest.param([0.5], [0, 0], ["returned 1 scores for 2 candidates"], id="too short"),
        pytest.param([0.5] * 3, [0, 0], ["returned 3 scores for 2 candidates"], id="too long"),
        pytest.param([], [0, 0], ["returned 0 scores for 2 candidates"], id="empty"),
        pytest.param(None, [0, 0], ["object of type 'NoneType' has no len()"], id="nothing"),
        pytest.param(ZeroDivisionError("by zero"), [0, 0], ["by zero"], id="raises"),
    ],
)
def test_a_scorer_that_misbehaves(scores: object, counted: list[float], defects: list[str]) -> None:
    reports = Reports()
    profile = make_profile(scorers=[(Does(scores), 1.0), (Does([0.25, 0.0]), 2.0)], reports=reports)
    result = profile.run(REQUEST, make_candidates(2))
    assert list(result.totals) == [counted[0] + 0.5, counted[1]]
    assert reports.seen == [(Role.SCORER, "s1", text) for text in defects]


@pytest.mark.parametrize("scores", [["0.5", "0.5"], [None, 0.5], [[0.5], [0.5]]], ids=["text", "None", "lists"])
def test_scores_that_are_no_numbers_count_as_nothing(scores: list[object]) -> None:
    reports = Reports()
    result = make_profile(scorers=[(Does(scores), 1.0)], reports=reports).run(REQUEST, make_candidates(2))
    assert list(result.totals) == [0, 0]
    assert [(role, name) for role, name, _ in reports.seen] == [(Role.SCORER, "s1")]


def test_filters_follow_one_another_and_come_before_scorers() -> None:
    first, second, scorer = keep("a", "b", "d"), keep("b", "d"), Does([0.1, 0.2])
    result = make_profile(filters=[first, second], scorers=[(scorer, 1.0)]).run(REQUEST, make_candidates(4))
    assert (first.given, second.given, scorer.given) == ([["a", "b", "c", "d"]], [["a", "b", "d"]], [["b", "d"]])
    assert [e.name for e in result.candidates] == ["b", "d"]
    assert [e.name for e in result.targets] == ["d"]


def test_what_filters_itself_and_scores_filters_first() -> None:
    both = Does(lambda candidates: candidates.select([0]) if len(candidates) == 2 else [1.0])
    other = Does([0.5])
    result = make_profile(filters=[both], scorers=[(other, 1.0), (both, 1.0)]).run(REQUEST, make_candidates(2))
    assert other.given == [["a"]], "S22: the scorer that is listed first sees what the filter left"
    assert list(result.totals) == [1.5]


@pytest.mark.parametrize(
    ("filters", "called"),
    [
        pytest.param([keep("a", "b"), keep("c")], 2, id="S10 the second wants what the first dropped"),
        pytest.param([keep(), keep("a")], 1, id="S11 the second is not asked"),
    ],
)
def test_filters_that_leave_nothing(filters: list[Does], called: int) -> None:
    scorer = Does([1.0])
    reports = Reports()
    profile = make_profile("decode", filters=filters, scorers=[(scorer, 1.0)], reports=reports)
    with pytest.raises(SchedulingError) as caught:
        profile.run(REQUEST, make_candidates(3))
    assert str(caught.value) == f"no endpoints left after filter 'f{called}' in profile 'decode'"
    assert caught.value.reason is DropReason.SATURATED
    assert sum(len(plugin.given) for plugin in filters) == called
    assert scorer.given == []
    assert reports.seen == [], "an empty result is no defect"


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        pytest.param(KeyError("label"), "'label'", id="raises"),
        pytest.param(None, "returned NoneType instead of Candidates", id="nothing"),
        pytest.param(list, "returned list instead of Candidates", id="a list of endpoints"),
    ],
)
@pytest.mark.parametrize("record", [None, ProfileRecord("default")], ids=["unrecorded", "recorded"])
def test_a_filter_that_fails_fails_the_profile(outcome: object, problem: str, record: ProfileRecord | None) -> None:
    reports = Reports()
    profile = make_profile(filters=[Does(outcome)], reports=reports)
    with pytest.raises(SchedulingError, match=r"^filter 'f1' failed in profile 'default'$") as caught:
        profile.run(REQUEST, make_candidates(2), record)
    assert caught.value.reason is None
    assert reports.seen == [(Role.FILTER, "f1", problem)]


@pytest.mark.parametrize(
    ("positions", "problem"),
    [
        pytest.param([], "picked none of 3 candidates", id="none"),
        pytest.param((), "picked none of 3 candidates", id="none, as a tuple"),
        pytest.param([-1], "picked positions [-1] of 3 candidates", id="negative"),
        pytest.param([3], "picked positions [3] of 3 candidates", id="behind the end"),
        pytest.param([0, 3], "picked positions [0, 3] of 3 candidates", id="the second behind the end"),
        pytest.param([1, 1], "picked a candidate twice: positions [1, 1]", id="doubled"),
        pytest.param(None, "object of type 'NoneType' has no len()", id="nothing"),
        pytest.param(ArithmeticError("no luck"), "no luck", id="raises"),
        pytest.param([0.0], "list indices must be integers or slices, not float", id="a fraction"),
        pytest.param(["a"], "'<' not supported between instances of 'str' and 'int'", id="a name"),
    ],
)
def test_a_picker_that_fails_fails_the_profile(positions: object, problem: str) -> None:
    reports = Reports()
    with pytest.raises(SchedulingError, match=r"^picker 'picker' failed in profile 'default'$") as caught:
        make_profile(picker=Does(positions), reports=reports).run(REQUEST, make_candidates(3))
    assert caught.value.reason is None
    assert reports.seen == [(Role.PICKER, "picker", problem)]


def test_several_targets_in_the_order_of_the_picker() -> None:
    result = make_profile(scorers=[(Does([0.9, 0.7, 0.8]), 1.0)], picker=Best(2)).run(REQUEST, make_candidates(3))
    assert [e.name for e in result.targets] == ["a", "c"], "S21: two targets, best first"


def test_without_scorers_all_totals_are_zero() -> None:
    candidates = make_candidates(3)
    result = make_profile(filters=[keep("a", "b", "c")]).run(REQUEST, candidates)
    assert list(result.totals) == [0, 0, 0]
    assert result.candidates is candidates, "nothing was dropped, nothing is copied"


def test_every_plugin_is_timed() -> None:
    times: list[float] = []
    make_profile(filters=[keep("a")], scorers=[(Does([1]), 1), (Does([1]), 1)], observe=times.append).run(
        REQUEST, make_candidates(2)
    )
    assert len(times) == 4
    assert min(times) >= 0


def test_the_record_of_a_run() -> None:
    record = ProfileRecord("default")
    scorers: list[tuple[object, float]] = [(Does([0.5, 7.0]), 2.0), (Does(RuntimeError("broken")), 1.0)]
    make_profile(filters=[keep("a", "b", "c"), keep("a", "c")], scorers=scorers).run(REQUEST, make_candidates(3), record)
    a, b, c = "192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"
    assert record == ProfileRecord(
        profile="default",
        filters=[FilterRecord("f1", [], 3), FilterRecord("f2", [b], 2)],
        scorers=[ScoreRecord("s1", 2.0, {a: 0.5, c: 1.0}, raw={a: 0.5, c: 7.0}), ScoreRecord("s2", 1.0, {}, "broken")],
        totals={a: 1.0, c: 2.0},
        picker="picker",
        picked=[c],
    )


def test_a_record_has_no_raw_scores_of_an_earlier_request() -> None:
    scores = iter([[7.0, float("nan")], [0.25, 0.25]])
    profile = make_profile(scorers=[(Does(lambda _: next(scores)), 1.0)])
    profile.run(REQUEST, make_candidates(2))
    profile.run(REQUEST, make_candidates(2), record := ProfileRecord("default"))
    assert record.scorers[0].raw == {}
    assert record.tied == ["192.168.1.1:8000", "192.168.1.2:8000"]


def test_the_record_of_a_failed_filter_tells_why() -> None:
    record = ProfileRecord("default")
    with pytest.raises(SchedulingError):
        make_profile(filters=[Does(RuntimeError("no label"))]).run(REQUEST, make_candidates(2), record)
    assert record.filters == [FilterRecord("f1", [], 2, "no label")]


def test_the_record_of_a_failed_picker_has_the_totals() -> None:
    record = ProfileRecord("default")
    with pytest.raises(SchedulingError):
        make_profile(scorers=[(Does([0.5]), 1.0)], picker=Does([7])).run(REQUEST, make_candidates(1), record)
    assert (record.totals, record.picker, record.picked) == ({"192.168.1.1:8000": 0.5}, "picker", [])
