"""response-header-handler: tell the client which endpoints served it."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Reads

TYPE = "response-header-handler"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_RECEIVED}),
    summary="Tells the client in response headers which endpoints served it.",
    reads=Reads(response_headers=True),
    wait="disaggregated prefill",
)
