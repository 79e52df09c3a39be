"""session-affinity-scorer: prefer the endpoint that served the session before."""

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
    SessionAffinityParams,
    make_affinity,
    reads_session_id,
)

TYPE = "session-affinity-scorer"


class SessionAffinityScorer:
    """Score the endpoint of the request's session.

    Parameters: strategy, profileName, encodedEndpointHeaderConfig, sessionIdConfig.
    Reads: the header ``x-session-token``, or with the strategy ``session_id`` the header ``x-session-id`` or the configured
        sources. Sets the token as a response header, or remembers the session in PreRequest.
    Formula: 1.0 for the session's endpoint (a bare pod name means all its ranks), 0.0 for the others.
    Missing data: without a session, with a token that cannot be read, or when the endpoint is no candidate, 0.0 for all.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/sessionaffinity
    """

    def __init__(self, affinity: Affinity) -> None:
        self._affinity = affinity

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        scores = [0.0] * len(candidates)
        for position in self._affinity.bound(request, candidates):
            scores[position] = 1.0
        return scores

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


def _create(context: PluginContext, params: SessionAffinityParams) -> SessionAffinityScorer:
    return SessionAffinityScorer(make_affinity(context, params))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.PRE_REQUEST, Role.RESPONSE_RECEIVED}),
    summary="Prefers the endpoint that served the session before.",
    params=SessionAffinityParams,
    factory=_create,
    consumes=(Consumes(SESSION_ID, when=reads_session_id),),
    reads=Reads(request_headers=frozenset({SESSION_TOKEN_HEADER, SESSION_ID_HEADER})),
    example="""
        strategy: session_id
        sessionIdConfig:
          sources:
          - header: x-session-id
          evictionTtlSeconds: 600
    """,
)
