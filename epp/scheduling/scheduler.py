"""One scheduling cycle: the ProfileHandler picks profiles, they run, the handler makes a result of theirs.

Synchronous and without side effects: nothing can come between the metrics that are read and the decision.
Source: llm-d-router: pkg/epp/scheduling/scheduler.go
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epp.errors import RequestError, SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import ProfileHandler, Role
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest
from epp.scheduling.guard import UNGUARDED, Guard
from epp.scheduling.profile import Defects, Observe, Profile
from epp.scheduling.record import DecisionRecord, ProfileRecord


@dataclass(frozen=True, slots=True)
class HandlerStep:
    """The ProfileHandler, with its names for reports."""

    name: str
    type: str
    plugin: ProfileHandler
    observe_pick: Observe
    observe_process: Observe
    guard: Guard = UNGUARDED


class Scheduler:
    """Profiles and their handler; immutable, so that a new configuration is a new Scheduler."""

    def __init__(self, handler: HandlerStep, profiles: Sequence[Profile], defects: Defects) -> None:
        self.handler = handler
        self.profiles: Mapping[str, Profile] = {profile.name: profile for profile in profiles}
        self._defects = defects

    def schedule(
        self, request: InferenceRequest, candidates: Candidates, record: DecisionRecord | None = None
    ) -> SchedulingResult:
        """Pick endpoints for ``request``.

        Args:
            candidates: not empty.
            record: filled if given.

        Raises:
            SchedulingError: no endpoint could be picked.
            RequestError: the profile handler refuses the request.
        """
        if record is not None:
            record.request_id, record.model, record.target_model = request.request_id, request.model, request.target_model
            record.candidates = [e.host_port for e in candidates]
        try:
            result = self._cycle(request, candidates, record)
        except (SchedulingError, RequestError) as error:
            if record is not None:
                record.error = str(error)
            raise
        if record is not None:
            record.primary = result.primary
            record.picked = [e.host_port for e in result.targets]
        return result

    def totals(self, result: SchedulingResult) -> dict[str, float]:
        """Weighted totals of the primary profile's candidates by ``host:port``; none if it has no scorers."""
        run = result.profiles.get(result.primary)
        profile = self.profiles.get(result.primary)
        if run is None or profile is None or not profile.scorers:
            return {}
        return {endpoint.host_port: total for endpoint, total in zip(run.candidates, run.totals, strict=True)}

    def _cycle(self, request: InferenceRequest, candidates: Candidates, record: DecisionRecord | None) -> SchedulingResult:
        results: dict[str, ProfileRunResult | None] = {}
        failures: dict[str, SchedulingError] = {}
        while names := self._names(request, results):
            todo = [name for name in names if name not in results]
            if not todo:
                raise self._defect(f"asked again for profiles that had run: {', '.join(names)}")
            for name in todo:
                self._run(name, request, candidates, results, failures, record)
        if not results:
            raise SchedulingError(f"failed to run any scheduler profile for request {request.request_id}")
        return self._result(request, results, failures)

    def _names(self, request: InferenceRequest, results: dict[str, ProfileRunResult | None]) -> Sequence[str]:
        """The profiles to run next, each once."""
        begun = time.perf_counter()
        try:
            names = tuple(dict.fromkeys(self.handler.plugin.pick(request, self.profiles, results) or ()))
        except (SchedulingError, RequestError):
            raise
        except Exception as error:
            raise self._defect(error) from error
        self.handler.observe_pick(elapsed := time.perf_counter() - begun)
        if elapsed > self.handler.guard.limit_s:
            self.handler.guard.exceeded(elapsed)
        return names

    def _run(
        self,
        name: str,
        request: InferenceRequest,
        candidates: Candidates,
        results: dict[str, ProfileRunResult | None],
        failures: dict[str, SchedulingError],
        record: DecisionRecord | None,
    ) -> None:
        profile = self.profiles.get(name)
        if profile is None:
            raise self._defect(f"asked for the profile '{name}', which does not exist")
        profile_record = None
        if record is not None:
            profile_record = ProfileRecord(name)
            record.profiles.append(profile_record)
        try:
            results[name] = profile.run(request, candidates, profile_record)
        except SchedulingError as error:
            results[name] = None
            failures[name] = error
            if profile_record is not None:
                profile_record.error = str(error)

    def _result(
        self,
        request: InferenceRequest,
        results: dict[str, ProfileRunResult | None],
        failures: dict[str, SchedulingError],
    ) -> SchedulingResult:
        begun = time.perf_counter()
        try:
            result = self.handler.plugin.process_results(request, results)
            if not result.targets:
                raise ValueError(f"returned the primary profile '{result.primary}' without endpoints")
        except SchedulingError as error:
            raise _with_causes(error, failures) from error
        except RequestError:
            raise
        except Exception as error:
            raise self._defect(error) from error
        self.handler.observe_process(elapsed := time.perf_counter() - begun)
        if elapsed > self.handler.guard.limit_s:
            self.handler.guard.exceeded(elapsed)
        return result

    def _defect(self, problem: str | Exception) -> SchedulingError:
        step = self.handler
        self._defects.plugin_failed(Role.PROFILE_HANDLER, step.type, step.name, problem)
        return SchedulingError(f"profile handler '{step.name}' failed")


def _with_causes(error: SchedulingError, failures: Mapping[str, SchedulingError]) -> SchedulingError:
    """What the handler said, and why its profiles failed; a reason that all of them share is the reason."""
    causes = "; ".join(str(failures[name]) for name in sorted(failures))
    reasons = {failure.reason for failure in failures.values()}
    reason = error.reason or (reasons.pop() if len(reasons) == 1 else None)
    return SchedulingError(f"{error}: {causes}" if causes else str(error), reason)
