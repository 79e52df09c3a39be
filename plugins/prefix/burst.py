"""Which endpoint each request of a burst goes to, so that equal prefixes are computed once and all endpoints have their share.

Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/burstprefix
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from epp.framework.candidates import Candidates
from epp.framework.types import EndpointId
from plugins.prefix import twins
from plugins.prefix.keys import KEY_BYTES
from plugins.prefix.request_keys import RequestKeys

_ALL = 2**31
"""More keys than a burst has."""


@dataclass(slots=True, eq=False)
class Held:
    """A request of the burst."""

    keys: RequestKeys
    candidates: Candidates
    assigned: EndpointId | None = None
    """None = it shares its prefix with nobody."""
    is_gone: bool = False
    """Its client did not wait."""


@dataclass(frozen=True, slots=True)
class BurstRules:
    """How a burst is spread."""

    per_replica: int | None = None
    """Most requests with the same prefix for one endpoint, as long as others have room; None = no limit."""
    colocate_blocks: int = 0
    """Common blocks from which different prompts are kept together; 0 = only equal ones are."""
    by_tokens: bool = False
    """Balance the blocks to be computed, not the number of requests."""


Unit = list[Held]
"""Requests with the same keys."""


def assign(burst: Sequence[Held], rules: BurstRules) -> None:
    """Assign the requests that share a prefix. Those with the longest prefix go first, as others may join them."""
    present = [held for held in burst if held.keys.total_blocks and not held.is_gone]
    units = _units(present, rules.colocate_blocks)
    if not units or not present[0].candidates:
        return
    costs = [unit[0].keys.total_blocks if rules.by_tokens else len(unit) for unit in units]
    placement = _Placement(present[0].candidates, rules, sum(costs))
    for unit in units:
        placement.place(unit)


def _units(burst: Sequence[Held], colocate_blocks: int) -> list[Unit]:
    """Groups of equal prompts first, then single ones that begin as others do; each the longest first."""
    equal: dict[tuple[bytes, ...], Unit] = {}
    for held in burst:
        equal.setdefault(held.keys.prompts, []).append(held)
    groups = [unit for unit in equal.values() if len(unit) > 1]
    singles = [unit for unit in equal.values() if len(unit) == 1] if colocate_blocks else []
    if singles:
        beginnings = Counter(_beginning(held, colocate_blocks) for held in burst)
        singles = [unit for unit in singles if (start := _beginning(unit[0], colocate_blocks)) and beginnings[start] > 1]
    for units in (groups, singles):
        units.sort(key=lambda unit: -unit[0].keys.total_blocks)
    return groups + singles


def _beginning(held: Held, blocks: int) -> bytes:
    """The first keys; b"" if there are fewer."""
    return b"".join(held.keys.prompts)[: blocks * KEY_BYTES] if held.keys.total_blocks >= blocks else b""


class _Placement:
    """What has been placed so far.

    Args:
        replicas: endpoints to choose from.
        total: of all that will be placed, in the unit that is balanced.
    """

    def __init__(self, replicas: Candidates, rules: BurstRules, total: int) -> None:
        self._replicas = replicas
        self._rules = rules
        self._fair_share = -(-total // len(replicas))
        self._running = [count or 0 for count in replicas.running_requests]
        self._load = [0] * len(replicas)
        self._index = twins.make_index()
        """Of what this burst makes each replica hold, by position."""

    def place(self, unit: Unit) -> None:
        """Assign the members of a unit: all to one replica, or to as many as ``per_replica`` asks for."""
        keys = unit[0].keys
        held = self._held(keys)
        own = [0] * len(self._replicas)
        prefer = self._rules.colocate_blocks > 0
        left = unit
        while left:
            position = self._choose(own, held, prefer=prefer)
            limit = self._rules.per_replica
            room = len(left) if limit is None else max(1, limit - own[position])
            chosen, left = left[:room], left[room:]
            for member in chosen:
                member.assigned = self._replicas.ids[position]
            if not self._rules.by_tokens:
                self._load[position] += len(chosen)
            elif not own[position]:
                self._load[position] += max(0, keys.total_blocks - held.get(position, 0))
            own[position] += len(chosen)
            prefer = False
        for position, count in enumerate(own):
            if count:
                for prompt in keys.prompts:
                    self._index.add(position, prompt, _ALL)

    def _held(self, keys: RequestKeys) -> dict[int, int]:
        """Position → blocks of the prompts that are held there."""
        held: dict[int, int] = {}
        for prompt in keys.prompts:
            for position, blocks in self._index.match(prompt):
                held[position] = held.get(position, 0) + blocks
        return held

    def _choose(self, own: Sequence[int], held: dict[int, int], *, prefer: bool) -> int:
        """Where the beginning is held already, if that has not had its share; else the least loaded."""
        limit = self._rules.per_replica
        free = [p for p in range(len(own)) if limit is None or own[p] < limit]
        if prefer:
            common = self._rules.colocate_blocks
            near = [p for p in free if held.get(p, 0) >= common and self._load[p] < self._fair_share]
            if near:
                return min(near, key=lambda p: (-held[p], *self._burden(p)))
        return min(free or range(len(own)), key=self._burden)

    def _burden(self, position: int) -> tuple[int, int, EndpointId]:
        return self._load[position], self._running[position], self._replicas.ids[position]
