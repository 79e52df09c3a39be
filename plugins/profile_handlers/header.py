"""header-profile-handler: run the profile that a request header names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from epp.errors import SchedulingError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import ProfileHandler, Role, SchedulingProfile
from epp.framework.params import Params, ProfileReference
from epp.framework.registry import PluginType, Reads
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest

TYPE = "header-profile-handler"


def _stripped(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("must not be blank")
    return text


class HeaderProfileHandlerParams(Params):
    """Parameters of header-profile-handler."""

    header_name: Annotated[str, AfterValidator(_stripped)] = Field(
        default="EPP-Profile", min_length=1, description="Request header with the profile's name, in any case."
    )
    default_profile: Annotated[str, AfterValidator(_stripped), ProfileReference(required=False, others_run=True)] = Field(
        default="decode", min_length=1, description="Profile of requests without the header."
    )


class HeaderProfileHandler:
    """Run the profile that a request header names, or the default one without the header.

    Parameters: headerName, defaultProfile.
    Reads: one request header; its value is a profile's name, letter for letter, blanks around it ignored.
    Rule: with a single profile that one always runs. A name that no profile has runs nothing, and the request gets 429.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/headerprofile/header_profile_handler.go
    """

    def __init__(self, header_name: str, default_profile: str) -> None:
        self._header = header_name.lower()
        self._default = default_profile

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: Mapping[str, ProfileRunResult | None],
    ) -> Sequence[str]:
        """The chosen profile at first, then none; none if there is no such profile."""
        if results:
            return ()
        if len(profiles) == 1:
            return tuple(profiles)
        name = (request.headers.get(self._header) or "").strip() or self._default
        return (name,) if name in profiles else ()

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """The one result.

        Raises:
            SchedulingError: the profile picked nothing, or there was not exactly one.
        """
        if len(results) != 1:
            raise SchedulingError(f"{TYPE} runs one scheduling profile per request, {len(results)} ran")
        ((name, run),) = results.items()
        if run is None:
            raise SchedulingError(f"failed to run scheduler profile '{name}'")
        return SchedulingResult(primary=name, profiles=dict(results), targets=run.targets)


def _create(context: PluginContext, params: HeaderProfileHandlerParams) -> ProfileHandler:
    return HeaderProfileHandler(params.header_name, params.default_profile)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER}),
    summary="Runs the scheduling profile that a request header names.",
    params=HeaderProfileHandlerParams,
    factory=_create,
    reads=Reads(request_headers=frozenset({"epp-profile"})),
    experimental=True,
    example="""
        plugins:
        - type: header-profile-handler
          parameters: {headerName: x-tier, defaultProfile: cheap}
        - type: queue-scorer
        - type: kv-cache-utilization-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: cheap
          plugins:
          - pluginRef: kv-cache-utilization-scorer
          - pluginRef: max-score-picker
        - name: fast
          plugins:
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
    """,
)
