"""Decisions in the debug log: from verbosity 3 which plugins ran, from 4 every score.

The phrases are those that operators of Go pickers search for. At lower verbosity nothing is recorded at all.
"""

from __future__ import annotations

from epp.scheduling.record import DecisionRecord, ProfileRecord
from epp.telemetry import log

_logger = log.get("epp.scheduling")


class LoggedDecisions:
    """Writes decision records to the log while the verbosity asks for them."""

    @property
    def wanted(self) -> bool:
        """A record is worth making."""
        return log.enabled(log.VERBOSE)

    def decided(self, record: DecisionRecord) -> None:
        """Write one decision."""
        for profile in record.profiles:
            self._profile(record.request_id, profile)
        fields: dict[str, object] = {
            "model": record.model,
            "targetModel": record.target_model,
            "endpoint": ",".join(record.picked),
            "profile": record.primary,
            "candidates": len(record.candidates),
        }
        if record.error:
            fields["error"] = record.error
        _logger.verbose("Request handled", request_id=record.request_id, **fields)

    def _profile(self, request_id: str, profile: ProfileRecord) -> None:
        detailed = log.enabled(log.DEBUG)
        name = profile.profile
        for step in profile.filters:
            before = step.kept + len(step.dropped)
            _logger.verbose(
                "Running filter plugins",
                request_id=request_id,
                plugin=step.plugin,
                profile=name,
                before=before,
                after=step.kept,
            )
            if detailed and step.dropped:
                _logger.debug("Filtered out", request_id=request_id, plugin=step.plugin, endpoints=",".join(step.dropped))
        for scorer in profile.scorers:
            _logger.verbose("Running scorer plugin", request_id=request_id, plugin=scorer.plugin, profile=name)
            if detailed:
                for endpoint, score in scorer.scores.items():
                    _logger.debug(
                        "Calculated score",
                        request_id=request_id,
                        plugin=scorer.plugin,
                        endpoint=endpoint,
                        score=round(score, 6),
                        weight=scorer.weight,
                    )
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
