"""Where two configurations sent the same request to different servers, and why.

Each had its own past by then: other caches, other queues. So the reasons count, and what came of it, more than the share.
"""

from __future__ import annotations

from dataclasses import dataclass

from epp.replay.figures import rate
from epp.replay.outcome import Outcome
from epp.replay.run import Run

EXAMPLES = 3
"""Of each pair of reasons: those where the outcome differs most."""


@dataclass(frozen=True, slots=True)
class Example:
    """One request."""

    line: int
    """In the trace."""
    at_s: float
    prompt_tokens: int
    servers: tuple[str, str]
    cached_tokens: tuple[int, int]
    ttft_s: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Reasons:
    """Requests on which the two disagree for the same reasons."""

    reasons: tuple[str, str]
    """What spoke most for the server of each, against the other's: the name of a plugin, or a draw."""
    requests: int
    cached_tokens: tuple[float, float]
    """Of each, on average."""
    ttft_s: tuple[float, float]
    """Of each, on average."""
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two configurations, the same requests."""

    names: tuple[str, str]
    compared: int
    """Requests that both served."""
    differ: int
    """Of these, by different servers."""
    refused_by_one: int
    """Requests that only one of the two served."""
    groups: tuple[Reasons, ...]
    """Most frequent first."""

    @property
    def share(self) -> float:
        """Of the compared requests."""
        return rate(self.differ, self.compared)


def disagreement(one: Run, other: Run) -> Disagreement:
    """Compare two runs of the same trace on the same servers."""
    pairs = list(zip(one.outcomes, other.outcomes, strict=True))
    both = [(a, b) for a, b in pairs if a.is_served and b.is_served]
    groups: dict[tuple[str, str], list[tuple[Outcome, Outcome]]] = {}
    for a, b in both:
        if a.server != b.server:
            groups.setdefault(_reasons(a, b), []).append((a, b))
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return Disagreement(
        (one.name, other.name),
        len(both),
        sum(map(len, groups.values())),
        sum(a.is_served != b.is_served for a, b in pairs),
        tuple(_group(reasons, members, one.servers) for reasons, members in ranked),
    )


def _reasons(a: Outcome, b: Outcome) -> tuple[str, str]:
    if a.choice is None or b.choice is None:
        return "unknown", "unknown"
    return a.choice.reason(b.choice.picked), b.choice.reason(a.choice.picked)


def _group(reasons: tuple[str, str], members: list[tuple[Outcome, Outcome]], servers: tuple[str, ...]) -> Reasons:
    count = len(members)
    telling = sorted(members, key=lambda pair: (-abs(pair[0].cached_tokens - pair[1].cached_tokens), pair[0].line))
    return Reasons(
        reasons,
        count,
        (sum(a.cached_tokens for a, _ in members) / count, sum(b.cached_tokens for _, b in members) / count),
        (sum(a.ttft_s or 0.0 for a, _ in members) / count, sum(b.ttft_s or 0.0 for _, b in members) / count),
        tuple(_example(a, b, servers) for a, b in telling[:EXAMPLES]),
    )


def _example(a: Outcome, b: Outcome, servers: tuple[str, ...]) -> Example:
    assert a.server is not None
    assert b.server is not None
    return Example(
        a.line,
        a.at_s,
        a.prompt_tokens,
        (servers[a.server], servers[b.server]),
        (a.cached_tokens, b.cached_tokens),
        (a.ttft_s, b.ttft_s),
    )
