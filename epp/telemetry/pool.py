"""The pool's metrics, computed from one look at the endpoints whenever metrics are exposed.

Nothing is kept between two scrapes, so that an endpoint that left the pool leaves the metrics too, and averages fall to 0
when no endpoint is fresh instead of freezing at their last value.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from epp.telemetry.cardinality import clean
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.instruments import Gauge, LabelValues


class EndpointSample(NamedTuple):
    """One endpoint at the moment of the scrape."""

    name: str
    namespace: str = ""
    is_fresh: bool = False
    """Its metrics are not older than ``--metrics-staleness-threshold``."""
    waiting_queue: int | None = None
    """Requests; None = never read."""
    running_requests: int | None = None
    kv_cache_usage: float | None = None
    """0 to 1."""
    scrape_age_s: float | None = None
    """None = never scraped."""
    scrape_failures: int = 0
    """Since the endpoint is known."""


class PoolSnapshot(NamedTuple):
    """The pool at the moment of the scrape."""

    name: str
    endpoints: Sequence[EndpointSample] = ()


Series = tuple[str, dict[LabelValues, Gauge]]
"""Full name of a family, and its children."""


def pool_series(pool: PoolSnapshot) -> Iterator[Series]:
    """All families of the pool."""
    fresh = [endpoint for endpoint in pool.endpoints if endpoint.is_fresh]
    columns: tuple[tuple[str, list[float]], ...] = (
        ("kv_cache_utilization", _known(endpoint.kv_cache_usage for endpoint in fresh)),
        ("queue_size", _known(endpoint.waiting_queue for endpoint in fresh)),
        ("running_requests", _known(endpoint.running_requests for endpoint in fresh)),
    )
    labels = (clean(pool.name),)
    for suffix, column in columns:
        mean, deviation = mean_and_deviation(column)
        yield f"{PREFIX}average_{suffix}", {labels: _gauge(mean)}
        yield f"{PREFIX}std_dev_{suffix}", {labels: _gauge(deviation)}
    yield f"{PREFIX}ready_endpoints", {labels: _gauge(len(fresh))}
    yield from _per_endpoint(labels, pool.endpoints)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation; 0 and 0 of nothing."""
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _per_endpoint(pool: LabelValues, endpoints: Sequence[EndpointSample]) -> Iterator[Series]:
    queue: dict[LabelValues, Gauge] = {}
    age: dict[LabelValues, Gauge] = {}
    failures: dict[LabelValues, Gauge] = {}
    for label, endpoint in zip(_distinct_names(endpoints), endpoints, strict=True):
        labels = (*pool, label)
        failures[labels] = _gauge(endpoint.scrape_failures)
        if endpoint.waiting_queue is not None:
            queue[labels] = _gauge(endpoint.waiting_queue)
        if endpoint.scrape_age_s is not None:
            age[labels] = _gauge(endpoint.scrape_age_s)
    yield f"{PREFIX}per_endpoint_queue_size", queue
    yield f"{PREFIX}endpoint_scrape_age_seconds", age
    yield f"{PREFIX}endpoint_scrape_failures_total", failures


def _distinct_names(endpoints: Sequence[EndpointSample]) -> list[str]:
    """Names of endpoints; ``namespace/name`` where two namespaces share one, as a series may appear only once."""
    uses = Tally(endpoint.name for endpoint in endpoints)
    return [clean(e.name if uses[e.name] == 1 else f"{e.namespace}/{e.name}") for e in endpoints]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gauge(value: float) -> Gauge:
    gauge = Gauge()
    gauge.set(value)
    return gauge
