"""Decisions in the debug log: from verbosity 3 which plugins ran, from 4 every score.

The phrases are those that operators of Go pickers search for. At lower verbosity nothing is recorded at all.
"""

from __future__ import annotations

from epp.framework import log
from epp.telemetry.decision_record import DecisionRecord, FilterRecord, ProfileRecord, ScoreRecord

_logger = log.get("epp.scheduling")


class LoggedDecisions:
    """Writes decision records to the log while the verbosity asks for them."""

    def wants(self, _request: object) -> bool:
        """A record is worth making."""
        return log.enabled(log.VERBOSE)

    def decided(self, record: DecisionRecord) -> None:
        """Write one decision."""
        for profile in record.profiles:
            self._profile(record.request_id, profile)
        _logger.verbose(
            "Request handled",
            request_id=record.request_id,
            model=record.model,
            targetModel=record.target_model,
            endpoint=",".join(record.picked),
            profile=record.primary,
            candidates=len(record.candidates),
            details=_error(record.error),
        )

    def _profile(self, request_id: str, profile: ProfileRecord) -> None:
        """One profile, with the phrases that recipes for debugging search for."""
        name = profile.profile
        for step in profile.filters:
            _filter(request_id, name, step)
        for scorer in profile.scorers:
            _scorer(request_id, name, scorer)
        if profile.picker:
            _logger.verbose(
                "Running picker plugin",
                request_id=request_id,
                plugin=profile.picker,
                profile=name,
                picked=",".join(profile.picked),
            )
        if profile.error:
            _logger.verbose("Profile failed", request_id=request_id, profile=name, error=profile.error)


def _filter(request_id: str, profile: str, step: FilterRecord) -> None:
    _logger.verbose(
        "Running filter plugins",
        request_id=request_id,
        plugin=step.plugin,
        profile=profile,
        before=step.kept + len(step.dropped),
        after=step.kept,
        details=_error(step.error),
    )
    if step.dropped and log.enabled(log.DEBUG):
        _logger.debug("Filtered out", request_id=request_id, plugin=step.plugin, endpoints=",".join(step.dropped))


def _scorer(request_id: str, profile: str, step: ScoreRecord) -> None:
    _logger.verbose(
        "Running scorer plugin", request_id=request_id, plugin=step.plugin, profile=profile, details=_error(step.error)
    )
    if not log.enabled(log.DEBUG):
        return
    for endpoint, score in step.scores.items():
        _logger.debug(
            "Calculated score",
            request_id=request_id,
            plugin=step.plugin,
            endpoint=endpoint,
            score=round(score, 6),
            weight=step.weight,
        )


def _error(text: str) -> dict[str, str]:
    return {"error": text} if text else {}
