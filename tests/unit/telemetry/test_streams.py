"""The transport's counts as metrics."""

from __future__ import annotations

import pytest

from epp.seam import TransportStats
from epp.telemetry.catalogue import HANDOVER_S, STREAM_S
from epp.telemetry.metrics import Metrics, MetricsOptions
from tests.unit.telemetry.scrape import value

STATS = TransportStats(
    open_streams=3,
    ended={"OK": 5, "CANCELLED": 1},
    hold_counts=(0, 6, *([0] * (len(STREAM_S) - 1))),
    hold_sum_s=0.02,
    buffered_bytes=4096,
)


def watched(stats: TransportStats, *, stream_metrics: bool) -> Metrics:
    metrics = Metrics(MetricsOptions(stream_metrics=stream_metrics))
    metrics.watch_transport(lambda: stats)
    return metrics


def test_streams_are_counted_by_code_and_duration() -> None:
    metrics = watched(STATS, stream_metrics=True)
    assert value(metrics, "llm_d_epp_extproc_streams_inflight") == 3
    assert value(metrics, "llm_d_epp_extproc_streams_total", code="OK") == 5
    assert value(metrics, "llm_d_epp_extproc_streams_total", code="CANCELLED") == 1
    assert value(metrics, "llm_d_epp_extproc_stream_duration_seconds_bucket", le="0.001") == 0
    assert value(metrics, "llm_d_epp_extproc_stream_duration_seconds_bucket", le="0.005") == 6
    assert value(metrics, "llm_d_epp_extproc_stream_duration_seconds_sum") == 0.02


def test_buffered_bytes_are_shown_without_the_flag_and_streams_are_not() -> None:
    metrics = watched(STATS, stream_metrics=False)
    assert value(metrics, "llm_d_epp_extproc_buffered_bytes") == 4096
    assert b"extproc_stream" not in metrics.exposition()


def test_waits_for_the_event_loop_are_shown_where_a_transport_has_them() -> None:
    assert b"extproc_handover" not in watched(STATS, stream_metrics=True).exposition()
    counts = (*([0] * (len(HANDOVER_S) - 1)), 7, 2)
    metrics = watched(STATS._replace(handover_counts=counts, handover_sum_s=5.0), stream_metrics=False)
    assert value(metrics, "llm_d_epp_extproc_handover_duration_seconds_bucket", le="0.25") == 0
    assert value(metrics, "llm_d_epp_extproc_handover_duration_seconds_bucket", le="1") == 7
    assert value(metrics, "llm_d_epp_extproc_handover_duration_seconds_count") == 9


def test_durations_counted_by_other_bounds_are_a_defect() -> None:
    metrics = watched(STATS._replace(hold_counts=(1, 2)), stream_metrics=True)
    with pytest.raises(ValueError, match="both must be counted by the same bounds"):
        metrics.exposition()
