"""Block size and capacities: as configured, or as the engines of the pool say (``autoTune``).

The block size is one for the whole index: the one that most endpoints have, the smaller of two that are equally frequent. What
an endpoint said last counts, so that requests whose candidates are a part of the pool do not change it.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.types import EndpointChange, EndpointId
from plugins.prefix.settings import IndexSettings

_logger = log.get(__name__)


class _Said(NamedTuple):
    block_tokens: int
    blocks: int


_NOTHING = _Said(0, 0)


class Sizes:
    """The sizes of one index.

    Args:
        name: of the plugin, for the log.
    """

    def __init__(self, name: str, settings: IndexSettings) -> None:
        self.block_tokens = settings.block_tokens
        """In force."""
        self._name = name
        self._settings = settings
        self._said: dict[EndpointId, _Said] = {}
        """What the engine of each endpoint of the pool says; 0 = nothing."""
        self._logged: frozenset[int] = frozenset()

    def __contains__(self, endpoint_id: EndpointId) -> bool:
        """The endpoint is in the pool."""
        return endpoint_id in self._said

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Follow the pool; an endpoint that moved has said nothing yet."""
        for endpoint in change.removed:
            self._said.pop(endpoint.id, None)
        for endpoint in change.added:
            self._said[endpoint.id] = _NOTHING

    def observe(self, candidates: Candidates) -> list[EndpointId]:
        """Read the metrics, once for each view of the candidates.

        Returns:
            Endpoints whose engines say something new; their capacity, and the block size, may have changed.
        """
        if not self._settings.auto_tune or self in candidates.memo:
            return []
        candidates.memo[self] = True
        changed = []
        for endpoint_id, metrics in zip(candidates.ids, candidates.metrics, strict=True):
            before = self._said.get(endpoint_id)
            if before is None:
                continue
            now = _Said(metrics.cache_block_size or before.block_tokens, metrics.cache_num_blocks or before.blocks)
            if now != before:
                self._said[endpoint_id] = now
                changed.append(endpoint_id)
        if changed:
            self._vote()
        return changed

    def capacity(self, endpoint_id: EndpointId) -> int:
        """Blocks, of the size in force, that an endpoint holds."""
        said = self._said.get(endpoint_id, _NOTHING)
        if said.blocks <= 0 or not self._settings.auto_tune:
            return self._settings.capacity
        return max(1, said.blocks * (said.block_tokens or self.block_tokens) // self.block_tokens)

    def _vote(self) -> None:
        votes = Counter(said.block_tokens for said in self._said.values() if said.block_tokens > 0)
        self.block_tokens = max(votes, key=lambda size: (votes[size], -size)) if votes else self._settings.block_tokens
        kinds = frozenset(votes)
        if len(kinds) > 1 and kinds != self._logged:
            _logger.warning(
                "engines of the pool have different block sizes: matches on some endpoints are only roughly right",
                plugin=self._name,
                sizes=sorted(kinds),
                used=self.block_tokens,
            )
        self._logged = kinds
