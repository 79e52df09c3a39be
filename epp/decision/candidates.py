"""Subset hint and store snapshot → the candidates of a request.

The data plane may restrict the choice by dynamic metadata (protocol decision D11): a list of strings or a comma-separated
string; an entry with a port names one endpoint, one without names all endpoints of that address; what cannot be used counts
as an empty list.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.candidates import Candidates

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"

MAX_HINTS = 256
"""Hints that are remembered for a snapshot. A data plane has one for each of its subsets, which are few."""

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
        self._hints, self._fresh = (self, "hints"), (self, "fresh")
        """Keys of what candidates remember for this finder."""

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
                candidates = self._restricted(candidates, namespace[SUBSET_KEY])
        if self._stale_s is not None:
            candidates = self._without_stale(candidates, self._clock() - self._stale_s)
        if not candidates:
            raise RequestError(ErrorCode.SERVICE_UNAVAILABLE, NO_CANDIDATES, DropReason.NO_ENDPOINTS)
        return candidates

    def _restricted(self, candidates: Candidates, hint: object) -> Candidates:
        """The candidates that the hint names. They are the same object for the same hint until an endpoint or a metric changes,
        so that what is computed once for a snapshot is computed once for each of its hints.
        """
        key = _key(hint)
        if key is None:
            return _restrict(candidates, hint)
        known = candidates.memo.get(self._hints)
        if not isinstance(known, _ByHint):
            known = candidates.memo[self._hints] = _ByHint()
        found = known.get(key)
        if found is None:
            if len(known) >= MAX_HINTS:
                del known[next(iter(known))]
            found = known[key] = _restrict(candidates, hint)
        return found

    def _without_stale(self, candidates: Candidates, limit_s: float) -> Candidates:
        """The candidates scraped since ``limit_s`` or never; all, if that leaves none.

        Ages are looked at again only when the oldest of them, which is remembered, may be stale; and what is left is the same
        object until another endpoint gets stale or fresh.
        """
        known = candidates.memo.get(self._fresh)
        if isinstance(known, _Fresh) and known.oldest_s >= limit_s:
            return candidates
        updated_s = candidates.updated_s
        keep = [each is None or each >= limit_s for each in updated_s]
        if not isinstance(known, _Fresh) or known.keep != keep:
            known = _Fresh(keep, candidates.where(keep) or candidates)
            candidates.memo[self._fresh] = known
        known.oldest_s = min((each for each in updated_s if each is not None), default=inf)
        return known.left


class _ByHint(dict[object, Candidates]):
    """Candidates by the hint that names them."""


@dataclass(slots=True)
class _Fresh:
    """What is left of some candidates without those that are stale."""

    keep: list[bool]
    left: Candidates
    oldest_s: float = inf
    """The oldest metrics are at least as young: times move forward only."""


def _key(hint: object) -> object:
    """What to remember a hint by; None if it has parts that cannot be told apart for sure."""
    if isinstance(hint, str):
        return hint
    if isinstance(hint, (list, tuple)) and all(isinstance(part, str) for part in hint):
        return tuple(hint)
    return None


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
