"""What a replay is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from epp.simulate.options import DEFAULT_MODEL, EngineOptions


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """The pool that a load is replayed on, and how."""

    servers: int = 4
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Of each server; its seed is that of the first one, the others follow."""
    labels: tuple[Mapping[str, str], ...] = ()
    """Of each server, if they have any."""
    lora: tuple[str, ...] = ()
    """Adapters that each server has, as models of their own; any other name is the base model's."""
    model: str = DEFAULT_MODEL
    """Name in requests of a trace that knows none."""
    time_scale: float = 1.0
    """Factor on the time between requests: 0.5 sends twice as fast."""
    refresh_interval_s: float = 0.05
    """Of the servers' metrics."""
    seed: int = 0
    """Of everything that is drawn."""

    def labels_of(self, index: int) -> Mapping[str, str]:
        """Labels of one server."""
        return self.labels[index] if self.labels else {}
