"""One dispatch cycle: how far the pool is open, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from epp.flowcontrol.bands import Bands
from epp.flowcontrol.settings import DefectSink, Named
from epp.flowcontrol.shares import Shares
from epp.flowcontrol.tickets import Ticket
from epp.framework.flow_control import UsageLimitPolicy


class Cycle:
    """Bands in strict order below their ceilings, but for what is owed to minimum shares.

    Args:
        usage: gives the ceilings.
        bands: what waits.
        shares: what is owed.
        on_defect: told if the policy fails.
    """

    def __init__(self, usage: Named[UsageLimitPolicy], bands: Bands, shares: Shares, on_defect: DefectSink) -> None:
        self._bands = bands
        self._shares = shares
        self._on_defect = on_defect
        self.ceilings: Sequence[float] = ()
        """Of the last cycle, not increasing."""
        self.use(usage)

    def use(self, usage: Named[UsageLimitPolicy]) -> None:
        """Ask another policy."""
        self._usage = usage

    @property
    def needs_ticks(self) -> bool:
        """The policy wants to be asked again soon."""
        return self._usage.plugin.needs_ticks

    def stopped(self, saturation: float) -> int:
        """Index of the first band that may not go on, and neither may those below; the number of bands if all may.

        Asks the policy; to be called once in a cycle.
        """
        ceilings = self.ceilings = self._ask(saturation, self._bands.priorities, self._on_defect)
        if saturation < ceilings[-1]:
            return len(ceilings)
        return next(index for index, ceiling in enumerate(ceilings) if saturation >= ceiling)

    def peek(self, saturation: float, priorities: Sequence[int]) -> Sequence[float]:
        """The ceilings of bands of these priorities, without a look; of a policy that counts its looks those of the last one.

        Args:
            priorities: descending; may hold one of which there is no band.
        """
        if not self.needs_ticks:
            return self._ask(saturation, priorities, _untold)
        known = dict(zip(self._bands.priorities, self.ceilings, strict=False))
        return [known.get(priority, 1.0) for priority in priorities]

    def take(self, stopped: int, now_s: float) -> Ticket | None:
        """The ticket whose turn it is, which waits no more; None if nothing may go on.

        Args:
            stopped: as ``stopped`` said.
        """
        if stopped and self._shares.is_used:
            owed = self._shares.owed()
            ticket = owed.take(now_s) if owed is not None else None
            if ticket is not None:
                return ticket
        for band in self._bands.ordered[:stopped]:
            if band.count:
                ticket = band.take(now_s)
                if ticket is not None:
                    return ticket
        return None

    def _ask(self, saturation: float, priorities: Sequence[int], on_defect: DefectSink) -> Sequence[float]:
        """The ceilings, made to fall where a policy lets them rise: a lower band is never open where a higher one is not."""
        policy = self._usage
        try:
            ceilings = policy.plugin.ceilings(saturation, priorities)
            if len(ceilings) == len(priorities) and all(map(_falls, ceilings, ceilings[1:])) and ceilings[0] >= -inf:
                return ceilings
        except Exception as error:  # noqa: BLE001 — reported
            on_defect("UsageLimitPolicy", policy, error)
            return [1.0] * len(priorities)
        if len(ceilings) != len(priorities):
            on_defect("UsageLimitPolicy", policy, f"gave {len(ceilings)} ceilings for {len(priorities)} bands")
            return [1.0] * len(priorities)
        on_defect("UsageLimitPolicy", policy, f"gave ceilings that rise or are no numbers: {list(ceilings)}")
        lowest, falling = 1.0 if ceilings[0] != ceilings[0] else ceilings[0], []
        for ceiling in ceilings:
            lowest = min(lowest, ceiling) if ceiling == ceiling else lowest
            falling.append(lowest)
        return falling


def _untold(role: str, policy: Named[Any], problem: Exception | str) -> None:
    """Nobody is told of a defect that no request meets."""


def _falls(upper: float, lower: float) -> bool:
    return upper >= lower
