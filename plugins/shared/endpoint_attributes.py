"""Numbers that extractors read from endpoints, as columns by their attribute name; shared by attribute filter and scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

from epp.framework.candidates import Candidates
from epp.framework.keys import KV_CACHE_USAGE, RUNNING_REQUESTS, WAITING_QUEUE
from epp.framework.params import no_producer

Column = Callable[[Candidates], Sequence[float | None]]
"""One value for each candidate; None = missing."""


def attribute_column(name: str) -> Column:
    """The column of an attribute: one of the metrics extractor's own names, else what an extractor wrote under it."""
    match name:
        case WAITING_QUEUE.name:
            return lambda candidates: candidates.waiting_queue
        case RUNNING_REQUESTS.name:
            return lambda candidates: candidates.running_requests
        case KV_CACHE_USAGE.name:
            return lambda candidates: [_number(usage) for usage in candidates.kv_cache_usage]
    return lambda candidates: [_number(metrics.attributes.get(name)) for metrics in candidates.metrics]


def check_attribute(plugin: str, parameter: str, attribute: str, producer: str) -> None:
    """An attribute and its producer are two parameters, while data keys show them as one name.

    Args:
        plugin: type that reads it.
        parameter: YAML key of the attribute.
        attribute: its value.
        producer: value of ``producer``.

    Raises:
        PydanticCustomError: both are written as one name.
    """
    if "/" not in attribute or producer:
        return
    name, _, writer = attribute.partition("/")
    raise no_producer(
        f"{plugin} reads the attribute {attribute!r}, not one of the metrics extractor's; "
        f"write `{parameter}: {name}` and name its producer: `producer: {writer}`"
    )


def _number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    return value
