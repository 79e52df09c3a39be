"""One SchedulingProfile: filters, then weighted scorers, then the picker, as a pure synchronous function.

What depends on nothing but the endpoints and their metrics (``PluginType.per_snapshot``) is computed once for all requests
between two changes of these: the leading filters of that kind, and the totals of all scorers of that kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from epp.errors import DropReason, SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Filter, Picker, Role, Scorer
from epp.framework.results import ProfileRunResult
from epp.framework.types import Endpoint, InferenceRequest
from epp.scheduling.guard import LEFT_OUT, UNGUARDED, Guard
from epp.scheduling.record import FilterRecord, ProfileRecord, ScoreRecord

Observe = Callable[[float], None]
"""Takes the seconds that a plugin took."""


class Defects(Protocol):
    """Where plugins that misbehave are reported; logs and counts."""

    def plugin_failed(self, role: Role, type_name: str, name: str, problem: str | Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class FilterStep:
    """A filter in its place."""

    name: str
    type: str
    plugin: Filter
    observe: Observe
    guard: Guard = UNGUARDED
    per_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class ScorerStep:
    """A scorer in its place, with its weight."""

    name: str
    type: str
    plugin: Scorer
    weight: float
    observe: Observe
    guard: Guard = UNGUARDED
    per_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class PickerStep:
    """The picker."""

    name: str
    type: str
    plugin: Picker
    observe: Observe
    guard: Guard = UNGUARDED


class Profile:
    """A named list of filters, scorers and a picker.

    Source: llm-d-router: pkg/epp/scheduling/scheduler_profile.go
    """

    def __init__(
        self,
        name: str,
        filters: Sequence[FilterStep],
        scorers: Sequence[ScorerStep],
        picker: PickerStep,
        defects: Defects,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self.filters = tuple(filters)
        self.scorers = tuple(scorers)
        self.picker = picker
        leading = tuple(takewhile(lambda step: step.per_snapshot, self.filters))
        self._shared_filters, self._other_filters = leading, self.filters[len(leading) :]
        self._shared_scorers = tuple([step for step in self.scorers if step.per_snapshot])
        self._other_scorers = tuple([step for step in self.scorers if not step.per_snapshot])
        self._places = {step.name: place for place, step in enumerate(self.scorers)}
        self._eligible_key, self._totals_key = (self, "eligible"), (self, "totals")
        self._defects = defects
        self._clock = clock

    def run(self, request: InferenceRequest, candidates: Candidates, record: ProfileRecord | None = None) -> ProfileRunResult:
        """Pick among ``candidates``.

        Args:
            candidates: all of the request, not empty.
            record: filled if given.

        Raises:
            SchedulingError: filters left nothing, or a filter or the picker failed.
        """
        eligible = candidates
        if self.filters:
            eligible = self._shared_eligible(request, eligible, record)
            eligible = self._filter(self._other_filters, request, eligible, record)
        totals = self._totals(request, eligible, record)
        return self._pick(request, eligible, totals, record)

    def _shared_eligible(self, request: InferenceRequest, candidates: Candidates, record: ProfileRecord | None) -> Candidates:
        """What the leading filters leave that need no request; found once for each snapshot, unless somebody wants a record."""
        if record is not None or not self._shared_filters:
            return self._filter(self._shared_filters, request, candidates, record)
        known = candidates.memo.get(self._eligible_key)
        if not isinstance(known, Candidates):
            known = candidates.memo[self._eligible_key] = self._filter(self._shared_filters, request, candidates, None)
        return known

    def _filter(
        self, steps: Sequence[FilterStep], request: InferenceRequest, candidates: Candidates, record: ProfileRecord | None
    ) -> Candidates:
        for step in steps:
            begun = self._clock()
            try:
                kept = _expect_candidates(step.plugin.filter(request, candidates))
            except Exception as error:
                step.guard.check(self._clock() - begun)
                self._defects.plugin_failed(Role.FILTER, step.type, step.name, error)
                if record is not None:
                    record.filters.append(FilterRecord(step.name, [], len(candidates), str(error)))
                raise SchedulingError(f"filter '{step.name}' failed in profile '{self.name}'") from error
            step.observe(elapsed := self._clock() - begun)
            if elapsed > step.guard.limit_s:
                step.guard.exceeded(elapsed)
            if record is not None:
                left = {e.id for e in kept}
                dropped = [e.host_port for e in candidates if e.id not in left]
                record.filters.append(FilterRecord(step.name, dropped, len(kept)))
            if not kept:
                raise SchedulingError(
                    f"no endpoints left after filter '{step.name}' in profile '{self.name}'", DropReason.SATURATED
                )
            candidates = kept
        return candidates

    def _totals(self, request: InferenceRequest, eligible: Candidates, record: ProfileRecord | None) -> tuple[float, ...]:
        """The weighted sum of all scores of each candidate; those that need no request are summed once for each snapshot."""
        totals = eligible.memo.get(self._totals_key) if record is None else None
        if not isinstance(totals, tuple):
            totals, all_scored = self._add_scores(self._shared_scorers, request, eligible, (0.0,) * len(eligible), record)
            if all_scored:
                eligible.memo[self._totals_key] = totals
        if self._other_scorers:
            totals, _ = self._add_scores(self._other_scorers, request, eligible, totals, record)
        if record is not None:
            record.scorers.sort(key=lambda scored: self._places[scored.plugin])
        return totals

    def _add_scores(
        self,
        steps: Sequence[ScorerStep],
        request: InferenceRequest,
        eligible: Candidates,
        totals: tuple[float, ...],
        record: ProfileRecord | None,
    ) -> tuple[tuple[float, ...], bool]:
        """``totals`` with the weighted scores of these scorers, and whether all of them gave some."""
        all_scored = True
        for step in steps:
            guard = step.guard
            if guard.is_out and guard.refuses():
                if record is not None:
                    record.scorers.append(ScoreRecord(step.name, step.weight, {}, LEFT_OUT))
                all_scored = False
                continue
            begun = self._clock()
            try:
                scores = self._checked(step, step.plugin.score(request, eligible), len(eligible))
            except Exception as error:  # noqa: BLE001 — counts as 0 for all
                guard.check(self._clock() - begun)
                self._defects.plugin_failed(Role.SCORER, step.type, step.name, error)
                if record is not None:
                    record.scorers.append(ScoreRecord(step.name, step.weight, {}, str(error)))
                all_scored = False
                continue
            weight = step.weight
            totals = tuple([total + score * weight for total, score in zip(totals, scores, strict=True)])
            step.observe(elapsed := self._clock() - begun)
            if elapsed > guard.limit_s:
                guard.exceeded(elapsed)
            if record is not None:
                by_endpoint = {e.host_port: s for e, s in zip(eligible, scores, strict=True)}
                record.scorers.append(ScoreRecord(step.name, weight, by_endpoint))
        return totals, all_scored

    def _checked(self, step: ScorerStep, scores: Sequence[float], count: int) -> Sequence[float]:
        """``scores`` in [0, 1] without NaN.

        Raises:
            ValueError: wrong length.
        """
        if len(scores) != count:
            raise ValueError(f"returned {len(scores)} scores for {count} candidates")
        total = sum(scores)
        if total == total and min(scores) >= 0.0 and max(scores) <= 1.0:
            return scores
        if any(score != score for score in scores):
            self._defects.plugin_failed(Role.SCORER, step.type, step.name, "returned NaN, which counts as 0")
        return [0.0 if score != score else min(max(score, 0.0), 1.0) for score in scores]

    def _pick(
        self, request: InferenceRequest, eligible: Candidates, totals: tuple[float, ...], record: ProfileRecord | None
    ) -> ProfileRunResult:
        step = self.picker
        if record is not None:
            record.totals = {e.host_port: t for e, t in zip(eligible, totals, strict=True)}
            record.picker = step.name
        begun = self._clock()
        try:
            targets = _at(eligible, step.plugin.pick(request, eligible, totals))
        except Exception as error:
            step.guard.check(self._clock() - begun)
            self._defects.plugin_failed(Role.PICKER, step.type, step.name, error)
            raise SchedulingError(f"picker '{step.name}' failed in profile '{self.name}'") from error
        step.observe(elapsed := self._clock() - begun)
        if elapsed > step.guard.limit_s:
            step.guard.exceeded(elapsed)
        if record is not None:
            record.picked = [e.host_port for e in targets]
        return ProfileRunResult(targets, eligible, totals)


def _expect_candidates(kept: object) -> Candidates:
    """``kept``, which a plugin returned.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(kept, Candidates):
        raise TypeError(f"returned {type(kept).__name__} instead of Candidates")
    return kept


def _at(candidates: Candidates, positions: Sequence[int]) -> tuple[Endpoint, ...]:
    """The endpoints at the positions that a picker returned.

    Raises:
        ValueError: there is none, or one is no position of a candidate, or it occurs twice.
        TypeError: these are no positions.
    """
    count = len(candidates)
    if len(positions) != len(set(positions)):
        raise ValueError(f"picked a candidate twice: positions {positions}")
    if not positions:
        raise ValueError(f"picked none of {count} candidates")
    if min(positions) < 0 or max(positions) >= count:
        raise ValueError(f"picked positions {positions} of {count} candidates")
    return tuple([candidates.endpoints[position] for position in positions])
