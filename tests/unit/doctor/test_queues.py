"""The page of flow control → findings."""

from __future__ import annotations

from typing import Any

import pytest

from epp.doctor.queues import check_queues, longest_ttl_s

URL = "http://picker:9090"


def band(**more: Any) -> dict[str, Any]:
    """A band of the page in which nothing waits."""
    empty = {"priority": 0, "requests": 0, "bytes": 0, "maxRequests": 100, "maxBytes": 1000, "ttlSeconds": None}
    return {**empty, "oldestSeconds": None, "servedPerSecond": 0.0, **more}


def page(*bands: dict[str, Any], effective: float = 0.5, **more: Any) -> dict[str, Any]:
    """The page of a pool that is half full."""
    saturation = {"effective": effective, "prefill": None, "decode": effective}
    detector = {"name": "utilization-detector", "exact": False}
    whole = {"requests": 0, "bytes": 0, "maxRequests": None, "maxBytes": None, "poolIsEmpty": False}
    return {"enabled": True, "saturation": saturation, "detector": detector, "bands": list(bands), **whole, **more}


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("off", {"enabled": False, "message": "the feature gate flowControl is off"}, []),
    ("idle", page(band()), []),
    ("full", page(band(), effective=1.0), ["QUE001"]),
    ("empty, and nobody waits", page(band(), effective=1.0, poolIsEmpty=True), []),
    ("empty", page(band(requests=3), effective=1.0, poolIsEmpty=True, requests=3), ["QUE005"]),
    ("a wait that is young", page(band(oldestSeconds=47.9, ttlSeconds=60.0)), []),
    ("a wait that is old", page(band(oldestSeconds=48.0, ttlSeconds=60.0)), ["QUE002"]),
    ("a wait without end", page(band(oldestSeconds=29.0), band(oldestSeconds=31.0)), ["QUE002"]),
    ("room", page(band(requests=89, bytes=899)), []),
    ("many requests in a band", page(band(requests=90)), ["QUE003"]),
    ("many bytes in a band", page(band(bytes=950)), ["QUE003"]),
    ("no limits", page(band(requests=9000, maxRequests=0)), []),
    ("many requests", page(band(), requests=95, maxRequests=100), ["QUE004"]),
    ("many bytes", page(band(), bytes=95, maxBytes=100), ["QUE004"]),
    ("another shape", {"enabled": True, "bands": 5, "saturation": [], "detector": None}, []),
]


@pytest.mark.parametrize(("shown", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_queues(shown: dict[str, Any], expected: list[str]) -> None:
    findings = check_queues(URL, shown)
    assert [found.code for found in findings] == expected
    assert all(found.fix and found.file == URL for found in findings)


def test_stages_that_are_full_are_named() -> None:
    shown = page(band())
    shown["saturation"] = {"effective": 1.5, "prefill": 1.5, "decode": 0.2}
    [found] = check_queues(URL, shown)
    assert "1.50 (prefill 1.50, decode 0.20)" in found.message


def test_the_longest_wait() -> None:
    assert longest_ttl_s(page(band(ttlSeconds=5), band(ttlSeconds=90), band())) == 90
    assert longest_ttl_s(page(band())) is None
    assert longest_ttl_s({"enabled": False}) is None


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {code for case in CASES for code in case[2]}
