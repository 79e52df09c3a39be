"""What another configuration would have made of the same requests: each compared with what was done, and all of them counted.

Pure functions of records, and a tally of constant size. Endpoints are ``host:port``; there is no text of a prompt.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from epp.telemetry.choice import choice_of
from epp.telemetry.decision_record import DecisionRecord

EXAMPLES = 3
"""Kept for each reason: the newest."""
RECENT = 50
"""Disagreements, refusals and failures that are kept, the newest."""
NO_CANDIDATE = "no candidate"
"""The endpoint that the request went to was none of the shadow's candidates: it has left, or is held back."""


class Verdict(StrEnum):
    """What the shadow made of a request that was served."""

    AGREE = "agree"
    DISAGREE = "disagree"
    REFUSED = "refused"
    """It would not have been served."""
    FAILED = "failed"
    """A plugin of the shadow failed, and with it the decision."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One request."""

    request_id: str
    at_s: float
    """Unix time."""
    model: str
    live: str
    """Where it went."""
    verdict: Verdict
    shadow: str = ""
    """Where it would have gone."""
    reason: str = ""
    """What spoke most for the shadow's endpoint: the name of one of its plugins, a draw, or ``NO_CANDIDATE``."""
    margin: float | None = None
    """The shadow's total of its own endpoint, less its total of the other; None = it has not rated both."""
    prefix_tokens: int | None = None
    """Prompt tokens thought cached on the shadow's endpoint, less those on the other; None = nobody looked."""
    error: str = ""
    """Why it would have been refused, or what failed."""


def compare(record: DecisionRecord, live: str, shadow: str, prefix_tokens: int | None) -> Comparison:
    """The shadow's decision and what was done.

    Args:
        record: of the shadow's decision.
        live: where the request went.
        shadow: where the shadow sends it.
        prefix_tokens: thought cached on the shadow's endpoint, less those on the other; None = nobody looked.
    """
    if live == shadow:
        return Comparison(record.request_id, record.at_s, record.model, live, Verdict.AGREE, shadow)
    choice = choice_of(record)
    reason, margin = NO_CANDIDATE, None
    if choice is not None and (live in choice.totals or live in choice.dropped_by or live in record.candidates):
        choice = replace(choice, picked=shadow)
        reason = choice.reason(live)
        if choice.scorers and live in choice.totals and shadow in choice.totals:
            margin = choice.totals[shadow] - choice.totals[live]
    return Comparison(
        record.request_id,
        record.at_s,
        record.model,
        live,
        Verdict.DISAGREE,
        shadow,
        reason,
        margin=margin,
        prefix_tokens=prefix_tokens,
    )


def without_pick(record: DecisionRecord, live: str, verdict: Verdict, error: str) -> Comparison:
    """The shadow has picked nothing for a request that was served."""
    return Comparison(record.request_id, record.at_s, record.model, live, verdict, error=error)


@dataclass(slots=True)
class Effect:
    """What disagreements would have won or lost."""

    rated: int = 0
    """Those with a margin."""
    margin_sum: float = 0.0
    margin_max: float = 0.0
    prefix_known: int = 0
    """Those of which cached tokens are known."""
    tokens_won: int = 0
    tokens_lost: int = 0

    def add(self, found: Comparison) -> None:
        """Count one."""
        if found.margin is not None:
            self.rated += 1
            self.margin_sum += found.margin
            self.margin_max = max(self.margin_max, found.margin)
        if found.prefix_tokens is not None:
            self.prefix_known += 1
            self.tokens_won += max(found.prefix_tokens, 0)
            self.tokens_lost += max(-found.prefix_tokens, 0)

    def as_json(self) -> dict[str, object]:
        """For the page."""
        known = self.prefix_known > 0
        return {
            "rated": self.rated,
            "mean_margin": self.margin_sum / self.rated if self.rated else None,
            "max_margin": self.margin_max if self.rated else None,
            "prefix_tokens_won": self.tokens_won if known else None,
            "prefix_tokens_lost": self.tokens_lost if known else None,
        }


@dataclass(slots=True)
class ReasonTally:
    """The disagreements for one reason."""

    requests: int = 0
    effect: Effect = field(default_factory=Effect)
    examples: deque[Comparison] = field(default_factory=lambda: deque(maxlen=EXAMPLES))

    def add(self, found: Comparison) -> None:
        """Count one."""
        self.requests += 1
        self.effect.add(found)
        self.examples.append(found)

    def as_json(self) -> dict[str, object]:
        """For the page."""
        examples = [asdict(example) for example in self.examples]
        return {"requests": self.requests, **self.effect.as_json(), "examples": examples}


class ShadowTally:
    """All comparisons with one configuration. Its size does not grow with the requests: reasons are names of plugins."""

    def __init__(self) -> None:
        self.since_s = time.time()
        """Unix time."""
        self.verdicts = dict.fromkeys(Verdict, 0)
        self.skipped: dict[str, int] = {}
        """Why → requests that were not shown to the shadow."""
        self.effect = Effect()
        """Of all disagreements."""
        self.reasons: dict[str, ReasonTally] = {}
        self.recent: deque[Comparison] = deque(maxlen=RECENT)
        """All but agreements."""

    def add(self, found: Comparison) -> None:
        """Count one."""
        self.verdicts[found.verdict] += 1
        if found.verdict is Verdict.AGREE:
            return
        self.recent.append(found)
        if found.verdict is Verdict.DISAGREE:
            self.effect.add(found)
            self.reasons.setdefault(found.reason, ReasonTally()).add(found)

    def skip(self, why: str) -> None:
        """A request was not shown to the shadow."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    @property
    def count(self) -> int:
        """Requests so far, those that were not shown included."""
        return sum(self.verdicts.values()) + sum(self.skipped.values())

    @property
    def disagreement(self) -> float | None:
        """Share of the requests for which both have picked; None if there is none."""
        both = self.verdicts[Verdict.AGREE] + self.verdicts[Verdict.DISAGREE]
        return self.verdicts[Verdict.DISAGREE] / both if both else None

    def as_json(self) -> dict[str, object]:
        """For the page; reasons most frequent first, recent ones newest first."""
        ranked = sorted(self.reasons.items(), key=lambda item: (-item[1].requests, item[0]))
        return {
            "since_s": self.since_s,
            "compared": sum(self.verdicts.values()),
            "verdicts": {verdict.value: count for verdict, count in self.verdicts.items()},
            "skipped": dict(self.skipped),
            "disagreement": self.disagreement,
            "effect": self.effect.as_json(),
            "reasons": [{"reason": reason, **tally.as_json()} for reason, tally in ranked],
            "recent": [asdict(found) for found in reversed(self.recent)],
        }
