"""The choice of one endpoint by predicted headrooms: gates, tiers, strategies, draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from epp.framework.types import EndpointId
from plugins.latency import weights
from plugins.latency.weights import Blend, CompositeBlend


class Strategy(StrEnum):
    """Which of the endpoints of a tier is preferred."""

    LEAST = "least"
    """The one with the least headroom that still meets the objectives."""
    MOST = "most"
    COMPOSITE_LEAST = "composite-least"
    COMPOSITE_MOST = "composite-most"
    COMPOSITE_ONLY = "composite-only"
    """Predictions do not matter."""


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """What the parameters say about choosing."""

    strategy: Strategy
    headroom: Blend
    deficit: Blend
    composite: CompositeBlend
    explore_sticky: float
    """Probability that a prefix gate stays open."""
    explore_negative: float
    """Probability that the negative tier is used although there is a positive one."""
    tier_gate: float
    """Cached share from which a tier's endpoints are kept; 0 = off."""
    global_gate: float
    """The same over all endpoints."""
    largest: bool
    """The largest weight wins; otherwise they are drawn by."""
    streaming: bool


class Draws(NamedTuple):
    """Random numbers in [0, 1) of one request, so that scoring it again gives the same."""

    global_gate: float
    tier: float
    tier_gate: float
    pick: float


class Standing(NamedTuple):
    """What is known of one candidate."""

    position: int
    id: EndpointId
    waiting: int
    kv_usage: float
    prefix: float
    ttft_ms: float = 0.0
    """Headroom."""
    tpot_ms: float = 0.0
    dispatched: int = 0
    """Requests that this picker sent there and that still run."""

    @property
    def is_positive(self) -> bool:
        """Both objectives are met."""
        return self.ttft_ms >= 0 and self.tpot_ms >= 0


def choose(standings: Sequence[Standing], predicted: bool, options: ChoiceOptions, draws: Draws) -> Standing | None:
    """The candidate that the request should go to; None without candidates.

    Args:
        standings: the candidates, in their order.
        predicted: every one has a prediction; otherwise the composite decides among all.
        draws: of the request.
    """
    if not predicted:
        return _draw(standings, _composite(standings, options), options, draws)
    left = _gate(standings, options.global_gate, draws.global_gate >= options.explore_sticky)
    if options.strategy is Strategy.COMPOSITE_ONLY:
        return _draw(left, _composite(left, options), options, draws)
    left, is_positive = _tier(left, options, draws)
    if not is_positive:
        left = [standing for standing in left if not standing.dispatched] or left
    left = _gate(left, options.tier_gate, draws.tier_gate >= options.explore_sticky)
    return _draw(left, _weights(left, is_positive, options), options, draws)


def _gate(standings: Sequence[Standing], threshold: float, closes: bool) -> Sequence[Standing]:
    """Those that hold enough of the prompt's prefix, if there are any."""
    if threshold <= 0 or not closes:
        return standings
    return [standing for standing in standings if standing.prefix >= threshold] or standings


def _tier(standings: Sequence[Standing], options: ChoiceOptions, draws: Draws) -> tuple[Sequence[Standing], bool]:
    positive = [standing for standing in standings if standing.is_positive]
    negative = [standing for standing in standings if not standing.is_positive]
    if positive and negative:
        return (negative, False) if draws.tier < options.explore_negative else (positive, True)
    return (positive, True) if positive else (negative, False)


def _weights(standings: Sequence[Standing], is_positive: bool, options: ChoiceOptions) -> list[int]:
    strategy = options.strategy
    if strategy is Strategy.COMPOSITE_MOST:
        return _composite(standings, options)
    if strategy is Strategy.COMPOSITE_LEAST:
        return weights.inverted(_composite(standings, options))
    ttft = [standing.ttft_ms for standing in standings]
    tpot = [standing.tpot_ms for standing in standings]
    if not is_positive:
        return weights.negative(ttft, tpot, options.deficit.shares())
    shares = options.headroom.shares() if options.streaming else (1.0, 0.0)
    return weights.positive(ttft, tpot, shares, least=strategy is Strategy.LEAST)


def _composite(standings: Sequence[Standing], options: ChoiceOptions) -> list[int]:
    return weights.composite(
        [standing.waiting for standing in standings],
        [standing.kv_usage for standing in standings],
        [standing.prefix for standing in standings],
        options.composite.shares(),
    )


def _draw(standings: Sequence[Standing], by: Sequence[int], options: ChoiceOptions, draws: Draws) -> Standing | None:
    """One of ``standings``, with a probability as its weight; what order they come in does not matter."""
    total = sum(by)
    if total <= 0:
        return None
    if options.largest:
        return standings[by.index(max(by))]
    rest = draws.pick * total
    chosen = None
    for standing, weight in sorted(zip(standings, by, strict=True), key=lambda pair: pair[0].id):
        chosen = standing
        rest -= weight
        if rest < 0:
            break
    return chosen
