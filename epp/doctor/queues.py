"""Findings about flow control, from its page: what is full, and what waits for too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings, number
from epp.errors import Finding
from epp.framework.params import format_duration

PAGE = "/debug/queues"
_NEARLY = 0.9
_LONG_S = 30.0
"""Where a wait has no end, this is what clients rarely stay for."""
_MOST_OF_IT = 0.8


def check_queues(url: str, page: Mapping[str, Any]) -> list[Finding]:
    """All findings.

    Args:
        url: of the picker.
        page: ``/debug/queues``.
    """
    if not page.get("enabled"):
        return []
    found = list(_whole(url, page))
    for band in mappings(page.get("bands")):
        found += _band(url, band)
    return found


def longest_ttl_s(page: Mapping[str, Any]) -> float | None:
    """The longest time that a request of any band may wait, in seconds; None = no queue, or a wait without end."""
    ttls = [band.get("ttlSeconds") for band in mappings(page.get("bands"))] if page.get("enabled") else []
    return max((ttl for ttl in ttls if isinstance(ttl, (int, float))), default=None)


def _whole(url: str, page: Mapping[str, Any]) -> Iterator[Finding]:
    waiting = number(page.get("requests"), 0)
    saturation = mapping(page.get("saturation"))
    effective = saturation.get("effective")
    if page.get("poolIsEmpty"):
        if waiting:
            message = f"{waiting} requests wait for an endpoint, and there is none"
            fix = "start model servers; see what else is found about the pool"
            yield finding("QUE005", url, PAGE, message, fix, value=waiting)
    elif isinstance(effective, (int, float)) and effective >= 1:
        stages = [f"{stage} {saturation[stage]:.2f}" for stage in ("prefill", "decode") if saturation.get(stage) is not None]
        shown = f" ({', '.join(stages)})" if stages else ""
        detector = mapping(page.get("detector")).get("name")
        message = f"{detector} says {effective:.2f}{shown}, and from 1 on requests wait ({waiting} do) or are refused"
        fix = "add servers; if they are not busy, compare the detector's thresholds and the age of metrics"
        yield finding("QUE001", url, PAGE, message, fix, value=effective)
    for what, limit_name in (("requests", "maxRequests"), ("bytes", "maxBytes")):
        limit, held = number(page.get(limit_name), 0), number(page.get(what), 0)
        if limit and held >= _NEARLY * limit:
            message = f"{held} of {limit} {what} are waiting; beyond that every request is refused"
            yield finding("QUE004", url, PAGE, message, f"raise flowControl.{limit_name}, or add servers", value=held)


def _band(url: str, band: Mapping[str, Any]) -> Iterator[Finding]:
    place = f"{PAGE}: band {band.get('priority')}"
    oldest_s, ttl_s = band.get("oldestSeconds"), band.get("ttlSeconds")
    if isinstance(oldest_s, (int, float)):
        longest_s = _MOST_OF_IT * ttl_s if isinstance(ttl_s, (int, float)) and ttl_s else _LONG_S
        if oldest_s >= longest_s:
            of = f" of {format_duration(float(ttl_s))}" if ttl_s else ""
            rate = band.get("servedPerSecond")
            message = f"its oldest request has waited for {oldest_s:.1f} s{of}, while {rate} a second leave"
            fix = "add servers, or give the band a higher priority, a minShare or a higher ceiling"
            yield finding("QUE002", url, place, message, fix, value=oldest_s)
    for what, limit_name in (("requests", "maxRequests"), ("bytes", "maxBytes")):
        limit, held = number(band.get(limit_name), 0), number(band.get(what), 0)
        if limit and held >= _NEARLY * limit:
            message = f"{held} of {limit} {what} are waiting; beyond that its requests are refused"
            yield finding("QUE003", url, place, message, f"raise the band's {limit_name}, or add servers", value=held)
