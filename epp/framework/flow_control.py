"""Protocols of flow control: which waiting request is next, how far each priority fills the pool, which running one is ended.

All are plain functions that the engine calls on the event loop, in the middle of a dispatch: they must neither wait nor block.
A policy serves all bands that name it; what it remembers of one band is in the ``Turns`` that it makes for it. One that raises
is reported as a defect: a band whose turn cannot be told is passed over in that cycle, and the others are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from epp.framework.candidates import Candidates
from epp.framework.types import InferenceRequest

SortKey = tuple[float, float]
"""Compared by the first number, equal ones by the second, then by arrival; the smallest comes first. Neither may be NaN."""


class WaitingRequest(Protocol):
    """A request in a queue."""

    @property
    def request(self) -> InferenceRequest: ...
    @property
    def enqueued_s(self) -> float:
        """``time.monotonic()`` of its arrival at flow control."""
        ...

    @property
    def ttl_s(self) -> float:
        """How long it may wait while the pool has endpoints, its caller's deadline included; 0 = for ever."""
        ...


class WaitingFlow(Protocol):
    """The waiting requests of one fairness id in one band; never empty while a policy knows it."""

    @property
    def id(self) -> str: ...
    @property
    def head(self) -> WaitingRequest:
        """The first by the band's ordering policy."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class OrderingPolicy(Protocol):
    """Which request of a flow is next."""

    def sort_key(self, waiting: WaitingRequest) -> SortKey:
        """Its place; asked once, when the request arrives. One that fails counts as first come, first served."""
        ...


class Turns(Protocol):
    """Whose turn it is in one band. Dies with the band."""

    def begin(self, flow: WaitingFlow) -> None:
        """The first request of a flow waits."""
        ...

    def cease(self, flow: WaitingFlow) -> None:
        """None of its requests waits any more; exactly once for each ``begin``."""
        ...

    def next(self, now_s: float) -> WaitingFlow | None:
        """The flow whose first request is let go now; None = none of them, which lets lower bands go.

        Args:
            now_s: ``time.monotonic()``.
        """
        ...


@runtime_checkable
class FairnessPolicy(Protocol):
    """Which flow of a band is next."""

    @property
    def by_flow(self) -> bool:
        """False: all flows of a band are one queue in the order of its ordering policy, and nobody is asked for turns."""
        ...

    def new_turns(self) -> Turns:
        """For a band that begins."""
        ...


@runtime_checkable
class UsageLimitPolicy(Protocol):
    """How far each priority may fill the pool. One that fails counts as a ceiling of 1 for all."""

    @property
    def needs_ticks(self) -> bool:
        """Its ceilings change from call to call, though nothing else does: ask again every millisecond while requests wait."""
        ...

    def ceilings(self, saturation: float, priorities: Sequence[int]) -> Sequence[float]:
        """The saturation from which each band is stopped, not increasing; called once for each cycle.

        Args:
            saturation: of the pool, not clamped.
            priorities: of all bands, also empty ones, descending.

        Returns:
            Shape ``(len(priorities),)``, same order.
        """
        ...


class RunningRequest(Protocol):
    """A request that was sent to an endpoint and is not over."""

    @property
    def request(self) -> InferenceRequest: ...
    @property
    def dispatched_s(self) -> float:
        """``time.monotonic()`` of its leaving the queue."""
        ...


@runtime_checkable
class EvictionFilter(Protocol):
    """Which running requests may be ended for waiting ones of a higher priority. One that fails protects the request."""

    def may_evict(self, running: RunningRequest) -> bool:
        """Asked once, when the request is sent."""
        ...


@runtime_checkable
class EvictionOrderPolicy(Protocol):
    """Which of them is ended first."""

    def sort_key(self, running: RunningRequest) -> SortKey:
        """Its place; asked once, when the request is sent."""
        ...


@dataclass(slots=True)
class Credits:
    """Requests that were let go and do not yet show in any count: they are being scheduled."""

    requests: int = 0
    tokens: int = 0
    """What ``CountsCredits.credit_tokens`` said of them."""
    taken: int = 0
    """All requests that were ever let go."""


@runtime_checkable
class CountsCredits(Protocol):
    """A SaturationDetector whose value rises as soon as a request is sent: told of those on their way, it is exact.

    Several requests may then be let go one after the other; otherwise one in a millisecond, since nothing tells when the value
    shows them.
    """

    @property
    def shows_after_s(self) -> float:
        """How long the end of a request may go unnoticed."""
        ...

    def credit_tokens(self, request: InferenceRequest) -> int:
        """What the request will add to the tokens in flight; 0 if tokens do not count."""
        ...

    def saturation_with(self, candidates: Candidates, credit: Credits) -> float:
        """As ``SaturationDetector.saturation``, with those on their way.

        Args:
            candidates: all endpoints of a stage.
            credit: of the whole pool.
        """
        ...


@runtime_checkable
class ForeseesChanges(Protocol):
    """A SaturationDetector that knows when time alone changes its value; the others are asked again every millisecond.

    Scrapes, endpoints, requests that are sent or over need not be foreseen: the engine sees those itself.
    """

    def next_change_s(self) -> float:
        """``time.monotonic()`` of the next change of the value last given; infinity = none."""
        ...


@runtime_checkable
class CountsStale(Protocol):
    """A SaturationDetector that reads metrics and may find them too old."""

    def stale_endpoints(self, candidates: Candidates) -> int:
        """Endpoints whose metrics are too old, or were never read."""
        ...
