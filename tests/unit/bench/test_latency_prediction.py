"""The benchmark of latency prediction: what it must show, and that it repeats itself."""

from __future__ import annotations

import pytest

from bench.latency_prediction import WARM_UP, Load, costs, errors, main


@pytest.mark.timeout(60)
def test_the_predictor_halves_the_error_of_the_mean_so_far() -> None:
    for found in errors(Load()):
        assert found.predicted * 2 <= found.trivial


def test_the_same_seed_gives_the_same_figures() -> None:
    load = Load(requests=WARM_UP + 100, seed=3)
    assert errors(load) == errors(load)


def test_costs_are_measured() -> None:
    assert all(cost > 0 for cost in costs(endpoints=3, calls=3))


def test_the_command_prints_errors_costs_and_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--requests", str(WARM_UP + 20)])
    printed = capsys.readouterr().out
    for words in ("time to first token", "time per token", "100 endpoints", "learn", "calibration"):
        assert words in printed
