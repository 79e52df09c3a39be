"""One decision compared with what was done, and all of them counted."""

from __future__ import annotations

import pytest

from epp.telemetry.choice import CHANCE, TIE
from epp.telemetry.decision_record import DecisionRecord, FilterRecord, ProfileRecord, ScoreRecord, ScreenRecord
from epp.telemetry.shadow_comparison import EXAMPLES, NO_CANDIDATE, RECENT, ShadowTally, Verdict, compare, without_pick
from epp.telemetry.shadow_text import page

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"


def decided(
    *scorers: ScoreRecord, filters: tuple[FilterRecord, ...] = (), candidates: tuple[str, ...] = (A, B)
) -> DecisionRecord:
    """A decision for A."""
    left = [each for each in candidates if not any(each in step.dropped for step in filters)]
    totals = {each: sum(scorer.weight * scorer.scores.get(each, 0.0) for scorer in scorers) for each in left}
    run = ProfileRecord("p", list(filters), list(scorers), totals, picked=[A])
    return DecisionRecord(request_id="r", model="m", candidates=list(candidates), profiles=[run], primary="p", picked=[A])


QUEUE = ScoreRecord("queue", 1.0, {A: 0.25, B: 1.0})
PREFIX = ScoreRecord("prefix", 2.0, {A: 0.875, B: 0.0})
EQUAL = ScoreRecord("equal", 3.0, {A: 0.5, B: 0.5})


@pytest.mark.parametrize(
    ("record", "reason", "margin"),
    [
        pytest.param(decided(QUEUE, PREFIX), "prefix", 1.0, id="the scorer that speaks most for it"),
        pytest.param(decided(EQUAL), TIE, 0.0, id="a draw"),
        pytest.param(decided(), CHANCE, None, id="nothing was scored"),
        pytest.param(decided(PREFIX, filters=(FilterRecord("tier", [B], 1),)), "tier", None, id="a filter dropped the other"),
        pytest.param(decided(PREFIX, candidates=(A, C)), NO_CANDIDATE, None, id="the other has left"),
    ],
)
def test_why_it_would_go_elsewhere(record: DecisionRecord, reason: str, margin: float | None) -> None:
    found = compare(record, live=B, shadow=A, prefix_tokens=64)
    assert (found.verdict, found.live, found.shadow, found.reason) == (Verdict.DISAGREE, B, A, reason)
    assert found.margin == margin
    assert found.prefix_tokens == 64


def test_a_screener_that_dropped_the_other() -> None:
    record = decided(PREFIX, candidates=(A,))
    record.screeners.append(ScreenRecord("rollout", [B], 1))
    assert compare(record, B, A, None).reason == "rollout"


def test_the_same_endpoint_is_agreement_whatever_was_scored() -> None:
    found = compare(decided(QUEUE, PREFIX), A, A, 0)
    assert (found.verdict, found.reason, found.margin, found.prefix_tokens) == (Verdict.AGREE, "", None, None)


def test_the_tally() -> None:
    tally = ShadowTally()
    assert tally.disagreement is None
    for tokens in (64, -16, None):
        tally.add(compare(decided(QUEUE, PREFIX), B, A, tokens))
    tally.add(compare(decided(EQUAL), B, A, None))
    tally.add(compare(decided(EQUAL), A, A, None))
    tally.add(without_pick(DecisionRecord(request_id="r"), A, Verdict.REFUSED, "full"))
    tally.skip("queue")
    shown = tally.as_json()
    assert shown["compared"] == 6
    assert shown["verdicts"] == {"agree": 1, "disagree": 4, "refused": 1, "failed": 0}
    assert shown["disagreement"] == 0.8, "of the requests for which both have picked"
    prefix, draw = tally.reasons["prefix"].as_json(), tally.reasons[TIE].as_json()
    assert list(tally.reasons) == ["prefix", TIE]
    assert (prefix["requests"], prefix["mean_margin"], prefix["max_margin"]) == (3, 1.0, 1.0)
    assert (prefix["prefix_tokens_won"], prefix["prefix_tokens_lost"]) == (64, 16)
    assert (draw["mean_margin"], draw["prefix_tokens_won"]) == (0.0, None)
    assert shown["skipped"] == {"queue": 1}
    assert shown["effect"] == {
        "rated": 4, "mean_margin": 0.75, "max_margin": 1.0, "prefix_tokens_won": 64, "prefix_tokens_lost": 16
    }  # fmt: skip
    assert tally.count == 7, "those that were not shown included"


def test_it_does_not_grow_with_the_requests() -> None:
    tally = ShadowTally()
    for _ in range(3 * RECENT):
        tally.add(compare(decided(PREFIX), B, A, None))
    assert (len(tally.recent), len(tally.reasons["prefix"].examples)) == (RECENT, EXAMPLES)


def test_for_people() -> None:
    tally = ShadowTally()
    tally.add(compare(decided(QUEUE, PREFIX), B, A, 64))
    tally.add(without_pick(DecisionRecord(request_id="r-2"), B, Verdict.FAILED, "a plugin failed"))
    tally.since_s = 0.0
    about = {
        "source": "shadow.yaml",
        "sha256": "ab" * 32,
        "live": {"sha256": "cd" * 32},
        "restart": ["dataLayer"],
        "share": 0.25,
    }
    assert page({**about, "plugin_errors": {"bad": 2}, **tally.as_json()}) == (
        "shadow shadow.yaml (abababababab) beside cdcdcdcdcdcd\n"
        "  to serve by it takes a restart: dataLayer\n"
        "  since 1970-01-01T00:00:00+00:00, shown 25% of the requests\n"
        "2 requests compared: 100.0% sent elsewhere\n"
        "  agree 0, disagree 1, refused 0, failed 1\n"
        "  expected where it differs: its own endpoints rated 1.000 higher (1 rated); 64 prompt tokens more cached, 0 fewer\n"
        "  its plugin bad failed 2 times\n"
        "\n"
        "reason  requests  mean margin  max margin  tokens won  tokens lost\n"
        "prefix         1        1.000       1.000          64            0\n"
        "\n"
        f"r: went to {B}, the shadow sends it to {A} (prefix; margin 1.000, prefix tokens +64)\n"
        f"r-2: went to {B}, the shadow failed: a plugin failed\n"
    )
