"""session-affinity-filter and multicluster-session-affinity-filter: keep a session on its endpoint."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import SESSION_ID
from epp.framework.registry import PluginType, Reads
from epp.framework.results import SchedulingResult
from epp.framework.types import EndpointChange, InferenceRequest, ResponseInfo
from plugins.shared.session_affinity import (
    SESSION_ID_HEADER,
    SESSION_TOKEN_HEADER,
    Affinity,
    EncodedHeaderParams,
    SessionAffinityParams,
    make_affinity,
    reads_session_id,
)

_READS = Reads(request_headers=frozenset({SESSION_TOKEN_HEADER, SESSION_ID_HEADER}))


class SessionAffinityFilter:
    """Keep the endpoint of the request's session.

    Parameters: strategy, profileName, encodedEndpointHeaderConfig, sessionIdConfig.
    Reads: as session-affinity-scorer, and sets the token or remembers the session as that does.
    Formula: the session's endpoint (a bare pod name means all its ranks), if it is a candidate.
    Missing data: without a session, with a token that cannot be read, or when the endpoint is no candidate, all.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/sessionaffinity
    """

    def __init__(self, affinity: Affinity) -> None:
        self._affinity = affinity

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The session's endpoint, or all."""
        bound = self._affinity.bound(request, candidates)
        return candidates.select(bound) if bound else candidates

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Remember the session, where the strategy does."""
        self._affinity.pre_request(request, result, edits)

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Tell the client its endpoint, where the strategy does."""
        self._affinity.response_received(request, result, response, edits)

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone."""
        self._affinity.endpoints_changed(change)

    def debug_state(self) -> object:
        """Sessions by endpoint."""
        return self._affinity.debug_state()


def _create(context: PluginContext, params: SessionAffinityParams) -> SessionAffinityFilter:
    return SessionAffinityFilter(make_affinity(context, params))


SESSION_AFFINITY = PluginType(
    type="session-affinity-filter",
    roles=frozenset({Role.FILTER, Role.PRE_REQUEST, Role.RESPONSE_RECEIVED}),
    summary="Keeps only the endpoint of the request's session, if it is a candidate.",
    params=SessionAffinityParams,
    factory=_create,
    consumes=(Consumes(SESSION_ID, when=reads_session_id),),
    reads=_READS,
    experimental=True,
    example="encodedEndpointHeaderConfig: {header: x-session-token}",
)

MULTICLUSTER_SESSION_AFFINITY = PluginType(
    type="multicluster-session-affinity-filter",
    roles=frozenset({Role.FILTER, Role.RESPONSE_RECEIVED}),
    summary="Keeps only the cluster of the request's session, if it is a candidate.",
    params=EncodedHeaderParams,
    reads=_READS,
    experimental=True,
    wait="multi-cluster routing",
)

PLUGINS = (SESSION_AFFINITY, MULTICLUSTER_SESSION_AFFINITY)
