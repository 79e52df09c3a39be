"""Findings about the pool as the picker sees it, from its page of endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings
from epp.errors import Finding

_REACH = "see that the server runs and that its metrics page can be read from where the picker runs"


def check_pool(url: str, page: Mapping[str, Any], stale_s: float) -> list[Finding]:
    """All findings.

    Args:
        url: of the picker.
        page: ``/debug/endpoints``.
        stale_s: age from which metrics are stale.
    """
    endpoints = mappings(page.get("endpoints"))
    if not endpoints:
        message = "the picker knows no endpoint, so it answers 503 to every request"
        fix = "look at what it discovers them by: --endpoint, the endpoint file, or the pool's selector"
        return [finding("POL001", url, "/debug/endpoints", message, fix)]
    ages = [entry.get("ageSeconds") for entry in endpoints]
    found = list(_blind(url, ages, stale_s))
    for entry, age in zip(endpoints, ages, strict=True):
        found += _freshness(url, entry, age, stale_s)
        found += _missing(url, entry)
    return [*found, *_doubled(url, endpoints), *_waiting(url, endpoints)]


def _blind(url: str, ages: Sequence[object], stale_s: float) -> Iterator[Finding]:
    if any(isinstance(age, (int, float)) and age <= stale_s for age in ages):
        return
    message = f"none of {len(ages)} endpoints has metrics younger than {stale_s:g} s, so load counts for nothing in decisions"
    yield finding("POL002", url, "/debug/endpoints", message, _REACH, value=len(ages))


def _freshness(url: str, entry: Mapping[str, Any], age: object, stale_s: float) -> Iterator[Finding]:
    scraping = mapping(entry.get("scraping"))
    reason = f"; last error: {scraping['lastError']}" if scraping.get("lastError") and scraping.get("failing") else ""
    place = f"{entry.get('id')} ({entry.get('address')})"
    if age is None:
        message = f"its metrics were never read, so it looks idle and attracts requests{reason}"
        yield finding("POL003", url, place, message, f"{_REACH}, or keep it out with --hold-back-unscraped")
    elif isinstance(age, (int, float)) and age > stale_s:
        message = f"its metrics are {age:.1f} s old, and decisions go by them{reason}"
        yield finding("POL004", url, place, message, f"{_REACH}, or keep it out with --hold-back-stale", value=age)


def _missing(url: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    missing = mapping(entry.get("scraping")).get("missingValues")
    if isinstance(missing, list) and missing:
        message = f"the picker cannot read everything from its page: {'; '.join(map(str, missing))}"
        fix = "see that the label llm-d.ai/engine-type names its engine, or describe it to core-metrics-extractor"
        yield finding("POL005", url, f"{entry.get('id')} ({entry.get('address')})", message, fix)


def _doubled(url: str, endpoints: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    first: dict[str, object] = {}
    for entry in endpoints:
        address = str(entry.get("address"))
        if address in first:
            message = f"it has the address of {first[address]}, so that server is counted and asked twice"
            yield finding("POL006", url, f"{entry.get('id')} ({address})", message, "remove one of the two")
        first.setdefault(address, entry.get("id"))


def _waiting(url: str, endpoints: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    queues = [entry.get("waitingQueue") for entry in endpoints]
    if all(isinstance(queue, int) and queue > 0 for queue in queues):
        message = f"all {len(queues)} endpoints have requests waiting, {sum(q for q in queues if isinstance(q, int))} in all"
        fix = "add servers, or refuse some of the load; a picker can only choose among full ones"
        yield finding("POL007", url, "/debug/endpoints", message, fix)
