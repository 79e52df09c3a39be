"""Figures of a run: how much was found in caches, how long things took, how evenly the work was spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from epp.replay.outcome import Outcome
from epp.replay.run import Run

INTERVALS = 60
"""Parts of a replay in its course over time."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity is distributed; percentiles are values that occurred (nearest rank)."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None if there are no values."""
        if not values:
            return None
        ranked = sorted(values)

        def at(share: float) -> float:
            return ranked[max(0, ceil(share * len(ranked)) - 1)]

        return cls(sum(ranked) / len(ranked), at(0.5), at(0.9), at(0.99), ranked[-1])


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """One server."""

    name: str
    requests: int
    """Served."""
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    """Its work: prompt tokens that were not cached, and output tokens."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The requests that came in one part of the replay."""

    start_s: float
    """From the beginning of the replay."""
    requests: int
    hit_rate: float | None
    ttft_s: Spread | None
    waiting: float
    """Requests in all queues, on average."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a run. Times are of served requests, in seconds."""

    requests: int
    served: int
    refused: dict[str, int]
    """Requests that were not served, by status and reason."""
    split: int
    """Requests whose prompt or media another server was to compute first, which a replay leaves out."""
    duration_s: float
    """From the first request to the end of the last one."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: Spread | None
    latency_s: Spread | None
    queued_s: Spread | None
    """In the servers' queues."""
    held_s: Spread | None
    """In the picker."""
    requests_balance: float
    """Of the servers: most requests over the mean; 1 = all had the same."""
    work_balance: float
    """The same of computed tokens."""
    mean_waiting: float
    """Requests in a server's queue, on average over time and servers."""
    max_waiting: int
    """The longest queue that was seen."""
    servers: tuple[ServerFigures, ...]
    course: tuple[Interval, ...]

    @property
    def hit_rate(self) -> float:
        """Cached over all prompt tokens of served requests."""
        return rate(self.cached_tokens, self.prompt_tokens)


def figures(run: Run) -> Figures:
    """The figures of a run."""
    outcomes = run.outcomes
    served = [outcome for outcome in outcomes if outcome.is_served]
    servers = tuple(_server(name, [o for o in served if o.server == index]) for index, name in enumerate(run.servers))
    waiting = [sample.waiting for sample in run.samples]
    return Figures(
        requests=len(outcomes),
        served=len(served),
        refused=dict(Counter(refusal(outcome) for outcome in outcomes if not outcome.is_served).most_common()),
        split=sum(outcome.is_split for outcome in outcomes),
        duration_s=max((outcome.at_s + (outcome.latency_s or outcome.held_s) for outcome in outcomes), default=0.0),
        prompt_tokens=sum(outcome.prompt_tokens for outcome in served),
        cached_tokens=sum(outcome.cached_tokens for outcome in served),
        output_tokens=sum(outcome.output_tokens for outcome in served),
        ttft_s=Spread.of([outcome.ttft_s for outcome in served if outcome.ttft_s is not None]),
        latency_s=Spread.of([outcome.latency_s for outcome in served if outcome.latency_s is not None]),
        queued_s=Spread.of([outcome.queued_s for outcome in served if outcome.queued_s is not None]),
        held_s=Spread.of([outcome.held_s for outcome in outcomes]),
        requests_balance=_balance([server.requests for server in servers]),
        work_balance=_balance([server.computed_tokens for server in servers]),
        mean_waiting=_mean([sum(each) / len(each) for each in waiting]),
        max_waiting=max((max(each) for each in waiting), default=0),
        servers=servers,
        course=_course(run),
    )


def refusal(outcome: Outcome) -> str:
    """Status and reason of a request that was not served."""
    return f"{outcome.status} {outcome.problem}".strip()


def rate(part: float, whole: float) -> float:
    """A share; 0 of nothing."""
    return part / whole if whole else 0.0


def _server(name: str, served: list[Outcome]) -> ServerFigures:
    prompt = sum(outcome.prompt_tokens for outcome in served)
    cached = sum(outcome.cached_tokens for outcome in served)
    return ServerFigures(name, len(served), prompt, cached, prompt - cached + sum(outcome.output_tokens for outcome in served))


def _course(run: Run) -> tuple[Interval, ...]:
    end_s = max(run.outcomes[-1].at_s, 1e-9)
    step_s = end_s / INTERVALS
    parts: list[list[Outcome]] = [[] for _ in range(INTERVALS)]
    for outcome in run.outcomes:
        parts[min(int(outcome.at_s / step_s), INTERVALS - 1)].append(outcome)
    queues: list[list[int]] = [[] for _ in range(INTERVALS)]
    for sample in run.samples:
        if sample.at_s < end_s:
            queues[min(int(sample.at_s / step_s), INTERVALS - 1)].append(sum(sample.waiting))
    return tuple(_interval(index * step_s, part, queue) for index, (part, queue) in enumerate(zip(parts, queues, strict=True)))


def _interval(start_s: float, outcomes: list[Outcome], waiting: list[int]) -> Interval:
    served = [outcome for outcome in outcomes if outcome.is_served]
    prompt = sum(outcome.prompt_tokens for outcome in served)
    return Interval(
        start_s,
        len(outcomes),
        sum(outcome.cached_tokens for outcome in served) / prompt if prompt else None,
        Spread.of([outcome.ttft_s for outcome in served if outcome.ttft_s is not None]),
        _mean(waiting),
    )


def _balance(loads: Sequence[float]) -> float:
    mean = _mean(loads)
    return max(loads) / mean if mean else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
