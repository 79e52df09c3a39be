"""data-parallel-profile-handler: send to a pod's primary port, and name the chosen rank in a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from epp.errors import SchedulingError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, ProfileHandler, Role, SchedulingProfile
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest
from plugins.shared.disaggregation import DATA_PARALLEL_HEADER, at_port, name_rank

TYPE = "data-parallel-profile-handler"


class DataParallelProfileHandlerParams(Params):
    """Parameters of data-parallel-profile-handler."""

    primary_port: Int = Field(
        default=8000, ge=0, le=65535, description="Port that all targets are rewritten to; 0 = not rewritten."
    )


class DataParallelProfileHandler:
    """Run the one profile; its targets are reached through the primary port of their pods.

    Parameters: primaryPort.
    Headers: ``x-data-parallel-host-port`` = ``host:port`` of the first target as it was picked, for the proxy on that port.
    State: none; the endpoints of the pool keep their ports, the result holds copies.
    Failure: a profile that picked nothing fails the request; with several profiles the configuration is refused.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/dataparallel/dp_profile_handler.go
    """

    def __init__(self, primary_port: int) -> None:
        self._primary_port = primary_port

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: Mapping[str, ProfileRunResult | None],
    ) -> Sequence[str]:
        """The one profile at first, then none; none if there are several."""
        return tuple(profiles) if len(profiles) == 1 and not results else ()

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """The one result, behind the primary port.

        Raises:
            SchedulingError: the profile picked nothing, or there was not exactly one.
        """
        if len(results) != 1:
            raise SchedulingError(f"{TYPE} supports exactly one scheduling profile, {len(results)} ran")
        ((name, run),) = results.items()
        if run is None:
            raise SchedulingError(f"failed to run scheduler profile '{name}'")
        return SchedulingResult(primary=name, profiles=dict(results), targets=at_port(run.targets, self._primary_port))

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Name the rank."""
        if self._primary_port:
            name_rank(edits, result)


def _create(context: PluginContext, params: DataParallelProfileHandlerParams) -> ProfileHandler:
    if len(context.profiles) > 1:
        raise ValueError(
            f"it works with one scheduling profile, but there are {len(context.profiles)}: every request would fail"
        )
    return DataParallelProfileHandler(params.primary_port)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Sends to a pod's primary port and names the chosen data-parallel rank in a header.",
    params=DataParallelProfileHandlerParams,
    factory=_create,
    header_strip=frozenset({DATA_PARALLEL_HEADER}),
    example="primaryPort: 8000",
)
