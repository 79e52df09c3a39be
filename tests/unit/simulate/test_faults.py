"""Faults as they are written and as they are drawn."""

from __future__ import annotations

import pytest

from epp.errors import UsageError
from epp.simulate.faults import ERROR_STATUSES, Fault, FaultKind, FaultPlan, parse_fault


@pytest.mark.parametrize(
    ("text", "fault", "server"),
    [
        ("hang", Fault(FaultKind.HANG), None),
        ("5xx:0.25", Fault(FaultKind.ERROR, 0.25), None),
        ("reset:1@sim-3", Fault(FaultKind.RESET), "sim-3"),
        ("metrics-half@0", Fault(FaultKind.METRICS_HALF), "0"),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault, server: str | None) -> None:
    assert parse_fault(text) == (fault, server)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("explode", "there is no fault 'explode'; the kinds are refuse, reset, hang"),
        ("", "there is no fault ''"),
        ("hang:often", "the rate 'often' is not a number; write for example hang:0.1"),
        ("hang:", "the rate '' is not a number"),
        ("hang:0", "the rate of fault hang must be above 0 and at most 1, is 0"),
        ("hang:nan", "must be above 0 and at most 1, is nan"),
        ("5xx:1.5", "must be above 0 and at most 1, is 1.5"),
        ("refuse:0.5", "refuse closes the port, so it cannot have a rate"),
    ],
)
def test_a_wrong_fault_is_explained(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert problem in str(caught.value)


def test_faults_of_metrics_and_of_the_rest_are_apart() -> None:
    plan = FaultPlan([Fault(FaultKind.METRICS_HANG), Fault(FaultKind.RESET)])
    assert plan.draw(metrics=True) is FaultKind.METRICS_HANG
    assert plan.draw(metrics=False) is FaultKind.RESET


def test_a_rate_hits_its_share_and_the_same_ones_for_the_same_seed() -> None:
    def hits(seed: int) -> list[bool]:
        plan = FaultPlan([Fault(FaultKind.ERROR, 0.3)], seed)
        return [plan.draw(metrics=False) is not None for _ in range(2000)]

    assert hits(1) == hits(1) != hits(2)
    assert 500 < sum(hits(1)) < 700


def test_refuse_concerns_the_port_only() -> None:
    plan = FaultPlan([Fault(FaultKind.REFUSE)])
    assert plan.refuses
    assert plan.draw(metrics=False) is None
    plan.replace(())
    assert not plan.refuses


def test_error_statuses_vary() -> None:
    plan = FaultPlan()
    assert {plan.error_status() for _ in range(100)} == {*ERROR_STATUSES}
