"""The ext_proc streams' metrics, taken from the transport's own counts whenever metrics are exposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from epp.telemetry.cardinality import clean
from epp.telemetry.catalogue import HANDOVER_S, PREFIX, STREAM_S
from epp.telemetry.instruments import Counter, Gauge, Histogram, LabelValues

Series = tuple[str, Mapping[LabelValues, Counter | Gauge | Histogram]]
"""Full name of a family, and its children."""


class StreamStats(Protocol):
    """What a transport counts (``handler.TransportStats``)."""

    @property
    def open_streams(self) -> int: ...
    @property
    def ended(self) -> Mapping[str, int]: ...
    @property
    def hold_counts(self) -> tuple[int, ...]:
        """Stream durations counted by ``catalogue.STREAM_S``, shape ``(len(STREAM_S) + 1,)``; () = not counted."""
        ...

    @property
    def hold_sum_s(self) -> float: ...
    @property
    def buffered_bytes(self) -> int: ...
    @property
    def handover_counts(self) -> tuple[int, ...]:
        """Waits for the event loop counted by ``catalogue.HANDOVER_S``, one more for all above; () = there are none."""
        ...

    @property
    def handover_sum_s(self) -> float: ...


def stream_series(stats: StreamStats, *, detailed: bool) -> Iterator[Series]:
    """The families of the streams; ``extproc_stream*`` only if ``detailed``.

    Raises:
        ValueError: the transport counts by other bounds than those of the catalogue.
    """
    buffered = Gauge()
    buffered.set(stats.buffered_bytes)
    yield f"{PREFIX}extproc_buffered_bytes", {(): buffered}
    handovers = Histogram(HANDOVER_S)
    if stats.handover_counts:
        handovers.add_counts(stats.handover_counts, stats.handover_sum_s)
    yield f"{PREFIX}extproc_handover_duration_seconds", {(): handovers}
    if not detailed:
        return
    inflight = Gauge()
    inflight.set(stats.open_streams)
    durations = Histogram(STREAM_S)
    if stats.hold_counts:
        durations.add_counts(stats.hold_counts, stats.hold_sum_s)
    ended: dict[LabelValues, Counter] = {}
    for code, count in stats.ended.items():
        ended.setdefault((clean(code),), Counter()).inc(count)
    yield f"{PREFIX}extproc_streams_inflight", {(): inflight}
    yield f"{PREFIX}extproc_stream_duration_seconds", {(): durations}
    yield f"{PREFIX}extproc_streams_total", ended
