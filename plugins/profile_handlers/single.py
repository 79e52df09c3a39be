"""single-profile-handler: run the one scheduling profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epp.errors import SchedulingError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import ProfileHandler, Role, SchedulingProfile
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest

TYPE = "single-profile-handler"


class SingleProfileHandler:
    """Run the one profile there is; its targets are the result.

    Parameters: none.
    Failure: a profile that picked nothing fails the request.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/single
    """

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: Mapping[str, ProfileRunResult | None],
    ) -> Sequence[str]:
        """All profiles at first, then none."""
        return () if len(results) >= len(profiles) else tuple(profiles)

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """The one result.

        Raises:
            SchedulingError: the profile picked nothing, or there was not exactly one.
        """
        if len(results) != 1:
            raise SchedulingError(f"{TYPE} supports exactly one scheduling profile, {len(results)} ran")
        ((name, result),) = results.items()
        if result is None:
            raise SchedulingError(f"failed to run scheduler profile '{name}'")
        return SchedulingResult(name, dict(results), result.targets)


def _create(context: PluginContext, params: NoParams) -> ProfileHandler:
    return SingleProfileHandler()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER}),
    summary="Runs the one scheduling profile.",
    factory=_create,
)
