"""What a client is told for each way in which its request leaves flow control."""

from __future__ import annotations

import pytest

from epp.flowcontrol.drain_rate import DrainRate
from epp.flowcontrol.outcomes import Outcome, refusal

SHUT = (503, "rejected-shutting-down", "flow controller shutting down: ")
NONE = (503, "rejected-no-endpoints", "no endpoints available: ")
TABLE = {
    (Outcome.REJECTED_CAPACITY, False): (429, "rejected-saturated", "request rejected before queueing: "),
    (Outcome.REJECTED_CAPACITY, True): (429, "rejected-saturated", "request rejected before queueing: "),
    (Outcome.REJECTED_NO_ENDPOINTS, True): NONE,
    (Outcome.REJECTED_NO_ENDPOINTS, False): NONE,
    (Outcome.REJECTED_OTHER, False): SHUT,
    (Outcome.REJECTED_OTHER, True): SHUT,
    (Outcome.EVICTED_TTL, False): (429, "rejected-ttl-expired", "request timed out in queue: "),
    (Outcome.EVICTED_TTL, True): (
        503,
        "rejected-no-endpoints",
        "request timed out in queue and no endpoints are available: ",
    ),
    (Outcome.EVICTED_NO_ENDPOINTS, True): (
        503,
        "rejected-no-endpoints",
        "request timed out in queue and no endpoints are available: ",
    ),
    (Outcome.EVICTED_CONTEXT_CANCELLED, False): (503, "rejected-context-cancelled", "client disconnected: "),
    (Outcome.EVICTED_CONTEXT_CANCELLED, True): (503, "rejected-context-cancelled", "client disconnected: "),
    (Outcome.EVICTED_OTHER, False): SHUT,
    (Outcome.EVICTED_OTHER, True): SHUT,
}


@pytest.mark.parametrize(("outcome", "is_empty"), TABLE, ids=str)
def test_i24_status_reason_and_the_beginning_of_the_text(outcome: Outcome, is_empty: bool) -> None:
    error = refusal(outcome, pool_is_empty=is_empty, what="because")
    status, reason, beginning = TABLE[outcome, is_empty]
    assert (error.code.http_status, error.reason) == (status, reason)
    assert error.message.startswith(beginning)


def test_i24_every_outcome_is_told() -> None:
    assert {outcome for outcome, _ in TABLE} == set(Outcome) - {Outcome.DISPATCHED}
    with pytest.raises(ValueError, match="let go"):
        refusal(Outcome.DISPATCHED, pool_is_empty=False)


@pytest.mark.parametrize(("seconds", "told"), [(None, None), (0.01, "1"), (1.2, "2"), (59.5, "60"), (1e9, "60")], ids=str)
def test_retry_after_is_whole_seconds(seconds: float | None, told: str | None) -> None:
    error = refusal(Outcome.REJECTED_CAPACITY, pool_is_empty=False, retry_after_s=seconds)
    assert dict(error.headers).get("retry-after") == told


def test_no_retry_after_where_there_is_no_capacity_at_all() -> None:
    error = refusal(Outcome.REJECTED_NO_ENDPOINTS, pool_is_empty=True, retry_after_s=3.0)
    assert error.headers == ()


@pytest.mark.parametrize(
    ("departures", "now_s", "expected"),
    [
        pytest.param([], 5.0, 0.0, id="none"),
        pytest.param([0.0] * 5, 0.5, 5.0, id="within the first second"),
        pytest.param([i / 10 for i in range(100)], 10.0, 10.0, id="ten a second; the first second counts no more"),
        pytest.param([0.0, 9.9], 9.9, 2 / 9.9, id="two in ten seconds"),
        pytest.param([0.0] * 50, 10.5, 0.0, id="long ago"),
        pytest.param([0.0] * 50 + [20.0], 20.5, 1.0, id="a new beginning"),
    ],
)
def test_the_rate_of_departures(departures: list[float], now_s: float, expected: float) -> None:
    rate = DrainRate()
    for at_s in departures:
        rate.count(at_s)
    assert rate.per_second(now_s) == pytest.approx(expected)
