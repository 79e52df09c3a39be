"""session-affinity-scorer: prefer the endpoint that served the session before."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import SESSION_ID
from epp.framework.registry import PluginType, Reads
from plugins.session_affinity import SESSION_TOKEN_HEADER, SessionAffinityParams

TYPE = "session-affinity-scorer"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.PRE_REQUEST, Role.RESPONSE_RECEIVED}),
    summary="Prefers the endpoint that served the session before.",
    params=SessionAffinityParams,
    consumes=(Consumes(SESSION_ID, required=False),),
    reads=Reads(request_headers=frozenset({SESSION_TOKEN_HEADER, "x-session-id"}), response_headers=True),
    wait="session affinity",
)
