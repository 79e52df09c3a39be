"""All that a decision depends on and that comes from the configuration, and who still uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epp.flowcontrol.admission import Admission
from epp.framework.data import DataKey
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
    readings: tuple[DataKey[object], ...] = ()
    """Where the results of the transport's request readers go, in the order of ``Settings.request_readers``."""


class PipelineInUse:
    """A pipeline and the number of requests that began with it and are not over; they end with it, whatever comes after.

    Args:
        pipeline: what it is about.
    """

    __slots__ = ("_when_idle", "open_requests", "pipeline")

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.open_requests = 0
        self._when_idle: Callable[[], None] | None = None

    def begin(self) -> None:
        """A request begins."""
        self.open_requests += 1

    def end(self) -> None:
        """It is over; exactly once for each ``begin``."""
        self.open_requests -= 1
        if self._when_idle is not None and not self.open_requests:
            self._when_idle()

    def retire(self, when_idle: Callable[[], None]) -> None:
        """No request begins any more; ``when_idle`` is called once the last one is over, now if there is none."""
        if self.open_requests:
            self._when_idle = when_idle
        else:
            when_idle()
