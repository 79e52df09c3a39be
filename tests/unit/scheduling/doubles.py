"""Small plugins whose behaviour a test states in one line, and profiles made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from epp.errors import SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role, SchedulingProfile
from epp.framework.results import ProfileResults, ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest
from epp.plugin_calls.guard import UNGUARDED, Guard
from epp.plugin_calls.step import CallWatch
from epp.scheduling.profile import FilterStep, PickerStep, Profile, ScorerStep
from epp.scheduling.scheduler import HandlerStep, Scheduler

Results = Mapping[str, ProfileRunResult | None]


def ignore(seconds: float) -> None:
    """Observes nothing."""


class Reports:
    """Defects that were reported, as ``(role, name, problem)``."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        self.seen.append((role, name, str(problem)))


class Does:
    """A filter, scorer or picker that does what it is told and remembers what it was given."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome
        self.given: list[list[str]] = []

    def _do(self, candidates: Candidates) -> object:
        self.given.append([endpoint.name for endpoint in candidates])
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome(candidates) if callable(self._outcome) else self._outcome

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        return self._do(candidates)  # type: ignore[return-value]  # also what a plugin must not return

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        return self._do(candidates)  # type: ignore[return-value]  # as above

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        return self._do(candidates)  # type: ignore[return-value]  # as above


def keep(*names: str) -> Does:
    """A filter that keeps these endpoints."""
    return Does(lambda candidates: candidates.where([endpoint.name in names for endpoint in candidates]))


class Best:
    """A picker of the highest totals, the first of equal ones."""

    def __init__(self, count: int = 1) -> None:
        self._count = count

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        return sorted(range(len(totals)), key=totals.__getitem__, reverse=True)[: self._count]


class Handler:
    """A profile handler that asks for the given stages one after the other.

    Args:
        stages: what ``pick`` returns, or raises, at each call; then nothing.
        primary: whose targets are the result; the first profile that ran if empty.
        outcome: what ``process_results`` returns or raises instead.
    """

    def __init__(self, *stages: object, primary: str = "", outcome: object = None) -> None:
        self._stages = list(stages)
        self._primary = primary
        self._outcome = outcome
        self.asked = 0

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: ProfileResults,
    ) -> Sequence[str]:
        self.asked += 1
        stage = self._stages.pop(0) if self._stages else ()
        if isinstance(stage, Exception):
            raise stage
        return stage(results) if callable(stage) else stage  # type: ignore[return-value]  # also what it must not return

    def process_results(self, request: InferenceRequest, results: Results) -> SchedulingResult:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if callable(self._outcome):
            return self._outcome(results)  # type: ignore[no-any-return]  # also what it must not return
        primary = self._primary or next(iter(results))
        result = results[primary]
        if result is None:
            raise SchedulingError(f"failed to run {primary}")
        return SchedulingResult(primary, dict(results), result.targets)


def make_profile(
    name: str = "default",
    *,
    filters: Sequence[object] = (),
    scorers: Sequence[tuple[object, float]] = (),
    picker: object = None,
    reports: Reports | None = None,
    observe: Callable[[float], None] = ignore,
    guard: Guard = UNGUARDED,
    per_snapshot: Collection[str] = (),
) -> Profile:
    """A profile; its plugins are called f1, f2, ..., s1, s2, ... and picker; those in ``per_snapshot`` need no request."""
    reports = reports or Reports()

    def watched(role: Role, name: str, guard: Guard = guard) -> CallWatch:
        return CallWatch(role, f"{role.lower()}-type", name, reports, observe, guard)

    return Profile(
        name,
        [
            FilterStep(watched(Role.FILTER, f"f{i}"), plugin, per_snapshot=f"f{i}" in per_snapshot)  # type: ignore[arg-type]
            for i, plugin in enumerate(filters, 1)
        ],
        [
            ScorerStep(watched(Role.SCORER, f"s{i}"), plugin, weight, per_snapshot=f"s{i}" in per_snapshot)  # type: ignore[arg-type]
            for i, (plugin, weight) in enumerate(scorers, 1)
        ],
        PickerStep(watched(Role.PICKER, "picker", UNGUARDED), picker or Best()),  # type: ignore[arg-type]
    )


def make_scheduler(handler: object, *profiles: Profile, reports: Reports | None = None) -> Scheduler:
    """A scheduler whose handler is called ``handler``."""
    watch = CallWatch(Role.PROFILE_HANDLER, "handler-type", "handler", reports or Reports(), ignore)
    return Scheduler(HandlerStep(watch, watch, handler), profiles)  # type: ignore[arg-type]
