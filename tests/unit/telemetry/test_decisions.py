"""Which decisions are kept, in how much memory."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest

from epp.framework.testing import FakeClock, FakeHeaders
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, ProfileRecord, ScoreRecord, Why
from epp.telemetry.decision_ring import DecisionRing
from epp.telemetry.decisions import FAILURES_PER_S, DecisionOptions, Decisions

DONE = OutcomeRecord("natural", 200, "10.0.0.1:8000", 0.1, 0.5, 900, False, 100, 20, 64)


class Asks:
    """A request with these headers."""

    def __init__(self, **headers: str) -> None:
        self.headers = FakeHeaders({name.replace("_", "-"): value for name, value in headers.items()})


def record(request_id: str, why: Why = Why.SHARE, *, endpoints: int = 10, status: int = 0) -> DecisionRecord:
    """Of a decision among so many endpoints."""
    names = [f"10.0.0.{i}:8000" for i in range(endpoints)]
    scores = {name: i / endpoints for i, name in enumerate(names)}
    profile = ProfileRecord("default", scorers=[ScoreRecord(f"s{i}", 2.0, dict(scores)) for i in range(5)], totals=scores)
    return DecisionRecord(
        at_s=1.7e9, request_id=request_id, why=why, candidates=names, profiles=[profile], picked=names[:1], status=status
    )


@pytest.mark.parametrize(
    ("share", "kept"), [(0.0, 0), (0.01, 10), (0.25, 250), (1.0, 1000)], ids=["none", "a hundredth", "a quarter", "all"]
)
def test_a_share_of_the_requests(share: float, kept: int) -> None:
    decisions = Decisions(DecisionOptions(share=share))
    assert abs(sum(decisions.wants(Asks()) is Why.SHARE for _ in range(1000)) - kept) <= 1


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        pytest.param({"x_epp_explain": "1", "x_team": "core"}, True, id="an allowed caller"),
        pytest.param({"x_epp_explain": "1", "x_admin": "anybody"}, True, id="any value of a header"),
        pytest.param({"x_epp_explain": "1", "x_team": "other"}, False, id="another caller"),
        pytest.param({"x_epp_explain": "1"}, False, id="nobody"),
        pytest.param({"x_epp_explain": "true", "x_team": "core"}, False, id="not 1"),
        pytest.param({"x_team": "core"}, False, id="does not ask"),
    ],
)
def test_only_allowed_callers_may_ask(headers: dict[str, str], asked: bool) -> None:
    callers = {"x-team": frozenset({"core"}), "x-admin": frozenset({"*"})}
    assert (Decisions(DecisionOptions(share=0, callers=callers)).wants(Asks(**headers)) is Why.ASKED) is asked


def test_nobody_may_ask_by_default() -> None:
    assert Decisions(DecisionOptions(share=0)).wants(Asks(x_epp_explain="1")) is Why.NOTHING


@pytest.mark.parametrize(
    ("why", "status", "kept_as"),
    [
        (Why.SHARE, 0, Why.SHARE),
        (Why.ASKED, 0, Why.ASKED),
        (Why.NOTHING, 429, Why.REFUSED),
        (Why.LOG, 503, Why.REFUSED),
        (Why.SHARE, 429, Why.SHARE),
        (Why.LOG, 0, None),
        (Why.NOTHING, 200, None),
    ],
)
def test_what_is_kept(why: Why, status: int, kept_as: Why | None) -> None:
    decisions = Decisions()
    kept = decisions.decided(record("r", why, status=status))
    assert (kept.why if kept else None) is kept_as
    if kept is not None:
        shown = kept.as_json()
        assert (shown["at_s"], shown["why"], shown["request_id"], shown["outcome"]) == (1.7e9, kept_as, "r", None)


def test_nothing_is_kept_without_memory() -> None:
    decisions = Decisions(DecisionOptions(share=1, limit_bytes=0))
    assert decisions.wants(Asks()) is Why.NOTHING
    assert not decisions.wants_failure()
    assert decisions.decided(record("r", Why.REFUSED, status=429)) is None
    decisions.over(None, DONE, lambda: record("r"))
    assert len(decisions.ring) == 0


def test_what_becomes_of_a_kept_request_is_added() -> None:
    decisions = Decisions()
    kept = decisions.decided(record("r"))
    decisions.over(kept, DONE, lambda: pytest.fail("a record is there"))
    [found] = decisions.ring.of("r")
    shown = found.as_json()
    assert shown["outcome"] == {
        "cause": "natural",
        "status": 200,
        "served": "10.0.0.1:8000",
        "ttft_s": 0.1,
        "duration_s": 0.5,
        "response_bytes": 900,
        "streaming": False,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 64,
    }
    assert shown["profiles"][0]["scorers"][0]["weighted"]["10.0.0.5:8000"] == 1.0  # type: ignore[index]  # JSON


def test_a_failure_after_the_decision_is_kept_too() -> None:
    decisions = Decisions()
    decisions.over(None, DONE, lambda: record("late", Why.NOTHING))
    [found] = decisions.ring.of("late")
    assert (found.why, found.outcome) == (Why.FAILED, DONE)


def test_failed_decisions_are_repeated_so_often_at_most() -> None:
    clock = FakeClock(100.0)
    decisions = Decisions(clock=clock)
    assert sum(decisions.wants_failure() for _ in range(1000)) == FAILURES_PER_S
    clock.now_s += 0.5
    assert sum(decisions.wants_failure() for _ in range(1000)) == FAILURES_PER_S / 2


def test_of_one_request_id_the_newest_comes_first() -> None:
    ring = DecisionRing()
    for request_id in ("a", "b", "a"):
        ring.add(record(request_id))
    assert [kept.number for kept in ring.of("a")] == [3, 1]
    assert ring.of("c") == []


def test_one_is_found_by_its_number_while_it_is_kept() -> None:
    empty, small = DecisionRing(), DecisionRing(100)
    assert empty.numbered(1) is None
    ring = DecisionRing()
    for request_id in ("a", "b", "c"):
        ring.add(record(request_id))
        small.add(record(request_id))
    found = [ring.numbered(number) for number in (0, 1, 2, 3, 4)]
    assert [kept and kept.request_id for kept in found] == [None, "a", "b", "c", None]
    assert [number for number in range(5) if small.numbered(number) is not None] == [3]


@pytest.mark.parametrize(
    ("status", "error", "outcome", "is_bad"),
    [
        (0, "", None, False),  # still running
        (0, "", ("natural", 200), False),
        (0, "", ("natural", 500), True),
        (0, "", ("client-disconnect", 200), True),
        (503, "", None, True),
        (0, "the stream ended before it was decided", None, True),
        (200, "", None, False),  # answered by the picker itself
    ],
)
def test_what_went_wrong_is_bad(status: int, error: str, outcome: tuple[str, int] | None, is_bad: bool) -> None:
    decision = DecisionRing().add(replace(record("a"), status=status, error=error))
    if outcome is not None:
        decision.outcome = replace(DONE, cause=outcome[0], status=outcome[1])
    assert decision.is_bad is is_bad


@pytest.mark.parametrize("endpoints", [1, 100], ids=["small records", "large records"])
def test_memory_is_constant(endpoints: int) -> None:
    limit = 1024 * 1024
    ring = DecisionRing(limit)

    def fill(count: int) -> None:
        for number in range(count):
            ring.add(record(f"request-{number}", endpoints=endpoints)).outcome = DONE

    fill(2000)
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        fill(2000)
        gc.collect()
        grown = sum(stat.size_diff for stat in tracemalloc.take_snapshot().compare_to(before, "filename"))
    finally:
        tracemalloc.stop()
    assert ring.size_bytes <= limit
    assert len(ring) > 5
    assert ring.count == 4000
    assert grown <= 1.25 * limit  # all that it holds was allocated since; what it held before was freed


def test_a_record_larger_than_all_memory_is_kept_until_the_next() -> None:
    ring = DecisionRing(100)
    ring.add(record("a"))
    ring.add(record("b"))
    assert [kept.request_id for kept in ring.newest()] == ["b"]
