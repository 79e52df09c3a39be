"""One scheduling cycle: the ProfileHandler picks profiles, they run, the handler makes a result of theirs.

Synchronous and without side effects: nothing can come between the metrics that are read and the decision, and the same
request can be decided again, by another configuration too. What the handler publishes for later profiles is seen by them alone.
Source: llm-d-router: pkg/epp/scheduling/scheduler.go
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from epp.errors import RequestError, SchedulingError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import ProfileHandler
from epp.framework.results import ProfileResults, ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest
from epp.plugin_calls.step import CallWatch, Record
from epp.scheduling.profile import Profile
from epp.telemetry.decision_record import InputRecord, ProfileRecord


class HandlerStep:
    """The ProfileHandler.

    Args:
        picks, processes: watches of its two methods.
        plugin: the handler.
    """

    __slots__ = ("pick", "process", "watch")

    def __init__(self, picks: CallWatch, processes: CallWatch, plugin: ProfileHandler) -> None:
        self.watch = picks
        self.pick = picks.plain(_checked_pick(plugin))
        self.process = processes.plain(_checked_process(plugin))


class Scheduler:
    """Profiles and their handler; immutable, so that a new configuration is a new Scheduler."""

    def __init__(self, handler: HandlerStep, profiles: Sequence[Profile]) -> None:
        self.handler = handler
        self.profiles: Mapping[str, Profile] = {profile.name: profile for profile in profiles}

    def schedule(self, request: InferenceRequest, candidates: Candidates, record: Record = None) -> SchedulingResult:
        """Pick endpoints for ``request``, which stays as it is.

        Args:
            candidates: not empty.
            record: filled if given.

        Raises:
            SchedulingError: no endpoint could be picked.
            RequestError: the profile handler refuses the request.
        """
        if record is None:
            return self._cycle(request, candidates, None)
        record.request_id, record.model, record.target_model = request.request_id, request.model, request.target_model
        record.candidates = [e.host_port for e in candidates]
        record.inputs = _inputs(candidates)
        try:
            result = self._cycle(request, candidates, record)
        except (SchedulingError, RequestError) as error:
            record.error = str(error)
            raise
        record.primary = result.primary
        record.picked = [e.host_port for e in result.targets]
        record.prefill = [e.host_port for e in result.targets_of(result.prefill)]
        record.encode = [e.host_port for e in result.targets_of(result.encode)]
        return result

    def totals(self, result: SchedulingResult) -> dict[str, float]:
        """Weighted totals of the primary profile's candidates by ``host:port``; none if it has no scorers."""
        run = result.profiles.get(result.primary)
        profile = self.profiles.get(result.primary)
        if run is None or profile is None or not profile.scorers:
            return {}
        return {endpoint.host_port: total for endpoint, total in zip(run.candidates, run.totals, strict=True)}

    def _cycle(self, request: InferenceRequest, candidates: Candidates, record: Record) -> SchedulingResult:
        results = ProfileResults()
        failures: dict[str, SchedulingError] = {}
        while names := self._names(request, results, record):
            todo = [name for name in names if name not in results]
            if not todo:
                raise self._defect(f"asked again for profiles that had run: {', '.join(names)}")
            if results.published:
                request = request.with_data(results.take_published())
            for name in todo:
                results[name] = self._run(name, request, candidates, failures, record)
        if not results:
            raise SchedulingError(f"failed to run any scheduler profile for request {request.request_id}")
        try:
            return self.handler.process(record, request, results)
        except SchedulingError as error:
            raise _with_causes(error, failures) from error
        except RequestError:
            raise
        except Exception as error:
            raise self._failed() from error

    def _run(
        self,
        name: str,
        request: InferenceRequest,
        candidates: Candidates,
        failures: dict[str, SchedulingError],
        record: Record,
    ) -> ProfileRunResult | None:
        """What a profile picked; None if it failed, with the reason in ``failures``."""
        profile = self.profiles.get(name)
        if profile is None:
            raise self._defect(f"asked for the profile '{name}', which does not exist")
        written = None
        if record is not None:
            written = ProfileRecord(name, after_s=record.since_s())
            record.profiles.append(written)
        try:
            return profile.run(request, candidates, written, record)
        except SchedulingError as error:
            failures[name] = error
            if written is not None:
                written.error = str(error)
            return None
        finally:
            if written is not None and record is not None:
                written.took_s = record.since_s() - written.after_s

    def _names(self, request: InferenceRequest, results: ProfileResults, record: Record) -> Sequence[str]:
        """The profiles to run next, each once."""
        try:
            return self.handler.pick(record, request, self.profiles, results)
        except (SchedulingError, RequestError):
            raise
        except Exception as error:
            raise self._failed() from error

    def _defect(self, problem: str) -> SchedulingError:
        self.handler.watch.failed(problem)
        return self._failed()

    def _failed(self) -> SchedulingError:
        return SchedulingError(f"profile handler '{self.handler.watch.name}' failed")


def _inputs(candidates: Candidates) -> dict[str, InputRecord]:
    """What scorers are about to read of each candidate."""
    now = time.monotonic()
    columns = zip(candidates.endpoints, candidates.metrics, candidates.updated_s, strict=True)
    return {
        endpoint.host_port: InputRecord(
            metrics.waiting_queue,
            metrics.running_requests,
            metrics.kv_cache_usage,
            None if updated_s is None else now - updated_s,
        )
        for endpoint, metrics, updated_s in columns
    }


def _checked_pick(
    plugin: ProfileHandler,
) -> Callable[[InferenceRequest, Mapping[str, Profile], ProfileResults], Sequence[str]]:
    def picked(request: InferenceRequest, profiles: Mapping[str, Profile], results: ProfileResults) -> Sequence[str]:
        names = plugin.pick(request, profiles, results)
        if type(names) is tuple and len(names) <= 1:
            return names
        return tuple(dict.fromkeys(names)) if names else ()

    return picked


def _checked_process(
    plugin: ProfileHandler,
) -> Callable[[InferenceRequest, Mapping[str, ProfileRunResult | None]], SchedulingResult]:
    def processed(request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        result = plugin.process_results(request, results)
        if not result.targets:
            raise ValueError(f"returned the primary profile '{result.primary}' without endpoints")
        return result

    return processed


def _with_causes(error: SchedulingError, failures: Mapping[str, SchedulingError]) -> SchedulingError:
    """What the handler said, and why its profiles failed; a reason that all of them share is the reason."""
    causes = "; ".join(str(failures[name]) for name in sorted(failures))
    reasons = {failure.reason for failure in failures.values()}
    reason = error.reason or (reasons.pop() if len(reasons) == 1 else None)
    return SchedulingError(f"{error}: {causes}" if causes else str(error), reason)
