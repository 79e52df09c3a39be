"""Builders for plugins that follow requests from PreRequest to ResponseComplete."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.interfaces import PreRequest, ResponseComplete
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import RecordedEdits
from epp.framework.types import UNSCRAPED, Cause, Completion, Endpoint, InferenceRequest, Usage


def decided(*targets: Endpoint, **others: Endpoint | None) -> SchedulingResult:
    """A result: ``targets`` of the profile ``decode``, one target of each other profile; None = it failed."""
    profiles: dict[str, ProfileRunResult | None] = {"decode": _run(*targets)}
    for name, endpoint in others.items():
        profiles[name] = None if endpoint is None else _run(endpoint)
    return SchedulingResult(primary="decode", profiles=profiles, targets=targets)


def _run(*targets: Endpoint) -> ProfileRunResult:
    candidates = Candidates(targets, [UNSCRAPED] * len(targets))
    return ProfileRunResult(targets=targets, candidates=candidates, totals=[0.0] * len(targets))


def begin(scorer: PreRequest, request: InferenceRequest, result: SchedulingResult) -> None:
    """The request is sent."""
    scorer.pre_request(request, result, RecordedEdits())


def end(scorer: ResponseComplete, request: InferenceRequest, result: SchedulingResult) -> None:
    """The request is over."""
    completion = Completion(
        cause=Cause.NATURAL,
        status=200,
        served=result.target,
        usage=Usage(),
        length_known=True,
        ttft_s=None,
        duration_s=0.0,
        response_bytes=0,
        streaming=False,
    )
    scorer.response_complete(request, result, completion)
