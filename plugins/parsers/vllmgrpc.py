"""vllmgrpc-parser: vLLM's gRPC engine service."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType

TYPE = "vllmgrpc-parser"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads Generate and Embed calls of vLLM's gRPC engine service.",
    wait="gRPC request formats",
)
