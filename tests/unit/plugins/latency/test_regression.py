"""The regressions themselves, with the real library."""

from __future__ import annotations

import math
import random

import pytest

from plugins.latency.features import FEATURES, Row
from plugins.latency.regression import MIN_SAMPLES, Key, Regression, Regressions, Sample, Target

KEY: Key = (Target.FIRST_TOKEN, "")


def row(rng: random.Random) -> Row:
    return (1.0, *(rng.random() for _ in FEATURES[1:-2]), 0.0, 0.0)


def dot(weights: Row, features: Row) -> float:
    return sum(w * x for w, x in zip(weights, features, strict=True))


TRUTH: Row = (50.0, 200.0, 30.0, 10.0, 5.0, 40.0, 0.0, 100.0, 0.0, 0.0)
SLOWER: Row = (150.0, 600.0, 0.0, 10.0, 5.0, 40.0, 0.0, 10.0, 0.0, 0.0)


def train(regression: Regression, truth: Row, count: int, rng: random.Random) -> None:
    for _ in range(count):
        features = row(rng)
        regression.learn(Sample(KEY, features, dot(truth, features) * rng.uniform(0.9, 1.1), None))


def error(regression: Regression, truth: Row, rng: random.Random) -> float:
    """Mean relative error on new rows."""
    weights = regression.weights()
    assert weights is not None
    rows = [row(rng) for _ in range(100)]
    return sum(abs(dot(weights, r) / dot(truth, r) - 1) for r in rows) / len(rows)


def test_a_line_is_found_in_a_hundred_noisy_observations() -> None:
    rng = random.Random(1)
    regression = Regression(100)
    train(regression, TRUTH, 100, rng)
    assert error(regression, TRUTH, rng) < 0.1


def test_what_has_changed_is_learned_anew() -> None:
    rng = random.Random(2)
    regression = Regression(100)
    train(regression, TRUTH, 1000, rng)
    train(regression, SLOWER, 400, rng)
    assert error(regression, SLOWER, rng) < 0.1


def test_features_that_never_change_do_not_break_it() -> None:
    rng = random.Random(3)
    regression = Regression(20)
    constant: Row = (1.0, 0.3) + (0.0,) * (len(FEATURES) - 2)
    for _ in range(3000):
        regression.learn(Sample(KEY, constant, 100.0 * rng.uniform(0.9, 1.1), 100.0))
    weights = regression.weights()
    assert weights is not None
    assert dot(weights, constant) == pytest.approx(100.0, rel=0.05)
    assert all(math.isfinite(weight) for weight in weights)


def test_few_observations_are_not_believed() -> None:
    rng = random.Random(4)
    regression = Regression(100)
    train(regression, TRUTH, MIN_SAMPLES - 1, rng)
    assert regression.weights() is None
    train(regression, TRUTH, 1, rng)
    assert regression.weights() is not None


def test_keys_are_learned_apart() -> None:
    rng = random.Random(5)
    fast, slow = (Target.PER_TOKEN, "a"), (Target.PER_TOKEN, "b")
    regressions = Regressions()
    batch = [Sample(key, row(rng), value, None) for _ in range(50) for key, value in ((fast, 10.0), (slow, 30.0))]
    weights = regressions.learn([*batch, Sample(KEY, row(rng), 1.0, None)])
    assert set(weights) == {fast, slow}
    features = row(rng)
    assert dot(weights[slow], features) == pytest.approx(3 * dot(weights[fast], features), rel=0.02)


def test_a_breakdown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    regression = Regression(100)
    train(regression, TRUTH, MIN_SAMPLES, random.Random(6))
    monkeypatch.setattr(regression._model, "predict_one", lambda x: math.nan)
    with pytest.raises(ArithmeticError, match=f"latency regression broke down after {MIN_SAMPLES} observations"):
        regression.weights()
