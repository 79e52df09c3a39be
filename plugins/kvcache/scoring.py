"""From what pods hold of each prompt of a request to what its endpoints are told to hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epp.framework.keys import PrefixMatch
from epp.framework.types import EndpointId
from plugins.kvcache.block_index import Match


def prefix_matches(
    found: Iterable[Mapping[str, Match]], ids: Mapping[str, EndpointId], total_blocks: int, block_size: int
) -> dict[EndpointId, PrefixMatch]:
    """The match of each endpoint, summed over the prompts; pods that are no endpoints are left out.

    Args:
        found: what pods hold of each prompt, by their names.
        ids: of the endpoints, by the names of their pods.
        total_blocks: of all prompts.
        block_size: tokens of a block.
    """
    matches = list(found)
    if len(matches) == 1:
        return {
            ids[pod]: PrefixMatch(match.blocks, total_blocks, block_size, match.weighted, match.by_tier)
            for pod, match in matches[0].items()
            if pod in ids
        }
    summed: dict[str, Match] = {}
    for of_prompt in matches:
        for pod, match in of_prompt.items():
            summed[pod] = _plus(summed[pod], match) if pod in summed else match
    return prefix_matches([summed], ids, total_blocks, block_size)


def _plus(one: Match, other: Match) -> Match:
    tiers = {*one.by_tier, *other.by_tier}
    by_tier = {tier: one.by_tier.get(tier, 0) + other.by_tier.get(tier, 0) for tier in tiers}
    return Match(one.blocks + other.blocks, one.weighted + other.weighted, by_tier)
