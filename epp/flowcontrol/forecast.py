"""What flow control would do with a request that came now: asked about requests that nobody sent, so it changes nothing.

The order of a flow and turns between flows are policies' own and may let a newcomer overtake: ``ahead`` is how many wait before
it in strict order. A usage limit policy whose ceilings change from look to look is not asked for a look of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from epp.errors import RequestError
from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.outcomes import Outcome, refusal
from epp.flowcontrol.patience import caller_deadline_s, queue_ttl_s, time_to_wait_s
from epp.flowcontrol.queues import Band
from epp.framework.types import InferenceRequest


class Verdict(StrEnum):
    """What would become of it."""

    PASS = "pass"
    """It would be scheduled at once."""
    WAIT = "wait"
    REFUSE = "refuse"
    """It would be refused at once."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """One request, at one moment."""

    verdict: Verdict
    priority: int
    """Its band."""
    fairness_id: str
    """Its flow."""
    why: str
    """Why it would wait or be refused; empty if it would pass."""
    saturation: float | None
    """Of the pool, 1.0 and more = full; None = the pool has no endpoint."""
    ceiling: float
    """Saturation from which its band is stopped."""
    ahead: int = 0
    """Requests that wait and would be let go before it."""
    expected_wait_s: float | None = None
    """Until what waits in its band is served, at the rate of the last seconds; None = it would not wait, or none was served."""
    longest_wait_s: float | None = None
    """After which it would be refused; None = never, or it would not wait."""
    may_evict: bool = False
    """Running requests of a lower priority may be ended for it."""
    refusal: RequestError | None = None
    """What its client would be told."""

    def as_json(self) -> dict[str, object]:
        """For the page."""
        return {
            "verdict": self.verdict.value,
            "priority": self.priority,
            "fairness_id": self.fairness_id,
            "why": self.why,
            "saturation": self.saturation,
            "ceiling": self.ceiling,
            "ahead": self.ahead,
            "expected_wait_s": self.expected_wait_s,
            "longest_wait_s": self.longest_wait_s,
            "may_evict": self.may_evict,
            "status": self.refusal.code.http_status if self.refusal is not None else None,
        }


def forecast(control: FlowController, request: InferenceRequest, now_s: float) -> Forecast:
    """What would become of ``request``.

    Args:
        control: of the pool.
        request: as it would arrive at flow control.
        now_s: monotonic.
    """
    bands = control.bands
    endpoints = control.endpoints()
    band, priorities = bands.imagined(request.priority)
    saturation = control.saturation.effective(endpoints) if endpoints else None
    ceiling = control.cycle.peek(saturation if saturation is not None else inf, priorities)[priorities.index(band.priority)]
    shortage = bands.shortage(request, band)
    retry_after_s = control.retry_after_s(band, now_s)
    found = Forecast(Verdict.PASS, band.priority, request.fairness_id, "", saturation, ceiling)
    if control.is_stopped or shortage:
        outcome = Outcome.REJECTED_CAPACITY if endpoints else Outcome.REJECTED_NO_ENDPOINTS
        if control.is_stopped:
            outcome = Outcome.REJECTED_OTHER
        error = refusal(outcome, pool_is_empty=not endpoints, what=shortage, retry_after_s=retry_after_s)
        return replace(found, verdict=Verdict.REFUSE, why=error.message, refusal=error)
    ahead = _ahead(control, band)
    why = _why_wait(saturation, ceiling, ahead)
    if not why:
        return found
    is_full = saturation is not None and saturation >= ceiling > 0
    return replace(
        found,
        verdict=Verdict.WAIT,
        why=why,
        ahead=ahead,
        expected_wait_s=retry_after_s,
        longest_wait_s=_longest_wait_s(control, request, band, now_s),
        may_evict=is_full and control.evictor is not None and control.evictor.has_victim(band.priority),
    )


def _ahead(control: FlowController, band: Band) -> int:
    """Requests that are let go before a newcomer of ``band``, in strict order."""
    ahead = sum([other.count for other in control.bands.ordered if other.priority >= band.priority])
    owed = control.shares.owed() if control.shares.is_used else None
    # With an exact detector the newcomer goes in the same call as what is owed.
    is_before = owed is not None and owed.priority < band.priority and not control.saturation.is_exact
    return ahead + is_before


def _why_wait(saturation: float | None, ceiling: float, ahead: int) -> str:
    if saturation is None:
        return "the pool has no endpoint"
    if saturation >= ceiling:
        return f"the pool is as full as its priority may fill it: saturation {saturation:.2f}, ceiling {ceiling:.2f}"
    return "it is not its turn yet" if ahead else ""


def _longest_wait_s(control: FlowController, request: InferenceRequest, band: Band, now_s: float) -> float | None:
    """As its deadline would be set on arrival."""
    left_s = caller_deadline_s(request.headers, request.received_s) - now_s
    if control.endpoints():
        budget_s = time_to_wait_s(queue_ttl_s(request.headers, band.settings.ttl_s), left_s)
    else:
        budget_s = control.settings.empty_pool_ttl_s
    longest_s = min(left_s, budget_s) if budget_s > 0 else left_s
    return max(longest_s, 0.0) if longest_s < inf else None
