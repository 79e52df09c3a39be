"""One SchedulingProfile: filters, then weighted scorers, then the picker, as a pure synchronous function.

What depends on nothing but the endpoints and their metrics (``PluginType.per_snapshot``) is computed once for all requests
between two changes of these: the leading filters of that kind, and the totals of all scorers of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from epp.errors import DropReason, SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Filter, Picker, Scorer
from epp.framework.results import ProfileRunResult
from epp.framework.types import Endpoint, InferenceRequest
from epp.plugin_calls.guard import LEFT_OUT
from epp.plugin_calls.step import CallWatch, Record
from epp.telemetry.decision_record import FilterRecord, ProfileRecord, ScoreRecord

Totals = tuple[float, ...]


class FilterStep:
    """A filter in its place.

    Args:
        watch: of its calls.
        plugin: the filter.
        per_snapshot: it needs no request.
    """

    __slots__ = ("call", "name", "per_snapshot", "watch")

    def __init__(self, watch: CallWatch, plugin: Filter, *, per_snapshot: bool = False) -> None:
        self.watch = watch
        self.name = watch.name
        self.per_snapshot = per_snapshot
        self.call: Callable[[Record, InferenceRequest, Candidates], Candidates] = watch.plain(_checked_filter(plugin))


class ScorerStep:
    """A scorer in its place, with its weight.

    Args:
        watch: of its calls.
        plugin: the scorer.
        weight: of its scores.
        per_snapshot: it needs no request.
    """

    __slots__ = ("_checked", "call", "guard", "name", "per_snapshot", "watch", "weight")

    def __init__(self, watch: CallWatch, plugin: Scorer, weight: float, *, per_snapshot: bool = False) -> None:
        self.watch = watch
        self.name = watch.name
        self.guard = watch.guard
        self.weight = weight
        self.per_snapshot = per_snapshot
        self._checked = _CheckedScorer(plugin, watch)
        self.call: Callable[[Record, InferenceRequest, Candidates], Sequence[float]] = watch.plain(self._checked.score)

    def take_raw(self) -> Sequence[float]:
        """What the scorer returned in its last call, if that had to be corrected; once, else nothing."""
        raw, self._checked.raw = self._checked.raw, ()
        return raw


class PickerStep:
    """The picker.

    Args:
        watch: of its calls.
        plugin: the picker.
    """

    __slots__ = ("call", "name", "watch")

    def __init__(self, watch: CallWatch, plugin: Picker) -> None:
        self.watch = watch
        self.name = watch.name
        self.call: Callable[[Record, InferenceRequest, Candidates, Totals], tuple[Endpoint, ...]] = watch.plain(
            _checked_picker(plugin)
        )


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

    def run(
        self,
        request: InferenceRequest,
        candidates: Candidates,
        written: ProfileRecord | None = None,
        record: Record = None,
    ) -> ProfileRunResult:
        """Pick among ``candidates``.

        Args:
            candidates: all of the request, not empty.
            written: filled if given.
            record: gets the calls, if given.

        Raises:
            SchedulingError: filters left nothing, or a filter or the picker failed.
        """
        run = _Run(request, record, written)
        eligible = candidates
        if self.filters:
            eligible = self._shared_eligible(run, eligible)
            eligible = self._filter(self._other_filters, run, eligible)
        totals = self._totals(run, eligible)
        return self._pick(run, eligible, totals)

    def _shared_eligible(self, run: _Run, candidates: Candidates) -> Candidates:
        """What the leading filters leave that need no request; found once for each snapshot, unless somebody wants a record."""
        if run.written is not None or not self._shared_filters:
            return self._filter(self._shared_filters, run, candidates)
        known = candidates.memo.get(self._eligible_key)
        if not isinstance(known, Candidates):
            known = candidates.memo[self._eligible_key] = self._filter(self._shared_filters, run, candidates)
        return known

    def _filter(self, steps: Sequence[FilterStep], run: _Run, candidates: Candidates) -> Candidates:
        written = run.written
        for step in steps:
            try:
                kept = step.call(run.record, run.request, candidates)
            except Exception as error:
                if written is not None:
                    written.filters.append(FilterRecord(step.name, [], len(candidates), str(error)))
                raise SchedulingError(f"filter '{step.name}' failed in profile '{self.name}'") from error
            if written is not None:
                left = {e.id for e in kept}
                dropped = [e.host_port for e in candidates if e.id not in left]
                written.filters.append(FilterRecord(step.name, dropped, len(kept)))
            if not kept:
                raise SchedulingError(
                    f"no endpoints left after filter '{step.name}' in profile '{self.name}'", DropReason.SATURATED
                )
            candidates = kept
        return candidates

    def _totals(self, run: _Run, eligible: Candidates) -> Totals:
        """The weighted sum of all scores of each candidate; those that need no request are summed once for each snapshot."""
        totals = eligible.memo.get(self._totals_key) if run.written is None else None
        if not isinstance(totals, tuple):
            totals, all_scored = self._add_scores(self._shared_scorers, run, eligible, (0.0,) * len(eligible))
            if all_scored:
                eligible.memo[self._totals_key] = totals
        if self._other_scorers:
            totals, _ = self._add_scores(self._other_scorers, run, eligible, totals)
        if run.written is not None:
            run.written.scorers.sort(key=lambda scored: self._places[scored.plugin])
        return totals

    def _add_scores(self, steps: Sequence[ScorerStep], run: _Run, eligible: Candidates, totals: Totals) -> tuple[Totals, bool]:
        """``totals`` with the weighted scores of these scorers, and whether all of them gave some."""
        all_scored = True
        for step in steps:
            scores = self._scores(step, run, eligible)
            if scores is None:
                all_scored = False
                continue
            weight = step.weight
            totals = tuple([total + score * weight for total, score in zip(totals, scores, strict=True)])
            if run.written is not None:
                run.scored(step, _by_address(eligible, scores), raw=_by_address(eligible, step.take_raw() or ()))
        return totals, all_scored

    def _scores(self, step: ScorerStep, run: _Run, eligible: Candidates) -> Sequence[float] | None:
        """What a scorer gives; None counts as 0 for all: it failed, or is left out."""
        if step.guard.is_out and step.guard.refuses():
            run.scored(step, {}, LEFT_OUT)
            return None
        if run.written is not None:
            step.take_raw()  # of an earlier request
        try:
            return step.call(run.record, run.request, eligible)
        except Exception as error:  # noqa: BLE001 — reported
            run.scored(step, {}, str(error))
            return None

    def _pick(self, run: _Run, eligible: Candidates, totals: Totals) -> ProfileRunResult:
        step, written = self.picker, run.written
        if written is not None:
            written.totals = _by_address(eligible, totals)
            written.tied = _tied(eligible, totals)
            written.picker = step.name
        try:
            targets = step.call(run.record, run.request, eligible, totals)
        except Exception as error:
            raise SchedulingError(f"picker '{step.name}' failed in profile '{self.name}'") from error
        if written is not None:
            written.picked = [e.host_port for e in targets]
        return ProfileRunResult(targets, eligible, totals)


class _Run:
    """One run of a profile for one request, and what is written down of it."""

    __slots__ = ("record", "request", "written")

    def __init__(self, request: InferenceRequest, record: Record, written: ProfileRecord | None) -> None:
        self.request = request
        self.record = record
        self.written = written

    def scored(
        self, step: ScorerStep, scores: dict[str, float], error: str = "", *, raw: dict[str, float] | None = None
    ) -> None:
        if self.written is not None:
            self.written.scorers.append(ScoreRecord(step.name, step.weight, scores, error, raw or {}))


def _by_address(candidates: Candidates, values: Sequence[float]) -> dict[str, float]:
    """``host:port`` → value, without NaN; nothing of no values."""
    return {e.host_port: value for e, value in zip(candidates, values, strict=True) if value == value} if values else {}


def _tied(candidates: Candidates, totals: Totals) -> list[str]:
    """The candidates that share the highest total, if there are several."""
    best = max(totals)
    tied = [e.host_port for e, total in zip(candidates, totals, strict=True) if total == best]
    return tied if len(tied) > 1 else []


def _checked_filter(plugin: Filter) -> Callable[[InferenceRequest, Candidates], Candidates]:
    def filtered(request: InferenceRequest, candidates: Candidates) -> Candidates:
        kept = plugin.filter(request, candidates)
        if not isinstance(kept, Candidates):
            raise TypeError(f"returned {type(kept).__name__} instead of Candidates")
        return kept

    return filtered


class _CheckedScorer:
    """A scorer whose scores are a list of the right length in [0, 1], whatever it returned."""

    __slots__ = ("_plugin", "_watch", "raw")

    def __init__(self, plugin: Scorer, watch: CallWatch) -> None:
        self._plugin = plugin
        self._watch = watch
        self.raw: Sequence[float] = ()
        """What it returned last, if that was not in [0, 1], until somebody takes it."""

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        scores = self._plugin.score(request, candidates)
        if len(scores) != len(candidates):
            raise ValueError(f"returned {len(scores)} scores for {len(candidates)} candidates")
        total = sum(scores)
        if total == total and min(scores) >= 0.0 and max(scores) <= 1.0:
            return scores
        self.raw = list(scores)
        if any(score != score for score in scores):
            self._watch.failed("returned NaN, which counts as 0")
        return [0.0 if score != score else min(max(score, 0.0), 1.0) for score in scores]


def _checked_picker(plugin: Picker) -> Callable[[InferenceRequest, Candidates, Totals], tuple[Endpoint, ...]]:
    def picked(request: InferenceRequest, candidates: Candidates, totals: Totals) -> tuple[Endpoint, ...]:
        return _at(candidates, plugin.pick(request, candidates, totals))

    return picked


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
