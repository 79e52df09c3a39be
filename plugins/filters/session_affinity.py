"""session-affinity-filter and its multi-cluster twin: keep a session on its endpoint."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import SESSION_ID
from epp.framework.registry import PluginType, Reads
from plugins.session_affinity import SESSION_TOKEN_HEADER, EncodedHeaderParams, SessionAffinityParams

_READS = Reads(request_headers=frozenset({SESSION_TOKEN_HEADER, "x-session-id"}), response_headers=True)

SESSION_AFFINITY = PluginType(
    type="session-affinity-filter",
    roles=frozenset({Role.FILTER, Role.PRE_REQUEST, Role.RESPONSE_RECEIVED}),
    summary="Keeps only the endpoint of the request's session, if it is a candidate.",
    params=SessionAffinityParams,
    consumes=(Consumes(SESSION_ID, required=False),),
    reads=_READS,
    experimental=True,
    wait="session affinity",
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
