"""Subset hint and store snapshot → the candidates of a request.

The data plane may restrict the choice by dynamic metadata (protocol decision D11): a list of strings or a comma-separated
string; an entry with a port names one endpoint, one without names all endpoints of that address; what cannot be used counts
as an empty list.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Protocol

from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.candidates import Candidates

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"

NO_CANDIDATES = "failed to find endpoint candidates for serving the request"


class EndpointSnapshot(Protocol):
    """All endpoints with their metrics of one moment."""

    @property
    def candidates(self) -> Candidates: ...
    @property
    def scraped(self) -> Candidates:
        """Only the endpoints whose metrics were read at least once."""
        ...


class CandidateSource(Protocol):
    """Where endpoints come from: the EndpointStore."""

    def snapshot(self) -> EndpointSnapshot: ...


class CandidateFinder:
    """Finds the candidates of a request.

    Args:
        source: all endpoints.
        use_subset: False ignores the hint (``--disable-endpoint-subset-filter``).
        hold_back_unscraped: endpoints without metrics are no candidates yet.
        hold_back_stale_s: endpoints whose metrics are older are no candidates, unless all are; None = they stay.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: CandidateSource,
        *,
        use_subset: bool = True,
        hold_back_unscraped: bool = False,
        hold_back_stale_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._use_subset = use_subset
        self._hold_back = hold_back_unscraped
        self._stale_s = hold_back_stale_s
        self._clock = clock
        self._looked_at: Candidates | None = None
        self._oldest_s = 0.0

    def find(self, metadata: Mapping[str, Mapping[str, object]]) -> Candidates:
        """The candidates, never empty.

        Args:
            metadata: of the request, by namespace.

        Raises:
            RequestError: SERVICE_UNAVAILABLE if there are none.
        """
        snapshot = self._source.snapshot()
        candidates = snapshot.scraped if self._hold_back else snapshot.candidates
        if metadata and self._use_subset:
            namespace = metadata.get(SUBSET_NAMESPACE)
            if namespace is not None and SUBSET_KEY in namespace:
                candidates = _restrict(candidates, namespace[SUBSET_KEY])
        if self._stale_s is not None:
            candidates = self._without_stale(candidates, self._clock() - self._stale_s)
        if not candidates:
            raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, NO_CANDIDATES, DropReason.NO_ENDPOINTS)
        return candidates

    def _without_stale(self, candidates: Candidates, limit_s: float) -> Candidates:
        """The candidates scraped since ``limit_s`` or never; all, if that leaves none.

        The age of the oldest is remembered, so that nothing is looked at again until an endpoint changes or one gets stale.
        """
        if candidates is not self._looked_at:
            self._looked_at = candidates
            self._oldest_s = min((m.updated_s for m in candidates.metrics if m.updated_s is not None), default=inf)
        if self._oldest_s >= limit_s:
            return candidates
        return candidates.where([m.updated_s is None or m.updated_s >= limit_s for m in candidates.metrics]) or candidates


def _restrict(candidates: Candidates, hint: object) -> Candidates:
    exact, addresses = _entries(hint)
    return candidates.where([e.host_port in exact or e.address in addresses for e in candidates.endpoints])


def _entries(hint: object) -> tuple[set[str], set[str]]:
    """(``host:port`` entries, entries without a port) of a hint."""
    if isinstance(hint, str):
        parts: list[object] = list(hint.split(","))
    elif isinstance(hint, (list, tuple)):
        parts = list(hint)
    else:
        parts = []
    exact: set[str] = set()
    addresses: set[str] = set()
    for part in parts:
        text = part.strip() if isinstance(part, str) else ""
        host, bracket, port = text.rpartition("]:")
        if bracket:
            exact.add(f"[{_canonical(host[1:])}]:{port}")
        elif text.count(":") == 1:
            exact.add(text)
        else:
            addresses.add(_canonical(text.removeprefix("[").removesuffix("]")))
    return exact, addresses


def _canonical(address: str) -> str:
    """The usual form of an IPv6 address; anything else as it is."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        return address
