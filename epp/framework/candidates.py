"""Candidates: the endpoints of one decision, with their metrics as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import compress
from typing import overload

from epp.framework.types import Endpoint, EndpointId, EndpointMetrics, Freshness


class Candidates(Sequence[Endpoint]):
    """An immutable view; every column has the order of the endpoints and is built when first read.

    All metrics are those of one moment, so that every scorer of a decision sees the same numbers. Only their age is as of now.

    Args:
        endpoints: in the order of declaration.
        metrics: of each endpoint.
        freshness: of each endpoint; None = none was ever read.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        metrics: Sequence[EndpointMetrics],
        freshness: Sequence[Freshness] | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.metrics = metrics
        self._freshness = freshness
        self.memo: dict[object, object] = {}
        """What depends on these candidates alone, by who computed it; for all requests that share this view."""

    def __len__(self) -> int:
        return len(self.endpoints)

    @overload
    def __getitem__(self, index: int) -> Endpoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Endpoint]: ...
    def __getitem__(self, index: int | slice) -> Endpoint | Sequence[Endpoint]:
        return self.endpoints[index]

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self.endpoints)

    def where(self, keep: Sequence[object]) -> Candidates:
        """The candidates whose entry in ``keep`` is true, in the same order.

        Args:
            keep: one truth value for each candidate.
        """
        if all(keep):
            return self
        freshness = self._freshness
        return Candidates(
            list(compress(self.endpoints, keep)),
            list(compress(self.metrics, keep)),
            list(compress(freshness, keep)) if freshness is not None else None,
        )

    def select(self, positions: Iterable[int]) -> Candidates:
        """The candidates at these positions, in this order."""
        chosen = list(positions)
        freshness = self._freshness
        return Candidates(
            [self.endpoints[i] for i in chosen],
            [self.metrics[i] for i in chosen],
            [freshness[i] for i in chosen] if freshness is not None else None,
        )

    @property
    def updated_s(self) -> list[float | None]:
        """``time.monotonic()`` of the last good scrape of each endpoint; None = never read.

        Looked up anew each time, as it moves while metrics and memos stay: a ``per_snapshot`` plugin must not depend on it.
        """
        if self._freshness is None:
            return [None] * len(self.endpoints)
        return [freshness.updated_s for freshness in self._freshness]

    @cached_property
    def ids(self) -> list[EndpointId]:
        """The id of each endpoint, for lookups in what is kept per endpoint."""
        return [endpoint.id for endpoint in self.endpoints]

    @cached_property
    def waiting_queue(self) -> list[int | None]:
        """Requests waiting in each server; None before the first scrape."""
        return [m.waiting_queue for m in self.metrics]

    @cached_property
    def running_requests(self) -> list[int | None]:
        """Requests running in each server; None before the first scrape."""
        return [m.running_requests for m in self.metrics]

    @cached_property
    def kv_cache_usage(self) -> list[float | None]:
        """Used fraction of each KV cache; None before the first scrape."""
        return [m.kv_cache_usage for m in self.metrics]
