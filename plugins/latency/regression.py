"""Regressions that learn one observation at a time, with ``river``.

Imported by a thread, at the first use: river brings NumPy and SciPy, some 95 MiB and more than a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from plugins.latency.features import Row

EXTRA = "latency"
MIN_SAMPLES = 20
"""Observations before a regression is believed: two for each feature."""
_UNIT_MS = 100.0
"""Latencies are learned in this unit, so that usual ones lie around 1 as the features do."""
_PRIOR_VARIANCE = 100.0
"""Of each coefficient before the first observation: one observation outweighs it."""
_RIDGE = 1e-3
"""Weight that pulls each coefficient to 0, in observations."""
_RIDGE_EVERY = 32


class Target(IntEnum):
    """The latencies that are learned."""

    FIRST_TOKEN = 0
    """From the decision to the first chunk of a stream."""
    WHOLE_ANSWER = 1
    """From the decision to the first byte of an answer that is not streamed: nearly its end."""
    PER_TOKEN = 2
    """Time per output token after the first."""


MEMORY = {Target.FIRST_TOKEN: 100, Target.WHOLE_ANSWER: 100, Target.PER_TOKEN: 500}
"""Observations after which the weight of one has fallen to 1/e. Queues come and go, so what a first token waits for changes
faster than what a decoding step costs (measured with ``bench.latency_prediction``)."""

Key = tuple[Target, str]
"""What is learned, and the role of the endpoints."""


class Sample(NamedTuple):
    """One observation."""

    key: Key
    row: Row
    value_ms: float
    expected_ms: float | None
    """What was predicted; None = nothing yet."""


class _Model(Protocol):
    """The part of ``river.base.Regressor`` that is used."""

    def learn_one(self, x: dict[int, float], y: float) -> None: ...
    def predict_one(self, x: dict[int, float]) -> float: ...


def require_library() -> None:
    """Check that river can be imported, without importing it.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec("river") is None:
        msg = (
            "latency prediction needs the package river, which is not installed: "
            f"install the extra {EXTRA!r} (pip install 'endpoint-picker[{EXTRA}]')"
        )
        raise ValueError(msg)


def load_library() -> None:
    """Import river; slow, for a thread."""
    importlib.import_module("river.linear_model")


class Regression:
    """Linear regression by recursive least squares that forgets (river's BayesianLinearRegression with smoothing).

    Errors count in relation to the latency: each observation is divided by the geometric mean of what was expected and
    what came, so that 10 ms at 100 ms weigh as 1 s at 10 s. The arithmetic of forgetting becomes singular when a feature is
    constant for long; small pseudo-observations of 0 keep it regular.

    Args:
        memory: observations after which the weight of one has fallen to 1/e.
    """

    def __init__(self, memory: int) -> None:
        module = importlib.import_module("river.linear_model")
        self._model: _Model = module.BayesianLinearRegression(alpha=_PRIOR_VARIANCE, smoothing=1.0 - 1.0 / memory)
        self._count = 0
        self._size = 0

    def learn(self, sample: Sample) -> None:
        """Take in one observation."""
        value = sample.value_ms
        expected = value if sample.expected_ms is None else max(sample.expected_ms, value * 0.01)
        scale = _UNIT_MS / math.sqrt(value * expected)
        self._model.learn_one({index: x * scale for index, x in enumerate(sample.row)}, value / _UNIT_MS * scale)
        self._count += 1
        self._size = len(sample.row)
        if self._count % _RIDGE_EVERY == 0:
            for index in range(self._size):
                self._model.learn_one({index: math.sqrt(_RIDGE * _RIDGE_EVERY)}, 0.0)

    def weights(self) -> Row | None:
        """The coefficients, ms per unit of each feature; None while there were too few observations.

        Raises:
            ArithmeticError: the regression has broken down.
        """
        if self._count < MIN_SAMPLES:
            return None
        found = tuple([self._model.predict_one({index: 1.0}) * _UNIT_MS for index in range(self._size)])
        if not all(math.isfinite(weight) for weight in found):
            msg = f"latency regression broke down after {self._count} observations: {found}"
            raise ArithmeticError(msg)
        return found


class Regressions:
    """One regression for each key. Used by one thread at a time; the event loop only sees the weights."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Regression] = {}

    def learn(self, batch: Sequence[Sample]) -> dict[Key, Row]:
        """Take in observations.

        Returns:
            The weights of all regressions that have enough of them.

        Raises:
            ArithmeticError: a regression has broken down.
        """
        for sample in batch:
            regression = self._by_key.get(sample.key)
            if regression is None:
                regression = self._by_key[sample.key] = Regression(MEMORY[sample.key[0]])
            regression.learn(sample)
        found = {key: regression.weights() for key, regression in self._by_key.items()}
        return {key: weights for key, weights in found.items() if weights is not None}
