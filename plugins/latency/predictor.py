"""The predictor: weights on the event loop, learning in a thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from epp.framework import log
from epp.framework.handle import Runtime
from epp.framework.types import EndpointId
from plugins.latency.features import Columns, Row
from plugins.latency.regression import Key, Regressions, Sample, Target
from plugins.latency.speeds import Speeds

_logger = log.get(__name__)

MOST_WAITING_SAMPLES = 256
"""Observations that wait for the thread; more are dropped. With ``PAUSE_S`` at most 2,560 are learned in a second, some 5 % of
a core, whatever the load."""
PAUSE_S = 0.1
"""Between two batches."""
RETRY_S = 10.0
"""After learning has failed; it then begins anew."""
MOST_ROLES = 16
"""Values of the role label that are told apart; further ones count as none."""
_LONGEST_MS = 3_600_000.0


class Learns(Protocol):
    """What learns; ``Regressions`` except in tests."""

    def learn(self, batch: Sequence[Sample]) -> dict[Key, Row]: ...


class Predictor:
    """Predicts latencies from what was observed.

    Args:
        runtime: where learning happens; None = nothing is learned.
        clock: seconds, monotonic.
        make: makes what learns, at first and after a failure.
        pause_s: between two batches; 0 for a simulation that does not wait.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        clock: Callable[[], float],
        make: Callable[[], Learns] = Regressions,
        *,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._make = make
        self._pause_s = pause_s
        self._model = make()
        self._weights: dict[Key, Row] = {}
        self._speeds = {target: Speeds() for target in Target}
        self._lowest_ms: dict[Target, float] = {}
        self._roles: set[str] = set()
        self._waiting: list[Sample] = []
        self._is_learning = False
        self._retry_at_s = -math.inf
        self.learned = 0
        self.dropped = 0
        self.failures = 0

    # Prediction, on the event loop

    def role(self, value: str) -> str:
        """The role under which an endpoint with this label value is learned."""
        if value in self._roles:
            return value
        if len(self._roles) < MOST_ROLES:
            self._roles.add(value)
            return value
        return ""

    def base_ms(self, key: Key, row: Row) -> float | None:
        """The latency on an endpoint of average speed; None while too little is known."""
        weights = self._weights.get(key)
        if weights is None:
            return None
        return max(sum(w * x for w, x in zip(weights, row, strict=True)), self._floor_ms(key[0]))

    def predict_ms(
        self, target: Target, roles: Sequence[str], ids: Sequence[EndpointId], columns: Columns, output_cap: float
    ) -> list[float | None]:
        """The latency on each endpoint, shape ``(len(ids),)``; None where too little is known.

        Args:
            roles: of the endpoints, as ``role`` gave them.
        """
        kinds = set(roles)
        if len(kinds) <= 1:
            return self._of_role((target, roles[0] if roles else ""), ids, columns, output_cap)
        by_role = {role: self._of_role((target, role), ids, columns, output_cap) for role in kinds}
        return [by_role[role][position] for position, role in enumerate(roles)]

    def _of_role(self, key: Key, ids: Sequence[EndpointId], columns: Columns, output_cap: float) -> list[float | None]:
        weights = self._weights.get(key)
        if weights is None:
            return [None] * len(ids)
        constant, w0, w1, w2, w3, w4, w5, w6, w7, per_cap = weights
        constant += per_cap * output_cap
        floor = self._floor_ms(key[0])
        speeds = self._speeds[key[0]]
        factors = [speeds.factor(endpoint_id) for endpoint_id in ids]
        return [
            max(constant + w0 * a + w1 * b + w2 * c + w3 * d + w4 * e + w5 * f + w6 * g + w7 * h, floor) * factor
            for a, b, c, d, e, f, g, h, factor in zip(*columns, factors, strict=True)
        ]

    def _floor_ms(self, target: Target) -> float:
        """A line can cross 0, a latency cannot: nothing is predicted below half of the shortest that was seen."""
        return self._lowest_ms.get(target, 0.0) * 0.5

    # Learning

    def observe(self, endpoint_id: EndpointId, key: Key, row: Row, value_ms: float) -> None:
        """Learn from what was measured; what is no latency is ignored."""
        if not 0.0 < value_ms <= _LONGEST_MS:
            return
        target = key[0]
        self._lowest_ms[target] = min(value_ms, self._lowest_ms.get(target, value_ms))
        speeds = self._speeds[target]
        expected = self.base_ms(key, row)
        factor = speeds.factor(endpoint_id)
        if expected is not None:
            speeds.observe(endpoint_id, value_ms / expected)
        if len(self._waiting) >= MOST_WAITING_SAMPLES:
            self.dropped += 1
            return
        self._waiting.append(Sample(key, row, value_ms / factor, expected))
        self._start()

    def forget(self, endpoint_id: EndpointId) -> None:
        """The endpoint is gone."""
        for speeds in self._speeds.values():
            speeds.forget(endpoint_id)

    def state(self) -> dict[str, object]:
        """For the debug page."""
        return {
            "learned": self.learned,
            "dropped": self.dropped,
            "failures": self.failures,
            "waiting": len(self._waiting),
            "weights": {f"{target.name.lower()}/{role}": list(row) for (target, role), row in self._weights.items()},
            "speeds": {target.name.lower(): speeds.state() for target, speeds in self._speeds.items()},
        }

    def _start(self) -> None:
        if self._runtime is None or self._is_learning or self._clock() < self._retry_at_s:
            return
        self._is_learning = True
        _ = self._runtime.spawn(self._learn(self._runtime), "latency prediction")

    async def _learn(self, runtime: Runtime) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                learning: Awaitable[dict[Key, Row]] = runtime.offload(self._model.learn, batch)
                self._weights = await learning
                self.learned += len(batch)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        except Exception:
            self._begin_anew()
            raise
        finally:
            self._is_learning = False

    def _begin_anew(self) -> None:
        """Without weights nothing is predicted, and what reads predictions does without."""
        self.failures += 1
        self._retry_at_s = self._clock() + RETRY_S
        self._model = self._make()
        self._weights = {}
        self._waiting = []
        _logger.warning("latency prediction begins anew: learning failed", retry_s=RETRY_S)
