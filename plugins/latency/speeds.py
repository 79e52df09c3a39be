"""How fast each endpoint is in relation to the others: servers of a pool may have different hardware."""

from __future__ import annotations

import math

from epp.framework.types import EndpointId

_DECAY = 0.02
"""Weight of one observation: some 50 are remembered."""
_MOST = 1.5
"""One observation counts as at most 4.5 times as slow or as fast as expected (natural logarithm)."""
_DOUBT = 5
"""Observations at which half of what was seen is believed."""
_MOST_ENDPOINTS = 10_000
"""A request that was decided before its endpoint went away may end after that; what it leaves behind is bounded so."""


class Speeds:
    """A factor for each endpoint, 1 for one that is as fast as the average.

    The mean of the logarithm of measured over expected latency, in relation to that of all endpoints.
    """

    def __init__(self) -> None:
        self._seen: dict[EndpointId, tuple[float, int]] = {}
        self._factors: dict[EndpointId, float] = {}
        self._sum = 0.0

    def factor(self, endpoint_id: EndpointId) -> float:
        """How much longer the endpoint takes than the average one."""
        return self._factors.get(endpoint_id, 1.0)

    def observe(self, endpoint_id: EndpointId, ratio: float) -> None:
        """Take in one measured latency in relation to the expected one."""
        mean, count = self._seen.get(endpoint_id, (0.0, 0))
        if not count and len(self._seen) >= _MOST_ENDPOINTS:
            self.forget(next(iter(self._seen)))
        error = min(max(math.log(ratio), -_MOST), _MOST)
        changed = mean + max(_DECAY, 1.0 / (count + 1)) * (error - mean)
        self._seen[endpoint_id] = (changed, count + 1)
        self._sum += changed - mean
        average = self._sum / len(self._seen)
        count += 1
        self._factors[endpoint_id] = math.exp((changed - average) * count / (count + _DOUBT))

    def forget(self, endpoint_id: EndpointId) -> None:
        """The endpoint is gone."""
        mean, _ = self._seen.pop(endpoint_id, (0.0, 0))
        self._sum = self._sum - mean if self._seen else 0.0
        self._factors.pop(endpoint_id, None)

    def state(self) -> dict[str, float]:
        """Factors by endpoint."""
        return {endpoint_id: round(factor, 3) for endpoint_id, factor in self._factors.items()}
