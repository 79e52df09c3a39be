"""A minimum share for bands that strict priority would starve.

While requests of such a band wait, each request that is let go adds the band's share to what it is owed; once that is a whole
request, the band is next, whatever waits above, and whatever its own ceiling is. It is owed nothing for times in which nothing
of it waited, and nothing is taken off for what it got beyond its share. As the shares are at most 1 together, what is owed to
all bands together stays below their number plus 1: over any ``n`` requests let go while it waits, a band of share ``s`` gets at
least ``n * s`` less the number of such bands plus 1.
"""

from __future__ import annotations

from epp.flowcontrol.bands import Bands
from epp.flowcontrol.queues import Band

_ALMOST_ONE = 1 - 1e-9
"""Ten times 0.1 is less than 1 in binary."""


class Shares:
    """Keeps account of what bands are owed.

    Args:
        bands: those there are.
    """

    def __init__(self, bands: Bands) -> None:
        self._bands = bands
        self.is_used = False
        """Some band has a share; to be asked before anything else, as most configurations have none."""

    def look(self) -> None:
        """The bands or their settings have changed."""
        self.is_used = any(band.settings.min_share for band in self._bands.ordered)

    def owed(self) -> Band | None:
        """The band that is next because of its share: the one that is owed most."""
        owed = [band for band in self._bands.ordered if band.count and band.deficit >= _ALMOST_ONE]
        return max(owed, key=lambda band: band.deficit, default=None)

    def let_go(self, served: Band) -> None:
        """A request of ``served`` was let go."""
        for band in self._bands.ordered:
            share = band.settings.min_share
            if not share or not (band.count or band is served):
                continue
            band.deficit += share
            if band is served:
                band.deficit = max(band.deficit - 1.0, 0.0)
