"""How a request leaves flow control, and what its client is told then.

429 says that there is capacity and others have it; 503 that there is none now. Names, codes and reasons are those of
llm-d-router: pkg/epp/flowcontrol/types/outcomes.go, pkg/epp/requestcontrol/admission.go.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil

from epp.errors import DropReason, ErrorCode, RequestError

MAX_RETRY_AFTER_S = 60
"""What is measured over ten seconds says nothing about a later time."""


class Outcome(StrEnum):
    """Values of the metrics label ``outcome``: exactly one for each request."""

    DISPATCHED = "Dispatched"
    REJECTED_CAPACITY = "RejectedCapacity"
    """A limit was reached."""
    REJECTED_NO_ENDPOINTS = "RejectedNoEndpoints"
    """A limit was reached, and the pool is empty."""
    REJECTED_OTHER = "RejectedOther"
    """It came after the stop."""
    EVICTED_TTL = "EvictedTTL"
    """It waited as long as it may."""
    EVICTED_NO_ENDPOINTS = "EvictedNoEndpoints"
    """The same, for the first endpoint."""
    EVICTED_CONTEXT_CANCELLED = "EvictedContextCancelled"
    """Its client left."""
    EVICTED_OTHER = "EvictedOther"
    """It waited when flow control stopped."""


ACCEPTED = "NotYetFinalized"
"""Label of requests that were taken, in the time that taking them took."""


def refusal(outcome: Outcome, *, pool_is_empty: bool, what: str = "", retry_after_s: float | None = None) -> RequestError:
    """What a client is told.

    Args:
        outcome: how its request ended, but for ``DISPATCHED``.
        pool_is_empty: at this moment.
        what: the limit that was reached.
        retry_after_s: until what waits now is served; None = nobody knows.
    """
    match outcome:
        case Outcome.REJECTED_CAPACITY:
            return _contended(f"request rejected before queueing: {what}", DropReason.SATURATED, retry_after_s)
        case Outcome.REJECTED_NO_ENDPOINTS:
            return _unavailable(f"no endpoints available: {what}", DropReason.NO_ENDPOINTS)
        case Outcome.EVICTED_TTL if not pool_is_empty:
            message = "request timed out in queue: it waited as long as it may"
            return _contended(message, DropReason.TTL_EXPIRED, retry_after_s)
        case Outcome.EVICTED_TTL | Outcome.EVICTED_NO_ENDPOINTS:
            message = "request timed out in queue and no endpoints are available: it waited as long as it may"
            return _unavailable(message, DropReason.NO_ENDPOINTS)
        case Outcome.EVICTED_CONTEXT_CANCELLED:
            return _unavailable("client disconnected: the request was still queued", DropReason.CONTEXT_CANCELLED)
        case Outcome.REJECTED_OTHER | Outcome.EVICTED_OTHER:
            return _unavailable("flow controller shutting down: the request was not served", DropReason.SHUTTING_DOWN)
        case Outcome.DISPATCHED:
            raise ValueError("a request that was let go is not refused")


def _contended(message: str, reason: DropReason, retry_after_s: float | None) -> RequestError:
    headers: tuple[tuple[str, str], ...] = ()
    if retry_after_s is not None:
        seconds = min(max(ceil(retry_after_s), 1), MAX_RETRY_AFTER_S)
        headers = (("retry-after", str(seconds)),)
    return RequestError(ErrorCode.RESOURCE_EXHAUSTED, message, reason, headers)


def _unavailable(message: str, reason: DropReason) -> RequestError:
    return RequestError(ErrorCode.SERVICE_UNAVAILABLE, message, reason)
