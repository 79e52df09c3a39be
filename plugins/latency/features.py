"""What a latency is learned from: the features of one request on one endpoint.

All are scaled so that usual values lie around 1: the ridge of the regression then weighs on all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from epp.framework.candidates import Candidates
from epp.framework.keys import MediaMatch, PrefixMatch
from epp.framework.types import EndpointId

Row = tuple[float, ...]
"""One request on one endpoint, shape ``(len(FEATURES),)``."""

FEATURES = (
    "constant",
    "uncached prompt tokens / 1000",
    "waiting requests / 10",
    "running requests / 10",
    "KV cache usage",
    "requests sent and not over / 10",
    "their prompt tokens / 10000",
    "prompt tokens sent and without first token / 1000",
    "uncached media / 1000",
    "output limit / 1000",
)
"""In the order of a row. The output limit counts for answers that are not streamed; media where a producer knows them."""

_MOST_WAITING = 10_000
_MOST_TOKENS = 10_000_000
"""Servers and clients can name any number; one absurd row must not outweigh all others."""


@dataclass(slots=True)
class Load:
    """What this picker has sent to one endpoint and not seen end. That of an endpoint that went away counts down unseen."""

    endpoint_id: EndpointId
    requests: int = 0
    tokens: int = 0
    """Of the prompts."""
    prefill_tokens: int = 0
    """Uncached prompt tokens of requests without a first token yet."""
    tpot_objectives_ms: list[float] = field(default_factory=list)
    """Ascending; of the requests that have one."""


class Columns(NamedTuple):
    """The features that differ between endpoints, each of shape ``(len(candidates),)``, scaled."""

    uncached: list[float]
    waiting: list[float]
    running: list[float]
    kv: list[float]
    requests: list[float]
    tokens: list[float]
    prefill: list[float]
    media: list[float]

    def row(self, position: int, output_cap: float) -> Row:
        """The row of one endpoint.

        Args:
            position: in the candidates.
            output_cap: scaled.
        """
        return (1.0, *(column[position] for column in self), output_cap)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known of a request before it is sent."""

    prompt_tokens: int
    matches: Mapping[EndpointId, PrefixMatch] | None = None
    media: Mapping[EndpointId, MediaMatch] | None = None

    def uncached_tokens(self, endpoint_id: EndpointId) -> float:
        """Prompt tokens that the endpoint must compute."""
        match = self.matches.get(endpoint_id) if self.matches else None
        share = 1.0 - min(match.ratio, 1.0) if match is not None else 1.0
        return self.prompt_tokens * share


_NO_LOAD = Load(EndpointId(""))


def columns(candidates: Candidates, inputs: Inputs, loads: Mapping[EndpointId, Load]) -> Columns:
    """The features of one request on each candidate."""
    ids = candidates.ids
    found = [loads.get(endpoint_id, _NO_LOAD) for endpoint_id in ids]
    media = inputs.media
    if inputs.matches:
        uncached = [_tokens(inputs.uncached_tokens(endpoint_id)) for endpoint_id in ids]
    else:
        uncached = [_tokens(inputs.prompt_tokens)] * len(ids)
    return Columns(
        uncached=uncached,
        waiting=[min(count or 0, _MOST_WAITING) * 0.1 for count in candidates.waiting_queue],
        running=[min(count or 0, _MOST_WAITING) * 0.1 for count in candidates.running_requests],
        kv=[usage if usage is not None and 0.0 <= usage <= 1.0 else _usage(usage) for usage in candidates.kv_cache_usage],
        requests=[load.requests * 0.1 for load in found],
        tokens=[load.tokens * 1e-4 for load in found],
        prefill=[load.prefill_tokens * 1e-3 for load in found],
        media=[_uncached_media(media.get(endpoint_id)) for endpoint_id in ids] if media else [0.0] * len(ids),
    )


def scaled_output_cap(tokens: int | None) -> float:
    """The feature ``output limit``; 0 if the client set none."""
    return _tokens(tokens or 0)


def _tokens(count: float) -> float:
    return min(count, _MOST_TOKENS) * 1e-3


def _usage(usage: float | None) -> float:
    """What a server cannot mean: above 1 is full, the rest is unknown and reads as empty."""
    return 1.0 if usage is not None and usage > 1.0 else 0.0


def _uncached_media(match: MediaMatch | None) -> float:
    return _tokens(max(match.total_size - match.matched_size, 0)) if match is not None else 0.0
