"""A decision as a record: who was a candidate, who filtered whom, how each scorer rated, what was picked.

Made only when somebody asks (debug log, ``epp explain``, debug page); otherwise scheduling writes nothing down.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class FilterRecord:
    """What one filter did."""

    plugin: str
    dropped: list[str]
    """``host:port`` of the candidates it dropped, in candidate order."""
    kept: int
    error: str = ""


@dataclass(slots=True)
class ScoreRecord:
    """How one scorer rated."""

    plugin: str
    weight: float
    scores: dict[str, float]
    """``host:port`` → score in [0, 1] as it was counted, before weighting."""
    error: str = ""


@dataclass(slots=True)
class ProfileRecord:
    """One profile run."""

    profile: str
    filters: list[FilterRecord] = field(default_factory=list)
    scorers: list[ScoreRecord] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    picker: str = ""
    picked: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class DecisionRecord:
    """One scheduling cycle."""

    request_id: str = ""
    model: str = ""
    target_model: str = ""
    candidates: list[str] = field(default_factory=list)
    profiles: list[ProfileRecord] = field(default_factory=list)
    primary: str = ""
    picked: list[str] = field(default_factory=list)
    error: str = ""
