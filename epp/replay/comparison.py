"""Several configurations under the same load, and what there is to say of them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epp.config.loaded import LoadedConfig
from epp.replay.bound import Bound, bound
from epp.replay.disagreement import Disagreement, disagreement
from epp.replay.figures import Figures, figures
from epp.replay.load import Trace
from epp.replay.options import ReplayOptions
from epp.replay.run import OnProgress, Run, replay

BOUND = "bound"
"""Name of that piece of work."""
Begin = Callable[[str], OnProgress]
"""Name of a piece of work → what is told how much of it is done."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The results of all configurations, in their order."""

    trace: Trace
    options: ReplayOptions
    runs: tuple[Run, ...]
    figures: tuple[Figures, ...]
    wall_s: tuple[float, ...]
    """How long each replay took in reality: the one thing that is not the same the next time."""
    disagreements: tuple[Disagreement, ...]
    """Of the first configuration with each other one."""
    bound: Bound | None

    @property
    def named(self) -> list[tuple[str, Figures]]:
        """Name and figures of each configuration."""
        return [(run.name, found) for run, found in zip(self.runs, self.figures, strict=True)]


def compare(
    trace: Trace, options: ReplayOptions, configs: Sequence[tuple[str, LoadedConfig]], begin: Begin, *, with_bound: bool = False
) -> Comparison:
    """Replay a trace by each configuration.

    Args:
        configs: name and configuration of each.
        begin: told of each piece of work.
        with_bound: find out also which hit rate is possible.

    Raises:
        ReplayError, ConfigError: as for ``replay``.
    """
    runs: list[Run] = []
    wall_s: list[float] = []
    for name, config in configs:
        begun_s = time.perf_counter()
        runs.append(replay(name, config, trace, options, explain=len(configs) > 1, on_progress=begin(name)))
        wall_s.append(time.perf_counter() - begun_s)
    return Comparison(
        trace,
        options,
        tuple(runs),
        tuple(map(figures, runs)),
        tuple(wall_s),
        tuple(disagreement(runs[0], run) for run in runs[1:]),
        bound(trace, options, begin(BOUND)) if with_bound else None,
    )
