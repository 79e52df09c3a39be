"""All that a decision depends on and that comes from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from epp.decision.admission import Admission
from epp.hooks.runner import HookRunner
from epp.request.parse import ParserTable
from epp.scheduling.cached_prefix import MatchKey
from epp.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Immutable; another configuration is another pipeline."""

    parsers: ParserTable
    scheduler: Scheduler
    hooks: HookRunner
    admission: Admission | None = None
    """None lets every request in."""
    match_keys: tuple[MatchKey, ...] = ()
    """Where the declared producers of prefix matches write."""
