"""agent-identity: tell agents apart by their session headers, so that each is treated fairly."""

from __future__ import annotations

from pydantic import Field

from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, RequestHeaderProcessor, Role
from epp.framework.keys import AGENT_IDENTITY
from epp.framework.params import Params
from epp.framework.registry import PluginType, Reads
from epp.framework.types import InferenceRequest

TYPE = "agent-identity"
SESSION_HEADERS = ("x-claude-code-session-id", "x-session-affinity", "session-id", "session_id")
"""Of Claude Code, OpenCode, Codex and older Codex."""


class AgentIdentityParams(Params):
    """Parameters of agent-identity."""

    additional_session_headers: list[str] = Field(
        default=[], description="Request headers that are looked at before the known ones."
    )


class AgentIdentity:
    """Take an agent's session as its identity.

    Parameters: additionalSessionHeaders.
    Reads: those request headers, then ``x-claude-code-session-id``, ``x-session-affinity``, ``session-id``, ``session_id``.
    Writes: agent-identity, the first value that is not empty. It becomes the fairness id of a request that names none.
        Where several instances are declared, the first that finds something counts.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/requestheader/agentidentity/agent_identity.go
    """

    def __init__(self, additional_headers: list[str]) -> None:
        names = (*(name.strip().lower() for name in additional_headers), *SESSION_HEADERS)
        self._headers = tuple(dict.fromkeys(name for name in names if name))

    def process_request(self, request: InferenceRequest, edits: HeaderEdits) -> None:
        """Publish the identity; nothing without one."""
        if request.data.get(AGENT_IDENTITY) is not None:
            return
        for name in self._headers:
            value = request.headers.get(name)
            if value:
                request.data.set(AGENT_IDENTITY, value)
                return


def _create(context: PluginContext, params: AgentIdentityParams) -> RequestHeaderProcessor:
    return AgentIdentity(params.additional_session_headers)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.REQUEST_HEADER}),
    summary="Tells agents apart by their session headers.",
    params=AgentIdentityParams,
    factory=_create,
    produces=(AGENT_IDENTITY,),
    reads=Reads(request_headers=frozenset(SESSION_HEADERS)),
    experimental=True,
)
