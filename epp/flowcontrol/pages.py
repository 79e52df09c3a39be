"""What is shown of flow control: the queues for the metrics page, and ``/debug/queues``."""

from __future__ import annotations

from math import inf, isfinite

from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.queues import Band, Flow
from epp.telemetry.flow_control import BandSnapshot, QueueSnapshot

MAX_FLOWS = 50
"""Of one band that the page shows, the longest first: clients can invent any number."""


def snapshot(control: FlowController, now_s: float) -> QueueSnapshot:
    """The queues as they are.

    Args:
        now_s: monotonic.
    """
    endpoints = control.endpoints()
    reading = control.saturation.read(endpoints)
    evictor = control.evictor
    return QueueSnapshot(
        bands=tuple(_band(band, now_s) for band in control.bands.ordered),
        effective=reading.effective,
        prefill=reading.prefill,
        decode=reading.decode,
        detector=control.settings.detector.name,
        stale=control.saturation.stale_endpoints(endpoints),
        max_requests=control.settings.max_requests,
        max_bytes=control.settings.max_bytes,
        evicts=evictor is not None,
        reclaim_target=evictor.target if evictor is not None else 0.0,
        pending_reclaim=evictor.pending if evictor is not None else 0.0,
    )


def queues(control: FlowController | None, now_s: float) -> object:
    """``/debug/queues``."""
    if control is None:
        return {"enabled": False, "message": "the feature gate flowControl is off"}
    reading = control.saturation.read(control.endpoints())
    return {
        "enabled": True,
        "saturation": {"effective": reading.effective, "prefill": reading.prefill, "decode": reading.decode},
        "detector": {
            "name": control.settings.detector.name,
            "type": control.settings.detector.type,
            "exact": control.saturation.is_exact,
        },
        "letGoAndNotSent": control.saturation.credits.requests,
        "poolIsEmpty": control.deadlines.pool_is_empty,
        "requests": control.bands.count,
        "bytes": control.bands.bytes,
        "maxRequests": control.settings.max_requests or None,
        "maxBytes": control.settings.max_bytes or None,
        "nextDeadlineSeconds": _until(control.deadlines.next_s(), now_s),
        "eviction": control.evictor.state() if control.evictor is not None else None,
        "bands": [_band_page(control, band, now_s) for band in control.bands.ordered],
    }


def _band_page(control: FlowController, band: Band, now_s: float) -> object:
    settings = band.settings
    shown = sorted(band.flows.values(), key=len, reverse=True)
    return {
        "priority": band.priority,
        "requests": band.count,
        "bytes": band.bytes,
        "maxRequests": settings.max_requests,
        "maxBytes": settings.max_bytes,
        "ceiling": control.ceiling(band),
        "fairness": settings.fairness.name,
        "ordering": settings.ordering.name,
        "ttlSeconds": settings.ttl_s or None,
        "minShare": settings.min_share or None,
        "oldestSeconds": _since(band.oldest_s(), now_s),
        "servedPerSecond": round(band.drain.per_second(now_s), 3),
        "retryAfterSeconds": control.retry_after_s(band, now_s),
        "flows": [_flow_page(flow) for flow in shown[:MAX_FLOWS]],
        "moreFlows": max(len(shown) - MAX_FLOWS, 0),
    }


def _flow_page(flow: Flow) -> object:
    return {"id": flow.id, "requests": flow.count, "bytes": flow.bytes}


def _band(band: Band, now_s: float) -> BandSnapshot:
    age_s = _since(band.oldest_s(), now_s) or 0.0
    limits = band.settings
    return BandSnapshot(band.priority, band.count, band.bytes, limits.max_requests, limits.max_bytes, age_s)


def _since(at_s: float, now_s: float) -> float | None:
    return round(now_s - at_s, 3) if at_s < inf else None


def _until(at_s: float, now_s: float) -> float | None:
    return round(at_s - now_s, 3) if isfinite(at_s) else None
