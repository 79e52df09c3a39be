"""What the overload benchmark concludes from its figures."""

from __future__ import annotations

from typing import Any

import pytest

from bench.overload import Class, _judge

FIGURES: dict[str, Any] = {
    "capacity": 100.0,
    "alone_p90_ms": 200.0,
    "interactive_p90_ms": 230.0,
    "goodput": 97.0,
    "tenants": [500, 470],
    "sent": 1000,
    "answers": 1000,
    "outcomes": {"Dispatched": 700, "RejectedCapacity": 300},
}


@pytest.mark.parametrize(
    ("change", "most", "broken"),
    [
        pytest.param({}, 1, [], id="all holds"),
        pytest.param({"interactive_p90_ms": 250.0}, 1, ["p90 of interactive requests"], id="slow"),
        pytest.param({"goodput": 94.0}, 1, ["goodput"], id="idle"),
        pytest.param({"tenants": [500, 440]}, 1, ["tenants apart"], id="unfair"),
        pytest.param({"answers": 999}, 1, ["requests without an answer"], id="lost"),
        pytest.param({}, 2, ["answers to one request"], id="twice"),
        pytest.param({"outcomes": {"Dispatched": 700}}, 1, ["outcomes counted"], id="uncounted"),
    ],
)
def test_what_does_not_hold_is_said(
    change: dict[str, Any], most: int, broken: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _judge({**FIGURES, **change}, most)
    said = [line for line in capsys.readouterr().out.splitlines() if line.endswith("DOES NOT HOLD")]
    assert len(said) == len(broken)
    assert all(line.startswith(name) for line, name in zip(said, broken, strict=True))


def test_only_what_was_served_within_the_phase_counts() -> None:
    kind = Class("normal", 1.0, {}, latencies_s=[0.1, 0.2, 0.3], ended_s=[1.0, 2.0, 3.5], until_s=3.0)
    assert kind.served == 2
    assert kind.p90_ms() > 250
