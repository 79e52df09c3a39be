"""A decision in words."""

from __future__ import annotations

from typing import Any

import pytest

from epp.telemetry.decision_record import (
    AdmissionRecord,
    CallRecord,
    DecisionRecord,
    FilterRecord,
    InputRecord,
    OutcomeRecord,
    PrefixRecord,
    ProfileRecord,
    ScoreRecord,
    ScreenRecord,
    Why,
)
from epp.telemetry.decision_text import MAX_SHORT, page, short_form, why_not

A, B, C, D = (f"10.0.0.{i}:8000" for i in (1, 2, 3, 4))


def decision(**changes: Any) -> DecisionRecord:
    """Three candidates, one of which a filter drops; D was screened out."""
    profile = ProfileRecord(
        "default",
        filters=[FilterRecord("role", [C], 2)],
        scorers=[ScoreRecord("queue", 2.0, {A: 1.0, B: 0.5}), ScoreRecord("kv", 1.0, {A: 0.25, B: 0.75})],
        totals={A: 2.25, B: 1.75},
        picker="max",
        picked=[A],
    )
    usual: dict[str, Any] = {
        "why": Why.ASKED,
        "request_id": "r-1",
        "path": "/v1/completions",
        "model": "chat",
        "target_model": "chat-v2",
        "candidates": [A, B, C],
        "inputs": {A: InputRecord(0, 2, 0.5, 0.012), B: InputRecord(3, None, None, None)},
        "prefixes": [PrefixRecord("index", A, 4, 10, 16, matched={A: 4, B: 9})],
        "screeners": [ScreenRecord("rollout", [D], 3)],
        "admission": AdmissionRecord("admitted", 0.25),
        "profiles": [profile],
        "primary": "default",
        "picked": [A],
        "calls": [CallRecord("Scorer", "queue-scorer", "queue", 12e-6), CallRecord("Scorer", "kv", "kv", 1e-6, "broken")],
        "took_s": 0.0015,
        "outcome": OutcomeRecord("natural", 200, A, 0.1, 0.5, 900, True, 160, 20, 48),
    }
    return DecisionRecord(**{**usual, **changes})


FORETOLD = {"verdict": "wait", "priority": 0, "ahead": 3, "why": "it is not its turn yet", "saturation": 0.5, "ceiling": 1.0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "hold it behind 3 in band 0 and above: it is not its turn yet; without limit\nif it went on now:\npicked"),
        (
            {"expected_wait_s": 2.25, "longest_wait_s": 30.0},
            "; some 2.2 s at the rate of the last seconds; refused after 30 s\n",
        ),
        ({"may_evict": True}, "; running requests of a lower priority may be ended for it; without limit\n"),
        ({"verdict": "pass"}, "flow control: would let it pass at once (saturation 0.50, ceiling 1.00)\npicked"),
        ({"verdict": "refuse", "status": 429}, "flow control: would refuse it at once with 429\npicked"),
    ],
)
def test_what_flow_control_would_do(changes: dict[str, Any], told: str) -> None:
    usual = {"may_evict": False, "expected_wait_s": None, "longest_wait_s": None, "status": None}
    shown = page({**decision(admission=None).as_json(), "flow_control": {**FORETOLD, **usual, **changes}})
    assert told in shown
    assert "admission:" not in shown


def test_how_many_were_before_it() -> None:
    held = AdmissionRecord("admitted", 0.25, ahead=4)
    assert "admission: admitted, held for 0.250 s behind 4 others\n" in page(decision(admission=held).as_json())


def test_the_page_of_a_decision() -> None:
    assert page(decision().as_json()) == (
        "request r-1  /v1/completions\n"
        "model chat → chat-v2, priority 0, fairness id -; kept: asked\n"
        "admission: admitted, held for 0.250 s\n"
        "picked 10.0.0.1:8000 (profile default)\n"
        "decided in 1.50 ms\n"
        "\n"
        "prefix of 10 blocks of 16 tokens (index)\n"
        "screener rollout dropped 10.0.0.4:8000\n"
        "profile default\n"
        "     endpoint       waiting  running  kv     age    prefix  queue ×2       kv ×1          total\n"
        "  *  10.0.0.1:8000  0        2        0.500  12 ms  4       1.000 → 2.000  0.250 → 0.250  2.250\n"
        "     10.0.0.2:8000  3        -        -      -      9       0.500 → 1.000  0.750 → 0.750  1.750\n"
        "     10.0.0.3:8000  -        -        -      -      0       dropped by role\n"
        "  max picked 10.0.0.1:8000\n"
        "\n"
        "Scorer kv (kv) failed: broken\n"
        "slowest of 2 plugin calls: queue 12 us, kv 1 us\n"
        "answered by 10.0.0.1:8000 with 200 (natural) in 0.500 s, first byte after 0.100 s\n"
        "tokens: 160 in, 20 out\n"
        "cached prompt tokens: 64 expected, 48 reported\n"
    )


def test_the_page_of_a_refusal() -> None:
    refused = decision(
        status=429, error="no endpoints left", picked=[], profiles=[], candidates=[], prefixes=[], outcome=None, calls=[]
    )
    assert "refused with 429: no endpoints left\n" in page(refused.as_json())
    assert "response is not over" not in page(refused.as_json())


def test_the_page_of_a_response_that_runs() -> None:
    assert page(decision(outcome=None).as_json()).endswith("cached prompt tokens: 64 expected\nthe response is not over\n")


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        pytest.param(A, "profile default: 10.0.0.1:8000 was picked.", id="picked"),
        pytest.param(C, "profile default: 10.0.0.3:8000 was dropped by the filter role, which kept 2.", id="filtered"),
        pytest.param("10.0.0.4", "10.0.0.4:8000 was dropped by the screener rollout.", id="screened, by address"),
        pytest.param(
            B,
            "profile default: 10.0.0.2:8000 had a total of 1.750, 0.500 less than 10.0.0.1:8000:\n"
            "  queue: 0.500 against 1.000, ×2: -1.000\n"
            "  kv: 0.750 against 0.250, ×1: +0.500",
            id="scored less",
        ),
        pytest.param(
            "10.9.9.9:1",
            "10.9.9.9:1 was no candidate: not in the pool, held back, or excluded by the data plane's hint.\n"
            "Candidates: 10.0.0.1:8000, 10.0.0.2:8000, 10.0.0.3:8000, 10.0.0.4:8000",
            id="no candidate",
        ),
    ],
)
def test_why_not(endpoint: str, answer: str) -> None:
    assert why_not(decision().as_json(), endpoint) == answer + "\n"


@pytest.mark.parametrize(
    ("total", "answer"),
    [
        (2.25, "had the same total as 10.0.0.1:8000 (2.250); max chose among equals."),
        (3.0, "had 0.750 more than 10.0.0.1:8000; max does not always take the highest total."),
    ],
)
def test_why_not_one_that_was_not_worse(total: float, answer: str) -> None:
    record = decision()
    record.profiles[0].totals[B] = total
    assert answer in why_not(record.as_json(), B)


def test_the_short_form() -> None:
    assert short_form(decision()) == (
        "picked=10.0.0.1:8000; candidates=3; profile=default; scores=10.0.0.1:8000=2.25,10.0.0.2:8000=1.75; "
        "dropped-by-role=1; prefix=4/10; held=0.250s; took=1.50ms"
    )


def test_the_short_form_fits_into_a_header() -> None:
    text = short_form(decision(picked=[f"host-{i}.example:8000\n" for i in range(100)]))
    assert len(text) <= MAX_SHORT
    assert text.isascii()
