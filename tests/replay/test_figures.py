"""Figures, reasons of disagreements, and the bound of hit rates, worked by hand."""

from __future__ import annotations

import pytest

from epp.replay.bound import Bound, bound
from epp.replay.disagreement import disagreement
from epp.replay.figures import INTERVALS, Spread, figures
from epp.replay.outcome import Outcome
from epp.replay.run import QueueSample, Run
from epp.telemetry.choice import CHANCE, TIE, Choice, choice_of
from epp.telemetry.decision_record import DecisionRecord, FilterRecord, ProfileRecord, ScoreRecord, ScreenRecord
from tests.replay.building import LOAD, RANDOM, chat_record, options, run, steady, tokens_record, trace


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([3.0], Spread(3, 3, 3, 3, 3)),
        ([4.0, 1.0, 2.0, 3.0], Spread(2.5, 2, 4, 4, 4)),
        ([float(v) for v in range(1, 101)], Spread(50.5, 50, 90, 99, 100)),
        ([float(v) for v in range(1, 1001)], Spread(500.5, 500, 900, 990, 1000)),
    ],
)
def test_percentiles_are_values_that_occurred(values: list[float], expected: Spread | None) -> None:
    assert Spread.of(values) == expected


def served(server: int, prompt: int, cached: int, output: int, ttft_s: float, at_s: float = 0.0) -> Outcome:
    return Outcome(1, at_s, server, 200, "", prompt, cached, output, 0.0, 0.1, ttft_s, 2 * ttft_s)


def test_figures_of_a_run() -> None:
    outcomes = [
        served(0, 100, 50, 10, 1.0),
        served(0, 300, 0, 20, 3.0, at_s=30.0),
        served(1, 100, 100, 10, 0.5, at_s=60.0),
        Outcome(4, 59.0, None, 429, "full"),
        Outcome(5, 59.5, 1, 400, "too long"),
        Outcome(6, 59.9, None, 429, "full"),
    ]
    outcomes.sort(key=lambda outcome: outcome.at_s)
    samples = [QueueSample(0.0, (0, 2), (1, 1)), QueueSample(30.0, (4, 0), (1, 1))]
    found = figures(Run("r", "", ("a", "b", "c"), outcomes, samples))
    assert (found.requests, found.served, found.refused) == (6, 3, {"429 full": 2, "400 too long": 1})
    assert found.hit_rate == 150 / 500
    assert found.ttft_s == Spread(1.5, 1.0, 3.0, 3.0, 3.0)
    assert [(s.name, s.requests, s.computed_tokens) for s in found.servers] == [("a", 2, 380), ("b", 1, 10), ("c", 0, 0)]
    assert found.requests_balance == pytest.approx(2 / 1)
    assert found.work_balance == pytest.approx(380 / (390 / 3))
    assert (found.mean_waiting, found.max_waiting) == (1.5, 4)
    assert found.duration_s == 61.0
    assert len(found.course) == INTERVALS
    assert [(round(i.start_s), i.requests, i.hit_rate, i.waiting) for i in found.course if i.requests] == [
        (0, 1, 0.5, 2.0),
        (30, 1, 0.0, 4.0),
        (59, 4, 1.0, 0.0),
    ]


def test_a_run_in_which_nothing_was_served() -> None:
    found = figures(Run("r", "", ("a",), [Outcome(1, 0.0, None, 429, "full")], []))
    assert (found.served, found.hit_rate, found.ttft_s, found.requests_balance, found.work_balance) == (0, 0.0, None, 1.0, 1.0)


# ── why ──

SCORERS = (("queue", 2.0, {"a": 1.0, "b": 0.5, "c": 1.0}), ("prefix", 3.0, {"a": 0.0, "b": 1.0, "c": 0.0}))
TOTALS = {"a": 2.0, "b": 4.0, "c": 2.0}


@pytest.mark.parametrize(
    ("choice", "other", "reason"),
    [
        (Choice("b", SCORERS, TOTALS, {}), "a", "prefix"),
        (Choice("a", SCORERS, TOTALS, {}), "c", TIE),
        (Choice("a", SCORERS, TOTALS, {"d": "by-label"}), "d", "by-label"),
        (Choice("a", (), {}, {}), "b", CHANCE),
        (Choice("a", SCORERS, TOTALS, {}), "b", TIE),
        (Choice("a", SCORERS[:1], {"a": 2.0, "b": 1.0}, {}), "b", "queue"),
    ],
    ids=["scorer", "equal", "filtered", "nothing scored", "drawn in spite of its total", "one scorer"],
)
def test_what_spoke_for_an_endpoint(choice: Choice, other: str, reason: str) -> None:
    assert choice.reason(other) == reason


def test_a_choice_is_what_the_record_of_the_primary_profile_says() -> None:
    record = DecisionRecord(primary="p", picked=["a"], screeners=[ScreenRecord("screen", ["x"], 3)])
    record.profiles = [
        ProfileRecord("other", scorers=[ScoreRecord("no", 1.0, {"a": 1.0})]),
        ProfileRecord(
            "p",
            filters=[FilterRecord("filter", ["y"], 2)],
            scorers=[ScoreRecord("yes", 2.0, {"a": 1.0}), ScoreRecord("failed", 1.0, {}, "it broke")],
            totals={"a": 2.0},
        ),
    ]
    assert choice_of(record) == Choice("a", (("yes", 2.0, {"a": 1.0}),), {"a": 2.0}, {"x": "screen", "y": "filter"})
    assert choice_of(DecisionRecord(error="no endpoint")) is None


