"""agent-identity: tell agents apart by their session headers, so that each is treated fairly."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.keys import AGENT_IDENTITY
from epp.framework.params import Params
from epp.framework.registry import PluginType, Reads

TYPE = "agent-identity"


class AgentIdentityParams(Params):
    """Parameters of agent-identity."""

    additional_session_headers: list[str] = Field(
        default=[], description="Request headers that are looked at before the known ones."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.REQUEST_HEADER}),
    summary="Tells agents apart by their session headers.",
    params=AgentIdentityParams,
    produces=(AGENT_IDENTITY,),
    reads=Reads(request_headers=frozenset({"x-claude-code-session-id", "x-session-affinity", "session-id", "session_id"})),
    experimental=True,
    wait="agent identities",
)
