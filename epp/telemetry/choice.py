"""Why an endpoint was picked: what is kept of a decision, and what spoke for it against another endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from epp.telemetry.decision_record import DecisionRecord

TIE = "a draw among equals"
CHANCE = "a draw"
"""Nothing was scored."""
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Choice:
    """The picked endpoint, with what the profile that picked it made of all the others. Endpoints are ``host:port``."""

    picked: str
    scorers: tuple[tuple[str, float, dict[str, float]], ...]
    """(name, weight, scores) of those that gave scores."""
    totals: dict[str, float]
    """Of all that the filters left."""
    dropped_by: dict[str, str]
    """Endpoint → screener or filter that dropped it."""

    def reason(self, other: str) -> str:
        """What spoke most for the picked endpoint against ``other``: the name of a plugin, or that there was nothing."""
        if other in self.dropped_by:
            return self.dropped_by[other]
        if not self.scorers:
            return CHANCE
        margin, name = max(
            (weight * (scores.get(self.picked, 0.0) - scores.get(other, 0.0)), name) for name, weight, scores in self.scorers
        )
        if self.totals.get(self.picked, 0.0) - self.totals.get(other, 0.0) <= _EQUAL:
            return TIE
        return name if margin > _EQUAL else TIE


def choice_of(record: DecisionRecord) -> Choice | None:
    """What to keep of a decision; None if no endpoint was picked."""
    run = next((profile for profile in record.profiles if profile.profile == record.primary), None)
    if run is None or not record.picked:
        return None
    dropped: dict[str, str] = {}
    for screen in record.screeners:
        dropped.update(dict.fromkeys(screen.dropped, screen.plugin))
    for step in run.filters:
        dropped.update(dict.fromkeys(step.dropped, step.plugin))
    scorers = tuple((step.plugin, step.weight, step.scores) for step in run.scorers if step.scores)
    return Choice(record.picked[0], scorers, run.totals, dropped)