def test_two_configurations_are_compared_request_by_request() -> None:
    records = steady(100)
    one, other = run(records, RANDOM, explain=True), run(records, LOAD, explain=True)
    found = disagreement(one, other)
    differ = sum(a.server != b.server for a, b in zip(one.outcomes, other.outcomes, strict=True))
    assert (found.compared, found.differ, found.refused_by_one) == (100, differ, 0)
    assert sum(group.requests for group in found.groups) == differ > 20
    assert [group.requests for group in found.groups] == sorted((group.requests for group in found.groups), reverse=True)
    assert {group.reasons[0] for group in found.groups} == {CHANCE}
    assert {group.reasons[1] for group in found.groups} <= {
        TIE, "queue-scorer", "kv-cache-utilization-scorer", "active-request-scorer",
    }  # fmt: skip
    for group in found.groups:
        assert 1 <= len(group.examples) <= 3
        for example in group.examples:
            (a,) = [outcome for outcome in one.outcomes if outcome.line == example.line]
            assert (a.prompt_tokens, a.cached_tokens, a.ttft_s) == (
                example.prompt_tokens, example.cached_tokens[0], example.ttft_s[0],
            )  # fmt: skip
    same = disagreement(one, one)
    assert (same.differ, same.groups) == (0, ())


def test_requests_that_one_of_two_refuses_are_counted_apart() -> None:
    one = Run("one", "", ("a",), [served(0, 10, 0, 1, 1.0), Outcome(2, 0.0, None, 429, "full")])
    other = Run("other", "", ("a",), [served(0, 10, 0, 1, 1.0), served(0, 10, 0, 1, 1.0)])
    found = disagreement(one, other)
    assert (found.compared, found.differ, found.refused_by_one) == (1, 0, 1)


# ── the bound ──


def found_blocks(found: Bound, tokens: int = 512) -> dict[str, float]:
    return {
        "longest": found.cached_tokens[0] / tokens,
        "joined": found.cached_tokens_joined / tokens,
        "unlimited": found.cached_tokens_unlimited / tokens,
    }


def test_the_bound_of_one_server_is_that_of_its_cache() -> None:
    """Blocks of 512 tokens; the cache has room for three of them and the answer's none. One token is always computed."""
    records = [tokens_record(i, ids, 512 * len(ids), 1) for i, ids in enumerate([[1, 2, 3], [1, 2, 3], [4, 5], [1, 2, 9], [1]])]
    found = bound(trace(records), options(servers=1, kv_blocks=4, block_size=512))
    assert found.requests == 5
    assert found.prompt_tokens == 512 * (3 + 3 + 2 + 3 + 1)
    # 2 of the third block's prompt; nothing of 4, 5; then 1 and 2 again: 3 was evicted for 5; at last nothing, it is one block
    assert found_blocks(found) == {"longest": 4, "joined": 4, "unlimited": 4}


def test_the_bound_of_several_servers_is_that_of_greedy_choice() -> None:
    turns = [[i, 10 + i, 99] for i in range(4)]
    records = [tokens_record(i, ids, 512 * 2 + 1, 1) for i, ids in enumerate([*turns, *turns])]
    one = bound(trace(records), options(servers=1, kv_blocks=4, block_size=512))
    four = bound(trace(records), options(servers=4, kv_blocks=4, block_size=512))
    assert one.cached_tokens[0] == 0, "each conversation is thrown out by the next ones"
    assert four.cached_tokens[0] == four.cached_tokens_joined == four.cached_tokens_unlimited == 4 * 2 * 512
    assert four.hit_rate == four.hit_rate_unlimited


def test_a_common_beginning_sends_everything_to_one_server_unless_it_is_left_aside() -> None:
    """All prompts begin with block 0; taken by the word, the longest match is where that is."""
    conversations = [[0, *range(100 * i, 100 * i + 5)] for i in range(1, 5)]
    records = [tokens_record(i, ids, 512 * 6, 1) for i, ids in enumerate(conversations * 3)]
    found = bound(trace(records), options(servers=4, kv_blocks=8, block_size=512))
    assert found.hit_rate > 3 * found.hit_rate_longest_match
    assert found.least_tokens >= 512
    assert found.hit_rate_longest_match < found.hit_rate <= found.hit_rate_joined <= found.hit_rate_unlimited


def test_what_no_server_takes_does_not_count() -> None:
    records = [chat_record(0, "x" * 4000), {**chat_record(1, "y"), "path": "/v9"}, chat_record(2, "x" * 100)]
    found = bound(trace(records), options(kv_blocks=16))
    assert found.requests == 1


def test_no_replay_finds_more_than_an_unlimited_cache() -> None:
    records = steady(200)
    around = options(kv_blocks=512)
    found = bound(trace(records), around)
    assert found.requests == 200
    for document in (LOAD, RANDOM):
        assert figures(run(records, document, around)).hit_rate <= found.hit_rate_unlimited
