"""Whether the picked endpoint holds the beginning of a prompt: what a conditional request asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epp.framework.data import DataKey
from epp.framework.keys import PrefixMatch
from epp.framework.results import SchedulingResult
from epp.framework.types import EndpointId, InferenceRequest

MatchKey = DataKey[dict[EndpointId, PrefixMatch]]
"""Where one producer writes its matches."""


def has_cached_prefix(request: InferenceRequest, result: SchedulingResult, keys: Iterable[MatchKey]) -> bool:
    """Some index knows at least one block of the prompt on the endpoint that the request goes to.

    Args:
        keys: of all producers of matches; without any nothing is known to be cached.
    """
    target = result.target.id
    found: Iterable[Mapping[EndpointId, PrefixMatch] | None] = (request.data.get(key) for key in keys)
    return any(match.match_blocks > 0 for matches in found if matches and (match := matches.get(target)))
